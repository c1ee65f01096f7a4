"""``kill -9`` at random times under load: nothing acknowledged is lost, nothing settled runs again."""

import contextlib
import random
import sqlite3
from pathlib import Path

import pytest

from jobrunner import JobContext, JobRunner
from tests.soak.budget import Figures, rounds
from tests.support.children import hold, tasks
from tests.support.engine import Heard, history, next_round, soon
from tests.support.processes import Child, child

LEAST_ROUNDS = 7
"""One in six kills both."""


class Fleet:
    """Two worker processes on one file, both under load; a killed one is replaced."""

    def __init__(self, file: Path, ledger: Path) -> None:
        self._command = ("load", file, ledger)
        self._stack = contextlib.AsyncExitStack()
        self._living: list[Child] = []

    async def start(self) -> None:
        self._living.append(await self._stack.enter_async_context(child(*self._command)))

    async def opened(self, which: int) -> None:
        await self._living[which].heard("open")

    async def live(self, seconds: float) -> None:
        """Let them work for a while; they must not end by themselves."""
        for one in self._living:
            assert await one.lives(seconds / len(self._living)), "a worker has ended by itself"

    async def kill(self, number: int) -> None:
        """Kill the oldest ones."""
        victims, self._living = self._living[:number], self._living[number:]
        for victim in victims:
            victim.send_signal(9)
        for victim in victims:
            await victim.kill()

    async def aclose(self) -> None:
        await self._stack.aclose()


async def play(fleet: Fleet, *, seed: int, seconds: float) -> int:
    """Kill them at random times: one of two, so that the other takes over, and at times both; return how often."""
    dice = random.Random(seed)
    kills = 2
    await fleet.start()
    await fleet.start()
    await fleet.opened(0)
    await fleet.opened(1)
    for number in rounds(seconds, least=LEAST_ROUNDS):
        everybody = number % 6 == 5
        if not everybody:
            # The next one starts while these are at work.
            await fleet.start()
        await fleet.live(dice.uniform(0, 0.4))
        await fleet.kill(2 if everybody else 1)
        kills += 2 if everybody else 1
        if everybody:
            await fleet.start()
            await fleet.start()
            await fleet.opened(0)
        await fleet.opened(1)
    await fleet.kill(2)
    return kills


async def drain(file: Path, acked: set[str]) -> list[str]:
    """Run what is left; return which jobs ran for that, once every acknowledged one has succeeded."""
    jobs = JobRunner(file, queues={"default": 20})
    ran: list[str] = []

    @jobs.task(max_attempts=100)
    async def note(job: JobContext) -> None:
        ran.append(job.id)

    async with jobs.running():
        for id in sorted(acked):
            job = await jobs.get(id, note)  # JobNotFound: lost
            await job.result(timeout=20)  # JobDead: buried with somebody else
        assert await jobs.dead_letters.count() == 0
        # Those whose callers died before they were told.
        last = await jobs.enqueue(note.options(priority=-32767))
        await last.result(timeout=20)
        while (await jobs.queues.list()).items[0].running:
            await next_round(jobs)
        (queue,) = (await jobs.queues.list()).items
        assert (queue.queued, queue.scheduled) == (0, 0)
    return ran


async def kill_under_load(directory: Path, *, seed: int, seconds: float) -> Figures:
    """Play, and hold the file against what the processes wrote down beside it."""
    file, ledger = directory / "jobs.db", directory / "ledger"
    async with contextlib.aclosing(Fleet(file, ledger)) as fleet:
        kills = await play(fleet, seed=seed, seconds=seconds)
    lines = ledger.read_text().splitlines()
    events = [(what, id) for what, _, id in (line.partition(" ") for line in lines)]
    acked = {id for what, id in events if what == "acked"}
    assert len(acked) > 20 * LEAST_ROUNDS, "that was no load"

    left = await drain(file, acked)
    events += [("ran", id) for id in left]
    settled: set[str] = set()
    for what, id in events:
        assert what != "ran" or id not in settled, f"{id} was settled, and ran again"
        if what == "settled":
            settled.add(id)
    assert len(settled) > LEAST_ROUNDS
    with contextlib.closing(sqlite3.connect(file)) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (twice,) = conn.execute(
            "SELECT count(*) FROM (SELECT 1 FROM jobrunner_attempts WHERE outcome = 'succeeded'"
            " GROUP BY job HAVING count(*) > 1)"
        ).fetchone()
        assert twice == 0
    return {
        "kills": kills,
        "jobs acknowledged": len(acked),
        "lost": 0,
        "run again after they were settled": 0,
        "left to the last process": len(left),
    }


@pytest.mark.slow
async def test_D1_D3_killed_at_random_times_loses_nothing_acknowledged_and_repeats_nothing_settled(
    tmp_path: Path, seed: int, seconds: float
) -> None:
    await kill_under_load(tmp_path, seed=seed, seconds=seconds)


async def test_D1_killed_with_running_jobs_another_live_process_takes_them_over(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db)
    heard = Heard(jobs)

    @jobs.task(name="hold")
    async def take_over(job: JobContext, name: str) -> str:
        return f"{name} in attempt {job.attempt}"

    async with child("client", tmp_db) as client:
        await client.heard("open")
        async with child("work", tmp_db) as victim:
            await victim.heard("open")
            client.send("hold a")
            id = (await client.heard("stored"))["id"]
            assert (await victim.heard("held"))["attempt"] == 1
            async with jobs.running():
                job = await jobs.get(id, take_over)
                assert job.state == "running"
                victim.send_signal(9)
                assert await job.result(timeout=15) == "a in attempt 2"
                attempts = await history(jobs, id)
                assert [(a.outcome, a.error_type) for a in attempts] == [
                    ("lost", "ProcessLost"),
                    ("succeeded", None),
                ]
                assert attempts[0].worker != attempts[1].worker
                await soon(heard.succeeded.get())


async def test_D1_killed_beside_a_process_that_only_enqueues_is_found_by_that_one(
    tmp_db: Path,
) -> None:
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with jobs.running(work=False):
        async with child("work", tmp_db) as victim:
            await victim.heard("open")
            job = await jobs.enqueue(hold, "a")
            await victim.heard("held")
        async with child("work", tmp_db) as heir:
            await heir.heard("open")
            assert (await heir.heard("held"))["attempt"] == 2
            assert (await job.refresh()).state == "running"


async def test_D3_all_processes_killed_the_next_one_runs_their_jobs(tmp_db: Path) -> None:
    jobs = JobRunner(tmp_db)
    jobs.include(tasks)
    async with jobs.running(work=False):
        many = await jobs.enqueue_many(hold.call(str(number)) for number in range(3))
    async with child("work", tmp_db) as one, child("work", tmp_db) as two:
        await one.heard("open")
        await two.heard("open")
    again = JobRunner(tmp_db)

    @again.task(name="hold")
    async def take_over(name: str) -> str:
        return name

    async with again.running():
        for number, job in enumerate(many):
            found = await again.get(job.id, take_over)
            assert await found.result(timeout=15) == str(number)
        # Of the dead nothing is left but, perhaps, the lock file of one that the other was clearing
        # away as it was killed.
        assert len((await again.health()).workers) == 1
