"""The list of lanes in SQLite: derived from the jobs, lost and repaired, and no burden for jobs outside lanes."""

import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobrunner.core.limits import Limit, LimitName, RateLimit
from jobrunner.core.model import Enqueue
from jobrunner.store.round import Round
from jobrunner.store.sqlite import SqliteStore, limits
from jobrunner.store.sqlite.sql import laned, lanes, queues, statements
from jobrunner.store.sqlite.sql.round import write_round
from jobrunner.store.sqlite.sql.turns import Turns
from tests.support.factories import (
    HOUR,
    NOW,
    SECOND,
    claim,
    claim_of,
    enqueue,
    new,
    retry,
    settle,
    succeeded,
)

TASKS = ("sync", "play")


@pytest.fixture
async def store(tmp_db: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_db)
    await store.open()
    await store.limits.set(LimitName("lanes", "sync"), Limit(1), now=NOW)
    yield store
    await store.close()


@pytest.fixture
def beside(store: SqliteStore, tmp_db: Path) -> Iterator[sqlite3.Connection]:
    """Another connection to the same file."""
    with closing(sqlite3.connect(tmp_db, isolation_level=None)) as conn:
        yield conn


def sync(key: object, *, ordered: bool = False) -> Enqueue:
    return new("sync", lane=f"sync[{key}]", ordered=ordered)


async def repair(store: SqliteStore, *, now: int = NOW) -> int:
    return await store.limits.repair(now=now)


async def test_a_lost_list_breaks_no_limit_and_a_repair_finds_every_job(
    store: SqliteStore, beside: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LANES_PER_SLICE", 7)
    await enqueue(store, *[sync(n % 40, ordered=n % 40 < 20) for n in range(80)])
    running = await claim(store, tasks=TASKS, slots=10)
    beside.execute("DELETE FROM jobrunner_lanes")
    assert await claim(store, tasks=TASKS) == []
    assert await repair(store) == 40
    more = await claim(store, tasks=TASKS)
    assert Counter(job.lane for job in [*running, *more]).most_common(1)[0][1] == 1
    assert len(more) == 30
    await settle(store, *map(succeeded, [*running, *more]))
    assert len(await claim(store, tasks=TASKS)) == 40


async def test_a_repair_opens_full_lanes_in_which_nothing_runs(
    store: SqliteStore, beside: sqlite3.Connection
) -> None:
    await enqueue(
        store, *[sync(n) for n in (1, 1, 2, 2)], *[sync(n, ordered=True) for n in (3, 3, 4, 4)]
    )
    first = await claim(store, tasks=TASKS, slots=4)
    by_lane = {job.lane: job for job in first}
    await settle(
        store,
        retry(by_lane["sync[3]"], NOW + HOUR),
        succeeded(by_lane["sync[1]"]),
        succeeded(by_lane["sync[4]"]),
    )
    assert len(await claim(store, tasks=TASKS, slots=0)) == 0
    beside.execute("UPDATE jobrunner_lanes SET state = 'full'")
    # Lane 2 has a running job, and the oldest job of lane 3 waits for its retry.
    assert await repair(store) == 2
    assert {job.lane for job in await claim(store, tasks=TASKS)} == {"sync[1]", "sync[4]"}


async def test_a_repair_without_faults_writes_nothing(
    store: SqliteStore, beside: sqlite3.Connection
) -> None:
    await enqueue(store, *[sync(n % 9, ordered=n % 9 > 4) for n in range(30)])
    await claim(store, tasks=TASKS, slots=5)
    (before,) = beside.execute("PRAGMA data_version").fetchone()
    assert await repair(store) == 0
    assert beside.execute("PRAGMA data_version").fetchone() == (before,)


async def test_a_repair_after_the_clock_was_set_back_wakes_lanes_and_brings_turns_back(
    store: SqliteStore, beside: sqlite3.Connection
) -> None:
    await store.limits.set(LimitName("lanes", "sync"), Limit(9, RateLimit(1, SECOND)), now=NOW)
    await enqueue(store, sync(1), sync(1), sync(2))
    await claim(store, tasks=TASKS, slots=2)
    then = NOW - HOUR
    assert await claim(store, tasks=TASKS, now=then + 2 * SECOND) == []
    assert await repair(store, now=then) == 1
    assert await claim(store, tasks=TASKS, now=then + 3 * SECOND) == []
    assert len(await claim(store, tasks=TASKS, now=then + 5 * SECOND)) == 1


async def test_lanes_are_listed_while_they_have_queued_jobs_only(
    store: SqliteStore, beside: sqlite3.Connection
) -> None:
    await enqueue(store, *[sync(n) for n in range(50)])
    running = await claim(store, tasks=TASKS)
    assert beside.execute("SELECT count(*) FROM jobrunner_lanes").fetchone() == (0,)
    await settle(store, *map(succeeded, running))
    assert beside.execute("SELECT count(*) FROM jobrunner_lanes").fetchone() == (0,)


async def test_a_claim_looks_at_so_many_lanes_at_most_and_asks_for_another_round(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, beside: sqlite3.Connection
) -> None:
    monkeypatch.setattr("jobrunner.store.sqlite.sql.laned.VISITS", 10)
    await enqueue(store, *[sync(n) for n in range(25) for _ in range(2)])
    await claim(store, tasks=TASKS, slots=25)
    await claim(store, tasks=TASKS, slots=25)
    await claim(store, tasks=TASKS, slots=25)
    beside.execute("UPDATE jobrunner_lanes SET state = 'open'")
    wanted = Round(NOW, claim=claim_of(tasks=TASKS))
    assert [(await store.write(wanted)).more_due for _ in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("statement", ["FIRST_IN_ORDER", "FIRST_OF_TASKS", "RANK"])
async def test_claims_of_jobs_outside_lanes_use_indexes_without_those_in_lanes(
    beside: sqlite3.Connection, statement: str
) -> None:
    text = getattr(statements, statement)
    names = {"queue": "default", "now": NOW, "task": "play", "limit": 5}
    values = names if ":queue" in text else (1, NOW, NOW, NOW, "default")
    plan = " ".join(row[3] for row in beside.execute(f"EXPLAIN QUERY PLAN {text}", values))
    assert "jobrunner_jobs_claim" in plan or "jobrunner_jobs_queued" in plan
    assert "SCAN jobrunner_jobs" not in plan


def test_a_repair_reads_a_few_rows_of_each_lane(beside: sqlite3.Connection) -> None:
    beside.execute("BEGIN")
    jobs = [sync(n % 3) for n in range(3_000)]
    write_round(beside, Round(NOW, enqueues=jobs))
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    beside.set_progress_handler(count, 10)
    found = lanes.faults(beside, lanes.Place(), NOW, 500)
    beside.set_progress_handler(None, 0)
    beside.execute("ROLLBACK")
    assert (found.unlisted, found.place) == ([], lanes.Place(after=0))
    assert steps < 100


async def test_a_claim_does_not_write_to_lanes_that_stay_open(
    store: SqliteStore, beside: sqlite3.Connection
) -> None:
    await enqueue(store, *[new("play", lane=f"play[{n}]") for n in range(9) for _ in range(3)])
    before = beside.execute("SELECT * FROM jobrunner_lanes ORDER BY id").fetchall()
    assert len(await claim(store, tasks=TASKS, slots=7)) == 7
    assert beside.execute("SELECT * FROM jobrunner_lanes ORDER BY id").fetchall() == before


def test_a_claim_among_many_tasks_compiles_no_statement_for_each(
    beside: sqlite3.Connection,
) -> None:
    tasks = [f"task-{n}" for n in range(40)]
    jobs = [new(task, lane=f"{task}[{n % 6}]") for n in range(12) for task in tasks]
    write_round(beside, Round(NOW, enqueues=jobs))
    wanted = Round(NOW, claim=claim_of(tasks=tasks, slots=50))
    turns = Turns()
    claimed = [job.id for job in write_round(beside, wanted, turns=turns).claimed]
    compiled = 0

    def count(*_: object) -> int:
        nonlocal compiled
        compiled += 1
        return sqlite3.SQLITE_OK

    beside.set_authorizer(count)
    for _ in range(8):
        claimed += [job.id for job in write_round(beside, wanted, turns=turns).claimed]
    beside.set_authorizer(None)
    # Some statements are needed for the first time; one more for each task and claim were 10,000.
    assert compiled < 1_000
    assert len(claimed) == len(set(claimed)) == 450


async def test_a_process_that_starts_again_begins_a_new_round_of_turns(tmp_db: Path) -> None:
    served: Counter[str | None] = Counter()
    for number in range(6):
        store = SqliteStore(tmp_db)
        await store.open()
        if number == 0:
            await enqueue(
                store, *[new("play", lane=f"play[{n}]") for n in range(4) for _ in range(9)]
            )
        served.update(job.lane for job in await claim(store, tasks=TASKS, slots=4))
        await store.close()
    assert set(served.values()) == {6}


@pytest.mark.parametrize("statements", [laned._VISIT_COUNTING, laned._VISIT_UNCOUNTED])
async def test_a_claim_seeks_the_lanes_behind_the_last_one_and_the_first_job_of_each(
    beside: sqlite3.Connection, statements: list[str]
) -> None:
    values = (1, NOW, NOW, NOW, "default", "sync", 0)
    plans = [
        "\n".join(row[3] for row in beside.execute(f"EXPLAIN QUERY PLAN {text}", (*values, *place)))
        for text, place in zip(
            statements, ((NOW, 5, 9, 2, 0), (NOW, 9, 2, 0), (NOW, 5, 9, 2, 0)), strict=True
        )
    ]
    of_task = "lanes_open (queue=? AND task=? AND priority=?"
    assert f"{of_task} AND turn=? AND rowid>? AND rowid<?)" in plans[0]
    assert f"{of_task} AND turn>?)" in plans[1]
    assert f"{of_task})" in plans[2]
    for plan in plans:
        assert plan.count("USING INDEX jobrunner_jobs_laned (queue=? AND lane=?)") == 2
        assert "TEMP B-TREE" not in plan


def test_the_oldest_waiting_job_is_found_in_a_few_rows_of_each_lane(
    beside: sqlite3.Connection,
) -> None:
    write_round(beside, Round(NOW, enqueues=[sync(n % 50) for n in range(5_000)]))
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    beside.set_progress_handler(count, 10)
    assert queues.waiting_tasks(beside) == [("default", "sync", NOW)]
    beside.set_progress_handler(None, 0)
    assert steps < 500


def test_waiting_tasks_are_found_by_their_lanes(beside: sqlite3.Connection) -> None:
    tasks = ["a", "a.b", "a:b", "a-b", "a_b", "aa", "ab", "b", "B"]
    jobs = [
        new(task, queue=queue, lane=f"{task}[{key}]", run_at=NOW + at)
        for at, task in enumerate(tasks)
        for queue in ("default", "mail")
        for key in ('"]"', '"\\\\"', 7)
    ]
    write_round(beside, Round(NOW + len(tasks), enqueues=jobs))
    expected = [(q, task, NOW + at) for q in ("default", "mail") for at, task in enumerate(tasks)]
    assert sorted(queues.waiting_tasks(beside)) == sorted(expected)


def test_statements_bind_sequences_by_question_marks_alone() -> None:
    """`?5` is a named parameter from Python 3.12 on, and an error with a sequence from 3.14 on."""
    sources = Path(laned.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if re.search(r"\?\d", path.read_text())] == []
