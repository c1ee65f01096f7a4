"""The place where a worker's rows begin, kept from round to round: no job that comes before it is ever missed."""

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from jobrunner.core.model import Claim, Claimed, Enqueue, Outcome, Succeeded, chained
from jobrunner.store.round import Round
from jobrunner.store.sqlite.connection import transact
from jobrunner.store.sqlite.maintenance import migrate
from jobrunner.store.sqlite.sql import claim, dead_letters, workers
from jobrunner.store.sqlite.sql.round import write_round
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    OTHER_WORKER,
    WORKER,
    claim_of,
    dead,
    ended,
    new,
    released,
    retry,
    succeeded,
    worker_row,
)

URGENT = 9


class File:
    """A file, the connection that writes its rounds, and what its claims have found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.conn = sqlite3.connect(path, isolation_level=None)
        self.conn.execute("PRAGMA journal_mode = WAL")
        self.conn.execute("PRAGMA synchronous = OFF")
        while migrate.check(self.conn):
            migrate.migrate_one(self.conn)
        self.heads = claim.Heads()

    def round(
        self,
        *,
        now: int = NOW,
        outcomes: Sequence[Outcome] = (),
        enqueues: Sequence[Enqueue] = (),
        claim: Claim | None = None,
        promote_due: bool = False,
    ) -> Sequence[Claimed]:
        request = Round(
            now, outcomes=outcomes, enqueues=enqueues, claim=claim, promote_due=promote_due
        )
        return transact(self.conn, write_round, request, self.heads).claimed

    def claim(self, slots: int = 1, *, tasks: Sequence[str] = ("work",)) -> Sequence[Claimed]:
        return self.round(claim=claim_of(slots=slots, tasks=tasks))


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    """Behind many rows of an unknown task one job runs and some wait, and the place of the first is known."""
    file = File(tmp_path / "jobs.db")
    with closing(file.conn):
        yield file


def known(file: File) -> Claimed:
    """Bring the file to where the place is known; return the job that runs."""
    file.round(enqueues=[new("alien", run_at=NOW - HOUR) for _ in range(claim.PASSED_OVER)])
    file.round(enqueues=[new() for _ in range(5)])
    (job,) = file.claim()
    assert file.heads.ranks == {"default": (0, NOW, job.seq)}
    assert len(file.claim()) == 1
    assert file.heads.ranks
    return job


def test_place_is_kept_over_rounds_that_put_nothing_before_it(file: File) -> None:
    job = known(file)
    later = [new(), new(priority=-1), new(run_at=NOW + HOUR), new(queue="mail", priority=URGENT)]
    file.round(outcomes=[succeeded(job)], enqueues=later)
    assert file.heads.ranks
    assert [one.id for one in file.claim(9)][-2:] == [later[0].id, later[1].id]


# Ways in which a job comes before the place. The last step of each may claim as well.


def by_enqueue(file: File, job: Claimed, urgent: Enqueue, claim: Claim | None) -> Sequence[Claimed]:
    return file.round(enqueues=[urgent], claim=claim)


def by_release(file: File, job: Claimed, urgent: Enqueue, claim: Claim | None) -> Sequence[Claimed]:
    running = started(file, urgent)
    return file.round(outcomes=[released(running)], claim=claim)


def by_promotion(
    file: File, job: Claimed, urgent: Enqueue, claim: Claim | None
) -> Sequence[Claimed]:
    file.round(enqueues=[urgent._replace(run_at=NOW + MINUTE)])
    return file.round(now=NOW + MINUTE, promote_due=True, claim=claim)


def by_retry(file: File, job: Claimed, urgent: Enqueue, claim: Claim | None) -> Sequence[Claimed]:
    running = started(file, urgent)
    return file.round(outcomes=[retry(running)], promote_due=True, claim=claim)


def by_end_of_the_one_before(
    file: File, job: Claimed, urgent: Enqueue, claim: Claim | None
) -> Sequence[Claimed]:
    first = new(priority=URGENT)
    running = started(file, *chained([first, urgent]))
    return file.round(outcomes=[succeeded(running)], claim=claim)


def by_enqueue_with_a_success(
    file: File, job: Claimed, urgent: Enqueue, claim: Claim | None
) -> Sequence[Claimed]:
    success = Succeeded(job, ended("succeeded"), None, enqueues=[urgent])
    return file.round(outcomes=[success], claim=claim)


def by_replay(file: File, job: Claimed, urgent: Enqueue, claim: Claim | None) -> Sequence[Claimed]:
    running = started(file, urgent)
    file.round(outcomes=[dead(running)])
    find_again(file)
    transact(file.conn, dead_letters.replay, urgent.id, NOW)
    return file.round(claim=claim)


def by_worker_that_leaves(
    file: File, job: Claimed, urgent: Enqueue, claim: Claim | None
) -> Sequence[Claimed]:
    transact(file.conn, workers.join, worker_row(OTHER_WORKER))
    started(file, urgent, worker=OTHER_WORKER)
    transact(file.conn, workers.leave, OTHER_WORKER, NOW)
    return file.round(claim=claim)


def by_another_connection(
    file: File, job: Claimed, urgent: Enqueue, claim: Claim | None
) -> Sequence[Claimed]:
    with closing(sqlite3.connect(file.path, isolation_level=None)) as other:
        transact(other, write_round, Round(NOW, enqueues=[urgent]))
    return file.round(claim=claim)


def started(file: File, *jobs: Enqueue, worker: int = WORKER) -> Claimed:
    """Store jobs that come first, claim the first of them, and have the place found again."""
    file.round(enqueues=jobs)
    (running,) = file.round(claim=claim_of(slots=1, worker=worker))
    assert running.id == jobs[0].id
    find_again(file)
    return running


def find_again(file: File) -> None:
    assert len(file.claim()) == 1
    assert file.heads.ranks


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    "way",
    [
        by_enqueue,
        by_release,
        by_promotion,
        by_retry,
        by_end_of_the_one_before,
        by_enqueue_with_a_success,
        by_replay,
        by_worker_that_leaves,
        by_another_connection,
    ],
)
def test_job_that_comes_before_the_place_is_claimed_next(
    file: File,
    way: Callable[[File, Claimed, Enqueue, Claim | None], Sequence[Claimed]],
    at_once: bool,
) -> None:
    job = known(file)
    urgent = new(priority=URGENT)
    claimed = way(file, job, urgent, claim_of(slots=1) if at_once else None)
    claimed = claimed if at_once else file.claim()
    assert [one.id for one in claimed] == [urgent.id]


def test_first_job_that_can_run_is_found_though_there_was_none(file: File) -> None:
    file.round(enqueues=[new("alien", run_at=NOW - HOUR) for _ in range(100)])
    assert file.claim() == []
    assert file.heads.ranks
    lowest = new(priority=-(2**31), run_at=NOW)
    assert [one.id for one in file.round(enqueues=[lowest], claim=claim_of())] == [lowest.id]


def test_place_of_one_worker_is_not_that_of_another_with_more_tasks(file: File) -> None:
    known(file)
    assert [one.task for one in file.claim(2, tasks=["work", "alien"])] == ["alien", "alien"]


def test_place_is_no_other_after_a_round_that_was_undone(file: File) -> None:
    known(file)
    file.heads.ranks.clear()
    file.conn.execute("BEGIN")
    again = Round(NOW, enqueues=[new()], claim=claim_of(slots=2))
    undone = write_round(file.conn, again, file.heads).claimed
    assert file.heads.ranks
    file.conn.execute("ROLLBACK")
    assert [one.seq for one in file.claim(2)] == [one.seq for one in undone]


@pytest.mark.parametrize("seed", range(10))
def test_claims_among_writes_of_all_kinds_take_what_a_sort_of_all_rows_would(
    file: File, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim, "PASSED_OVER", 3)
    rng = random.Random(seed)
    kept = 0
    with closing(sqlite3.connect(file.path, isolation_level=None)) as other:
        for _ in range(150):
            some = [
                new(
                    rng.choice(["alien", "alien", "work"]),
                    priority=rng.choice([0, 0, 0, 0, 0, 1]),
                    run_at=NOW + rng.choice([-HOUR, 0, 0, 0, 0, 1]),
                )
                for _ in range(rng.choice([0, 0, 1, 4]))
            ]
            if rng.random() < 0.1:
                transact(other, write_round, Round(NOW, enqueues=some))
                some = []
            slots = rng.choice([1, 2, 5])
            kept += bool(file.heads.ranks)
            claimed = file.round(
                enqueues=some, claim=claim_of(slots=slots), promote_due=rng.random() < 0.1
            )
            # By what is queued and running now; what this claim took would still be the first.
            asked = "SELECT seq FROM jobrunner_jobs WHERE state = 'queued' AND task = 'work'"
            rest = [seq for (seq,) in other.execute(asked)]
            ranked = "SELECT seq FROM jobrunner_jobs WHERE seq IN ({}) ORDER BY priority DESC, run_at, seq LIMIT ?"
            both = [*rest, *(job.seq for job in claimed)]
            marks = ", ".join("?" * len(both))
            expected = other.execute(ranked.format(marks), (*both, slots)).fetchall()
            assert [(job.seq,) for job in claimed] == expected
            settled: list[Outcome] = [
                released(job) if rng.random() < 0.5 else succeeded(job) for job in claimed
            ]
            file.round(outcomes=settled)
    assert kept > 5
