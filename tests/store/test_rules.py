"""The rules by themselves, and compared with the statements that decide without them."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobrunner.core.model import (
    LOST_LIMIT,
    UNFINISHED,
    Cancelled,
    Claimed,
    Enqueue,
    JobRow,
    Released,
    RetryAt,
    Snoozed,
    State,
    Succeeded,
    chained,
)
from jobrunner.store import rules
from jobrunner.store.round import Round, Written
from jobrunner.store.rules import AfterCrash, RunAgain
from jobrunner.store.sqlite.maintenance import migrate
from jobrunner.store.sqlite.sql import claim, control, queries, workers
from jobrunner.store.sqlite.sql.round import write_round
from tests.support.factories import (
    HOUR,
    MINUTE,
    NOW,
    OUTCOMES,
    SECOND,
    WORKER,
    claim_of,
    new,
    released,
    retry,
    snoozed,
    succeeded,
)


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as conn:
        conn.execute("PRAGMA synchronous = OFF")
        while migrate.check(conn):
            migrate.migrate_one(conn)
        yield conn


def write(conn: sqlite3.Connection, batch: Round) -> Written:
    conn.execute("BEGIN")
    written = write_round(conn, batch)
    conn.execute("COMMIT")
    return written


def row_of(conn: sqlite3.Connection, id: str) -> JobRow:
    row = queries.get(conn, id)
    assert row is not None
    return row


def attempt(seq: int = 1, *, chain: str | None = None) -> Claimed:
    """Return a claimed job that was never stored."""
    return Claimed(
        *(seq, 1, WORKER, f"job {seq}", "work", "default", "{}", 1, NOW, NOW, NOW, NOW - MINUTE),
        priority=0,
        max_attempts=None,
        timeout=None,
        suspect=False,
        chain=chain,
    )


# -- new jobs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "state"),
    [
        (new(run_at=NOW), "queued"),
        (new(run_at=NOW - HOUR), "queued"),
        (new(run_at=NOW + 1), "scheduled"),
        (new(created_at=NOW + HOUR), "queued"),
        (new(created_at=NOW + HOUR, run_at=NOW + HOUR + 1), "scheduled"),
        (new()._replace(after="another"), "blocked"),
        (new(run_at=NOW + HOUR)._replace(after="another"), "blocked"),
    ],
)
def test_first_state_goes_by_its_place_in_a_chain_then_by_its_time(
    job: Enqueue, state: State
) -> None:
    assert rules.first_state(job, NOW) == state


def test_link_of_the_first_that_is_stored_makes_it_the_head() -> None:
    job = new()._replace(chain="refused", after="refused")
    assert rules.link(job, first=None, before=None) == job._replace(chain=job.id, after=None)


def test_link_of_a_later_one_follows_the_last_that_was_stored() -> None:
    job = new()._replace(chain="head", after="refused")
    assert rules.link(job, first="head", before="third") == job._replace(after="third")


def test_units_are_chains_and_jobs_alone() -> None:
    alone, chain = [new(), new()], chained([new(), new()])
    found = list(rules.units([alone[0], *chain, alone[1]]))
    assert found == [[alone[0]], list(chain), [alone[1]]]


# -- the end of an attempt -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        (retry(attempt(), NOW + HOUR), RunAgain("scheduled", NOW + HOUR, 0, stays_suspect=False)),
        (snoozed(attempt(), NOW + HOUR), RunAgain("scheduled", NOW + HOUR, 1, stays_suspect=False)),
        (released(attempt()), RunAgain("queued", NOW - MINUTE, 1, stays_suspect=True)),
    ],
)
def test_run_again_by_the_end_of_the_attempt(
    outcome: RetryAt | Snoozed | Released, again: RunAgain
) -> None:
    assert rules.run_again(outcome) == again


@pytest.mark.parametrize("name", OUTCOMES)
def test_obey_cancels_turns_what_would_run_again_into_a_cancel(name: str) -> None:
    ours, other = OUTCOMES[name](attempt(1)), OUTCOMES[name](attempt(2))
    obeyed, stopped = rules.obey_cancels([ours, other], {(1, 1)})
    if name in ("retry", "snoozed", "parked", "released"):
        assert obeyed == [Cancelled(ours.job, ours.ended), other]
        assert stopped == {1}
    else:
        assert obeyed == [ours, other]
        assert not stopped


def test_obey_cancels_of_an_earlier_attempt_changes_nothing() -> None:
    outcomes = [retry(attempt(1))]
    assert rules.obey_cancels(outcomes, {(1, 0)}) == (outcomes, frozenset())


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ("scheduled", "cancelled"),
        ("queued", "cancelled"),
        ("blocked", "cancelled"),
        ("running", "requested"),
        ("succeeded", None),
        ("cancelled", None),
        ("expired", None),
        ("dead", None),
    ],
)
def test_on_cancel_by_the_state_of_the_job(state: State, what: str | None) -> None:
    assert rules.on_cancel(state) == what
    assert (what is not None) is (state in UNFINISHED)


# -- chains --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("now", [NOW, NOW - HOUR], ids=["later", "the clock was set back"])
@pytest.mark.parametrize("run_at", [NOW - HOUR, NOW, NOW + 1, NOW + HOUR])
def test_unblock_as_the_statement_does(conn: sqlite3.Connection, run_at: int, now: int) -> None:
    first, second = chained([new(run_at=NOW - HOUR), new(run_at=run_at)])
    (job,) = write(conn, Round(NOW, enqueues=[first, second], claim=claim_of())).claimed
    write(conn, Round(now, outcomes=[succeeded(job)]))
    row = row_of(conn, second.id)
    assert (row.state, row.run_at) == rules.unblock(run_at=run_at, created_at=NOW, now=now)


# -- after a crash -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "max_attempts", "deaths", "what"),
    [
        (1, None, 1, "queued"),
        (1, None, 2, "suspect"),
        (9, None, LOST_LIMIT - 1, "suspect"),
        (9, None, LOST_LIMIT, "buried"),
        (1, 3, 1, "queued"),
        (2, 3, 1, "suspect"),
        (3, 3, 1, "buried"),
        (1, 1, 1, "buried"),
        (5, 100, LOST_LIMIT, "suspect"),
    ],
)
def test_after_crash_by_attempts_and_deaths(
    attempt: int, max_attempts: int | None, deaths: int, what: AfterCrash
) -> None:
    def after(*, cancel_requested: bool) -> AfterCrash:
        return rules.after_crash(
            attempt=attempt,
            max_attempts=max_attempts,
            deaths=deaths,
            cancel_requested=cancel_requested,
        )

    assert after(cancel_requested=False) == what
    assert after(cancel_requested=True) == "cancelled"


@pytest.mark.parametrize("is_requested", [False, True])
def test_leave_gives_jobs_back_as_a_release_does(
    conn: sqlite3.Connection, *, is_requested: bool
) -> None:
    jobs = [new(), new()]
    left, settled = write(conn, Round(NOW, enqueues=jobs, claim=claim_of())).claimed
    if is_requested:
        for job in jobs:
            control.cancel(conn, job.id, NOW)
    requested = set(control.cancel_requests(conn, WORKER))
    (outcome,), _ = rules.obey_cancels([released(settled)], requested)
    write(conn, Round(NOW, outcomes=[outcome]))
    workers.leave(conn, WORKER, NOW)
    one, other = row_of(conn, left.id), row_of(conn, settled.id)
    assert (one.state, one.run_at, one.finished_at) == (
        other.state,
        other.run_at,
        other.finished_at,
    )
    if not is_requested:
        assert (one.state, one.run_at) == rules.run_again(released(left))[:2]
        assert one.attempt == left.attempt - 1


# -- claims --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passed_over", [1, 5, 64])
@pytest.mark.parametrize("seed", range(4))
def test_claim_takes_the_jobs_that_it_may_in_claim_order(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, seed: int, passed_over: int
) -> None:
    """With few rows passed over, the tasks are asked one by one, and the place found is kept."""
    monkeypatch.setattr(claim, "PASSED_OVER", passed_over)
    rng = random.Random(seed)
    tasks = ["work", "play", "unknown", "foreign"]
    jobs = [
        new(
            rng.choice(tasks),
            queue=rng.choice(["default", "other", "unserved"]),
            run_at=NOW + rng.randrange(-5, 2) * SECOND,
            priority=rng.choice([-1, 0, 0, 0, 7]),
            expires_at=rng.choice([None, None, NOW, NOW + HOUR]),
        )
        for _ in range(200)
    ]
    write(conn, Round(NOW - 5 * SECOND, enqueues=jobs[:150]))
    write(conn, Round(NOW, enqueues=jobs[150:]))
    conn.execute("UPDATE jobrunner_jobs SET state = 'queued' WHERE run_at <= ?", (NOW,))
    wanted = claim_of("default", "other", slots=7, tasks=["work", "play"])
    heads = claim.Heads()
    for _ in range(6):
        expected: list[JobRow] = []
        rows = [row_of(conn, job.id) for job in jobs]
        for queue, slots in wanted.slots.items():
            waiting = [
                row for row in rows if row.queue == queue and rules.may_claim(row, wanted, NOW)
            ]
            expected += sorted(waiting, key=rules.claim_order)[:slots]
        conn.execute("BEGIN")
        claimed = write_round(conn, Round(NOW, claim=wanted), heads).claimed
        conn.execute("COMMIT")
        assert [job.id for job in claimed] == [
            row.id for row in sorted(expected, key=rules.claim_order)
        ]


# -- a pass --------------------------------------------------------------------------------------------


def test_pass_goes_in_the_order_of_the_fields_of_a_round(conn: sqlite3.Connection) -> None:
    (running,) = write(conn, Round(NOW, enqueues=[new()], claim=claim_of())).claimed
    done: list[str] = []
    starts = {
        "UPDATE jobrunner_jobs SET state = 'succeeded'": "outcomes",
        "UPDATE jobrunner_jobs SET state = 'expired'": "promote_due",
        "INSERT INTO jobrunner_jobs": "enqueues",
        "UPDATE jobrunner_jobs SET state = 'running'": "claim",
    }

    def note(statement: str) -> None:
        done.extend(part for start, part in starts.items() if statement.strip().startswith(start))

    conn.set_trace_callback(note)
    batch = Round(
        NOW,
        outcomes=[Succeeded(running, succeeded(running).ended, None)],
        promote_due=True,
        enqueues=[new()],
        claim=claim_of(),
    )
    write(conn, batch)
    assert done == [field for field in Round._fields if field in starts.values()]
