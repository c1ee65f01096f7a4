"""A tick fires once, with any number of processes and after any deaths among them."""

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from jobrunner import Job, JobRunner
from jobrunner.core.clock import SECOND_US
from tests.support.engine import store_of
from tests.support.processes import Child, child

pytestmark = pytest.mark.each_store


PROCESSES = 4
TICKS = 15


class Pack:
    """Processes on one store that all have the same schedule, and the ticks that run in any of them."""

    def __init__(self, url: str, stack: AsyncExitStack) -> None:
        self._url = url
        self._stack = stack
        self._children: list[Child] = []
        self._ears: set[asyncio.Task[None]] = set()
        self.ticked: asyncio.Queue[float] = asyncio.Queue()

    async def grow(self) -> None:
        """Start one more."""
        one = await self._stack.enter_async_context(child("tick", self._url))
        await one.heard("open")
        self._children.append(one)
        ear = asyncio.create_task(self._hear(one))
        self._ears.add(ear)
        ear.add_done_callback(self._ears.discard)

    async def _hear(self, one: Child) -> None:
        while one in self._children:
            try:
                said = await one.heard("ticked")
            except (AssertionError, ValueError):
                # Killed, perhaps in the midst of a word.
                return
            self.ticked.put_nowait(said["at"])

    async def kill(self, one: Child | None = None) -> None:
        """End one by ``kill -9``, any if none is named."""
        one = one or random.choice(self._children)
        self._children.remove(one)
        one.send_signal(9)
        await one.ended()

    async def end(self) -> None:
        """End them all."""
        for one in list(self._children):
            await self.kill(one)
        await asyncio.gather(*self._ears)


@pytest.mark.slow
async def test_G1_G2_four_processes_on_a_one_second_schedule_with_kill_9_among_them_make_one_job_per_tick(
    store_url: str,
) -> None:
    async with AsyncExitStack() as stack:
        pack = Pack(store_url, stack)
        for _ in range(PROCESSES):
            await pack.grow()
        ran: set[float] = set()
        while len(ran) < TICKS:
            ran.add(await asyncio.wait_for(pack.ticked.get(), 25))
            if len(ran) % 2:
                await pack.kill()
                await pack.grow()
        await pack.end()

    jobs = JobRunner(store_url)
    async with jobs.running(work=False):
        schedule = await jobs.schedules.get("beat")
        ticks = [tick for tick in await jobs.schedules.ticks("beat") if tick.outcome == "fired"]
        made = await every_job(jobs)
        row = await store_of(jobs).schedules.get("beat")
    assert row is not None
    per_tick = Counter(job.scheduled_for for job in made)
    assert set(per_tick.values()) == {1}, "a tick made two jobs"
    assert {tick.at: tick.job for tick in ticks} == {job.scheduled_for: job.id for job in made}
    assert schedule.fired == len(made) >= TICKS
    assert schedule.skipped == 0
    # None was lost: they follow one another, second by second, up to the one that is to come.
    instants = sorted(tick.at.timestamp() for tick in ticks)
    assert [round((instant - instants[0]), 6) for instant in instants] == [*range(len(instants))]
    assert row.next is not None
    assert row.last is not None
    assert row.next - row.last == SECOND_US
    assert ran <= set(instants)


async def every_job(jobs: JobRunner) -> list[Job[object]]:
    """Return all jobs, dead ones too."""
    alive = await jobs.list(limit=1000)
    dead = await jobs.list(limit=1000, state="dead")
    return [*alive.items, *dead.items]
