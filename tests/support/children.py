"""The roles that other processes play: ``python -m tests.support.children ROLE FILE ...``."""

import asyncio
import json
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path

from tenacity import wait_none

from jobrunner import Injected, Job, JobContext, JobRunner, TaskRouter
from jobrunner.fastapi import Queue
from jobrunner.store.round import Round, Written
from jobrunner.store.sqlite import SqliteStore
from tests.support import batched, limited
from tests.support.ledger import Ledger
from tests.support.processes import say

tasks = TaskRouter()

never = asyncio.Event()


@tasks.task(max_attempts=50)
async def echo(word: str) -> str:
    """Return the word."""
    return word


@tasks.task(timeout=None)
async def hold(job: JobContext, name: str) -> str:
    """Say which attempt it is, and go on for ever."""
    say("held", name=name, attempt=job.attempt, pid=os.getpid())
    await never.wait()
    return name


@tasks.task(wait=wait_none(), timeout=None)
async def hold_first(job: JobContext, name: str) -> str:
    """Go on for ever in the first attempt, and return the name in a later one."""
    if job.attempt == 1:
        say("held", name=name)
        await never.wait()
    return name


@tasks.task(wait=wait_none(), timeout=None)
async def parent_of(word: str, queue: str) -> str:
    """Wait for a child in some queue."""
    return await (await echo.options(queue=queue).enqueue(word)).result()


@tasks.task(wait=wait_none(), timeout=None)
async def waits_for_batch(word: str, queue: str, jobs: Queue = Injected) -> str:
    """Wait for a batch whose members run in some queue."""
    member = echo.options(queue=queue)
    batch = await jobs.enqueue_batch([member.call(word), member.call(word)])
    return (await batch.results())[0]


@tasks.task(timeout=None)
def block_thread() -> None:
    """Say so and block a thread for ever."""
    say("blocked")
    threading.Event().wait()


@tasks.task(timeout=None)
def fork() -> int:
    """Fork a child that waits for a signal, and say how it has ended."""
    # Later Pythons warn of a fork beside threads.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        while True:
            signal.pause()
    say("forked", pid=pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    say("child ended", code=code)
    return code


@tasks.task(timeout=None)
async def block_loop(job: JobContext, fifo: str) -> str:
    """Block the event loop itself until somebody writes into the pipe."""
    say("blocked", attempt=job.attempt)
    with Path(fifo).open() as pipe:  # noqa: ASYNC230 - the fault that is tried
        return pipe.readline()


@tasks.task(max_attempts=3)
async def poison() -> None:
    """End the process without a word."""
    os._exit(9)


@tasks.task(max_attempts=1, timeout=None)
async def hold_once(name: str) -> str:
    """Say so, and go on for ever in the only run that there is."""
    say("held", name=name)
    await never.wait()
    return name


@tasks.task(max_attempts=1)
async def die_once() -> None:
    """End the process without a word, in a job that may run once."""
    os._exit(9)


def runner(file: str, **settings: object) -> JobRunner:
    """Return a runner with the tasks of this module."""
    jobs = JobRunner(file, **settings)  # type: ignore[arg-type]
    jobs.include(tasks)
    return jobs


async def parent() -> str:
    """Wait for the parent's next line."""
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()


async def work(file: str, grace: str = "10") -> None:
    """Be a worker until the parent says a line."""
    async with runner(file, grace=float(grace)).running():
        say("open", pid=os.getpid())
        await parent()
    say("closed")


async def family(file: str, slots: str) -> None:
    """Run a worker, and print the problems of its health for each line; an empty line ends it.

    Args:
        slots: the slots by queue, as JSON.
    """
    jobs = runner(file, queues={"default": 1, "left": 1, "right": 1}, grace=0.2)
    async with jobs.running(queues=json.loads(slots)):
        say("open", pid=os.getpid())
        while await parent():
            say("health", problems=(await jobs.health()).problems)


async def client(file: str) -> None:
    """Enqueue a word per line, without working; an empty line ends it."""
    jobs = runner(file)
    async with jobs.running(work=False):
        say("open")
        while word := await parent():
            match word.split():
                case ["cancel", id]:
                    say("cancelled", status=await jobs.cancel(id))
                case ["cancel-all"]:
                    counts = await jobs.cancel_all()
                    say("cancelled", cancelled=counts.cancelled, requested=counts.requested)
                case ["reschedule", id, delay]:
                    say("rescheduled", state=(await jobs.reschedule(id, float(delay))).state)
                case ["hold", name]:
                    say("stored", id=(await jobs.enqueue(hold, name)).id)
                case ["fork"]:
                    say("stored", id=(await jobs.enqueue(fork)).id)
                case ["result", id]:
                    say("result", result=await (await jobs.get(id)).result(timeout=20))
                case ["schedule", id]:
                    await jobs.schedules.upsert(id, echo, every=1, args=[id])
                    say("stored")
                case _:
                    say("stored", id=(await jobs.enqueue(echo, word)).id)


async def enqueue_and_vanish(file: str, count: str) -> None:
    """Enqueue jobs, have them run, and die in the midst of it."""
    jobs = runner(file, queues={"default": 100})
    async with jobs.running():
        await jobs.enqueue_many(hold.call(str(number)) for number in range(int(count)))
        await parent()


def run(file: str) -> None:
    """Be a worker as ``jobs.run()`` makes one."""
    jobs = runner(file, grace=1)
    say("ready")
    jobs.run()
    say("closed")


# -- under load: what the kill -9 test plays with ------------------------------------------------------------


async def load(file: str, ledger_path: str) -> None:
    """Enqueue and run jobs as fast as it goes, until killed; note what was acknowledged, run and settled."""
    ledger = Ledger(ledger_path)
    jobs = JobRunner(file, queues={"default": 10})
    dice = random.Random()

    @jobs.task(max_attempts=100)
    async def note(job: JobContext) -> None:
        ledger.note("ran", job.id)
        if dice.random() < 0.2:
            await asyncio.sleep(0.01)  # noqa: TID251 - work takes its time

    def settled(job: Job[object]) -> None:
        ledger.note("settled", job.id)

    jobs.on_succeeded(settled)

    async def ask() -> None:
        while True:
            job = await jobs.enqueue(note)
            ledger.note("acked", job.id, sync=True)

    async with jobs.running():
        say("open")
        await asyncio.gather(*(ask() for _ in range(8)))


async def chains(file: str, ledger_path: str) -> None:
    """Enqueue chains of four and run them as fast as it goes, until killed; note what was acknowledged and run."""
    ledger = Ledger(ledger_path)
    jobs = JobRunner(file, queues={"default": 10})

    @jobs.task(max_attempts=100)
    async def step(job: JobContext, chain: str, place: int) -> None:
        ledger.note("ran", f"{chain} {place}")

    async def ask() -> None:
        while True:
            chain = str(random.getrandbits(64))
            await jobs.enqueue_chain(step.call(chain, place) for place in range(4))
            ledger.note("acked", chain, sync=True)

    async with jobs.running():
        say("open")
        await asyncio.gather(*(ask() for _ in range(4)))


# -- schedules ------------------------------------------------------------------------------------------------


async def tick(file: str) -> None:
    """Be a worker with a tick each second, and say each that runs here, until killed."""
    jobs = JobRunner(file)

    @jobs.every(seconds=1, misfire="all")
    async def beat(job: JobContext) -> None:
        assert job.scheduled_for is not None
        say("ticked", at=job.scheduled_for.timestamp(), id=job.id)

    async with jobs.running():
        say("open")
        await never.wait()


async def workflows(file: str, ledger_path: str) -> None:
    """Enqueue and run batches, graphs and durable jobs as fast as it goes, until killed."""
    jobs = batched.runner(file, ledger_path)
    async with jobs.running():
        say("open")
        await batched.load(jobs)


async def limit(file: str) -> None:
    """Be a worker of tasks with limits, until killed or until the parent says a line."""
    async with limited.runner(file).running():
        say("open")
        await parent()


# -- crowds -------------------------------------------------------------------------------------------------


async def crowd(file: str, slots: str) -> None:
    """Be a worker with so many slots; for each line, say how many claims have found nothing."""
    empty = 0
    write = SqliteStore.write

    async def counted(self: SqliteStore, request: Round) -> Written:
        nonlocal empty
        written = await write(self, request)
        empty += request.claim is not None and not written.claimed
        return written

    SqliteStore.write = counted  # type: ignore[method-assign]
    async with runner(file, queues={"default": int(slots)}, grace=0.1).running():
        say("open")
        while await parent():
            say("claims", empty=empty)


ROLES: dict[str, Callable[..., Awaitable[None] | None]] = {
    "work": work,
    "family": family,
    "client": client,
    "enqueue_and_vanish": enqueue_and_vanish,
    "run": run,
    "load": load,
    "chains": chains,
    "tick": tick,
    "limit": limit,
    "crowd": crowd,
    "workflows": workflows,
}


def main() -> None:
    """Play the role that the command line names."""
    logging.basicConfig(level=logging.WARNING)
    role, *args = sys.argv[1:]
    answer = ROLES[role](*args)
    if asyncio.iscoroutine(answer):
        asyncio.run(answer)


if __name__ == "__main__":
    main()
