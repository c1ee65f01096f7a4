"""Limits as users declare and change them: in a worker, beside others, and at run time."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from freezegun.api import FrozenDateTimeFactory

from jobrunner import (
    Concurrency,
    InvalidOptions,
    Job,
    JobRunner,
    QueueFull,
    QueueSettings,
    Rate,
    UnknownQueue,
    UnknownTask,
)
from jobrunner.core.clock import now_us
from jobrunner.store.round import Round, Written
from jobrunner.store.sqlite import SqliteStore
from tests.support.engine import (
    Gate,
    make_due,
    next_round,
    on_writer,
    soon,
    suspend,
    worker_of,
)


class Bench:
    """A runner with one task by key, whose attempts wait at a gate."""

    def __init__(self, file: Path) -> None:
        self.jobs = JobRunner(
            file, queues={"default": 20, "small": QueueSettings(5, max_waiting=2)}
        )
        self.gate = Gate()

        @self.jobs.task(concurrency=[Concurrency(5), Concurrency(2, by="key")])
        async def hold(key: int, number: int) -> int:
            await self.gate.enter((key, number))
            return number

        @self.jobs.task(queue="small")
        async def plain() -> None: ...

        self.hold = hold
        self.plain = plain

    async def fill(self, keys: int, each: int) -> list[Job[int]]:
        calls = [self.hold.call(key, number) for number in range(each) for key in range(keys)]
        return await self.jobs.enqueue_many(calls)

    async def arrive(self, number: int) -> None:
        for _ in range(number):
            await self.gate.arrival()
        await next_round(self.jobs)
        assert self.gate.inside == number


@pytest.fixture
def bench(tmp_db: Path) -> Bench:
    return Bench(tmp_db)


async def test_limits_of_task_and_key_hold_in_a_worker(bench: Bench) -> None:
    async with bench.jobs.running():
        made = await bench.fill(keys=1, each=6)
        await bench.arrive(2)
        made += await bench.fill(keys=4, each=3)
        for _ in range(3):
            await bench.gate.arrival()
        await next_round(bench.jobs)
        assert bench.gate.inside == 5
        bench.gate.open()
        for job in made:
            await job.result(timeout=15)
    assert bench.gate.most == 5


async def test_a_limit_that_is_raised_starts_jobs_at_once(bench: Bench) -> None:
    async with bench.jobs.running():
        await bench.fill(keys=1, each=9)
        await bench.arrive(2)
        info = await bench.jobs.limits.set(task=bench.hold, by=0, concurrency=4)
        assert (info.scope, info.name, info.concurrency) == ("lane", "hold[0]", 4)
        await soon(bench.gate.arrival())
        await soon(bench.gate.arrival())
        await next_round(bench.jobs)
        assert bench.gate.inside == 4
        assert await bench.jobs.limits.reset(task="hold", by=0)
        assert not await bench.jobs.limits.reset(task="hold", by=0)
        bench.gate.open()


@pytest.mark.parametrize("key", [7, "a]b", None, "x" * 600, "\x7f\0"])
async def test_a_limit_in_the_list_is_named_by_its_lane(tmp_db: Path, key: object) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task(fair="key")
    async def take(key: int | str | None) -> None: ...

    async with jobs.running(work=False):
        made = await jobs.limits.set(task=take, by=key, concurrency=1)
        same = await jobs.limits.set(lane=made.name, rate_limit=Rate(5))
        assert (same.name, same.concurrency, same.rate_limit) == (made.name, 1, Rate(5, per=1.0))
        assert await jobs.limits.reset(lane=made.name)
        assert (await jobs.limits.list()).items == []


async def test_limits_are_listed_as_they_are_in_force(bench: Bench) -> None:
    async with bench.jobs.running():
        rate = Rate(10, per=60, burst=2)
        await bench.jobs.limits.set(task="hold", by=7, rate_limit=rate)
        await bench.jobs.limits.set(task="hold", each=True, concurrency=3)
        found = []
        cursor = None
        while True:
            page = await bench.jobs.limits.list(limit=2, cursor=cursor)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        assert [(one.scope, one.name, one.concurrency, one.max_waiting) for one in found] == [
            ("lanes", "hold", 3, None),
            ("queue", "small", None, 2),
            ("task", "hold", 5, None),
            ("lane", "hold[7]", None, None),
        ]
        assert [one.rate_limit for one in found] == [None, None, None, Rate(10, per=60.0, burst=2)]
        assert [one.set_at is not None for one in found] == [True, False, False, True]


async def test_what_was_set_outlives_the_process_and_the_code_counts_otherwise(
    bench: Bench, tmp_db: Path
) -> None:
    async with bench.jobs.running():
        await bench.jobs.limits.set(task="hold", concurrency=9)
    other = JobRunner(tmp_db, queues={"default": 20, "small": 5})

    @other.task(name="hold", concurrency=Concurrency(7, by="key"))
    async def hold(key: int) -> None: ...

    async with other.running():
        found = {(one.scope, one.name): one for one in (await other.limits.list()).items}
        assert found["task", "hold"].concurrency == 9
        assert found["lanes", "hold"].concurrency == 7
        assert ("queue", "small") not in found
        await other.limits.reset(task="hold")
        assert ("task", "hold") not in {
            (o.scope, o.name) for o in (await other.limits.list()).items
        }


async def test_a_full_queue_refuses_a_call_as_a_whole(bench: Bench) -> None:
    async with bench.jobs.running(work=False):
        with pytest.raises(QueueFull, match="max_waiting=4"):
            await bench.jobs.enqueue_many([bench.plain.call() for _ in range(3)])
        await bench.jobs.enqueue_many([bench.plain.call() for _ in range(2)])
        with pytest.raises(QueueFull):
            await bench.plain.enqueue()
        await bench.plain.options(delay=60).enqueue()
        await bench.jobs.limits.set(queue="small", max_waiting=3)
        await bench.plain.enqueue()
        assert (await bench.jobs.queues.list()).items[1].queued == 3


async def test_a_rate_is_held_while_the_worker_sleeps(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task(rate_limit=Rate(20, per=1))
    async def note() -> None: ...

    async with jobs.running():
        made = await jobs.enqueue_many([note.call() for _ in range(21)])
        for job in made:
            await job.result(timeout=15)
    with closing(sqlite3.connect(tmp_db)) as conn:
        (took_us,) = conn.execute(
            "SELECT max(started_at) - min(started_at) FROM jobrunner_jobs"
        ).fetchone()
    # The last one is due a second after the first; the slack of 50 ms is a token.
    assert took_us >= 950_000


@pytest.mark.usefixtures("no_poll")
@pytest.mark.parametrize("by", [None, "key"])
async def test_an_idle_worker_claims_once_per_token(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, by: str | None
) -> None:
    number, empty = 12, 0
    write = SqliteStore.write

    async def counted(self: SqliteStore, request: Round) -> Written:
        nonlocal empty
        written = await write(self, request)
        # A round that settles the last job may claim at the same time.
        empty += request.claim is not None and not (written.claimed or request.outcomes)
        return written

    jobs = JobRunner(tmp_db)

    @jobs.task(rate_limit=Rate(10, per=1, by=by))
    async def note(key: int) -> None: ...

    async with jobs.running():
        made = await jobs.enqueue_many([note.call(7) for _ in range(number)])
        monkeypatch.setattr(SqliteStore, "write", counted)
        for job in made:
            await job.result(timeout=15)
    assert empty <= number


async def test_wrong_words_are_refused_with_the_line_to_write(bench: Bench) -> None:
    limits = bench.jobs
    async with bench.jobs.running(work=False):
        for words, said in (
            ({}, "name a task, a queue or a lane"),
            ({"task": "hold", "queue": "small"}, "name a task, a queue or a lane"),
            ({"task": "hold"}, "no number is given"),
            ({"task": "hold", "concurrency": 0}, "write"),
            ({"task": "hold", "max_waiting": 4}, "with queue="),
            ({"queue": "small", "max_waiting": 100_001}, "100,000"),
            ({"task": "hold", "lane": "hold[7]"}, "name a task, a queue or a lane"),
            ({"queue": "small", "by": 7, "concurrency": 2}, "belong to a task"),
            ({"lane": "hold[7]", "each": True, "concurrency": 2}, "belong to a task"),
            ({"lane": "hold", "concurrency": 2}, "is no lane"),
            ({"lane": "hold[7", "concurrency": 2}, "is no lane"),
            ({"lane": "hold[#12]", "concurrency": 2}, "is no lane"),
            ({"lane": "hold[1,2]", "concurrency": 2}, "a tuple of 1"),
            ({"lane": "plain[1]", "concurrency": 2}, "declares no by"),
            ({"task": "hold", "by": (1, 2), "concurrency": 2}, "a tuple of 1"),
            ({"task": "plain", "by": 1, "concurrency": 2}, "declares no by"),
            ({"task": "hold", "rate_limit": Rate(1, by="key")}, "without by="),
        ):
            with pytest.raises(InvalidOptions, match=said):
                await limits.limits.set(**words)
        with pytest.raises(UnknownTask):
            await limits.limits.set(task="nobody", concurrency=1)
        with pytest.raises(UnknownQueue):
            await limits.limits.set(queue="nobody", concurrency=1)
        with pytest.raises(InvalidOptions, match="cursor"):
            await limits.limits.list(cursor="?")


async def test_an_edited_replay_lies_in_the_lane_of_its_new_arguments(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    running: list[int] = []
    both = asyncio.Event()

    @jobs.task(max_attempts=1, concurrency=Concurrency(1, by="key"))
    async def fail_or_hold(key: int) -> None:
        if key == 0:
            raise ValueError("no")
        running.append(key)
        if len(running) == 2:
            both.set()
        await both.wait()

    async with jobs.running():
        job = await jobs.enqueue(fail_or_hold, 0)
        with pytest.raises(Exception, match="no"):
            await job.result(timeout=15)
        await jobs.enqueue(fail_or_hold, 1)
        await jobs.dead_letters.replay(job.id, args={"key": 2})
        await soon(both.wait())


async def test_a_chore_finds_the_lanes_of_a_list_that_was_lost(bench: Bench) -> None:
    async with bench.jobs.running():
        suspend(bench.jobs, "lanes")
        made = await bench.fill(keys=1, each=3)
        await bench.arrive(2)
        await on_writer(bench.jobs, lambda conn: conn.execute("DELETE FROM jobrunner_lanes"))
        bench.gate.open()
        for job in made[:2]:
            await job.result(timeout=15)
        await next_round(bench.jobs)
        assert (await bench.jobs.get(made[2].id)).state == "queued"
        await worker_of(bench.jobs).maintenance.lanes.run()
        assert await made[2].result(timeout=15) == 2


async def test_a_clock_that_is_set_back_wakes_the_lanes_that_wait_for_tokens(
    tmp_db: Path, frozen: FrozenDateTimeFactory
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task(rate_limit=Rate(1, per=10, by="key"))
    async def note(key: int) -> None: ...

    async with jobs.running():
        suspend(jobs, "lanes")
        first, second = await jobs.enqueue_many([note.call(1), note.call(1)])
        await first.result(timeout=15)
        await worker_of(jobs).do_chores()
        frozen.tick(timedelta(hours=-1))
        make_due(jobs, "clock")
        await worker_of(jobs).do_chores()
        frozen.tick(timedelta(seconds=25))
        make_due(jobs, "poll")
        await worker_of(jobs).do_chores()
        await second.result(timeout=15)


async def test_buckets_of_unused_keys_are_deleted(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)

    def keys() -> list[str]:
        with closing(sqlite3.connect(tmp_db)) as conn:
            return [name for (name,) in conn.execute("SELECT name FROM jobrunner_buckets")]

    async with jobs.running(work=False):
        pass
    with closing(sqlite3.connect(tmp_db)) as conn, conn:
        rows = [("lane", "call[1]", 1), ("lane", "call[2]", now_us() + 3_600_000_000)]
        conn.executemany("INSERT INTO jobrunner_buckets VALUES (?, ?, ?)", rows)
    async with jobs.running():
        for _ in range(100):
            if keys() == ["call[2]"]:
                break
            await next_round(jobs)
    assert keys() == ["call[2]"]
