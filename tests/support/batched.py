"""Tasks of batches, graphs and durable jobs that write to a ledger outside the database what they did and saw."""

import asyncio
import os
import random
from datetime import timedelta
from pathlib import Path

from tenacity import wait_none

from jobrunner import JobContext, JobRunner, TaskRouter, WaitTimedOut
from tests.support.ledger import Ledger

router = TaskRouter()
MEMBERS = (1, 3, 12)
DEPTH = 2
GROWN = 2 ** (DEPTH + 1) - 1
MOST_WAITING = 300


def ledger() -> Ledger:
    """Return the ledger that the environment names."""
    return Ledger(os.environ["JOBRUNNER_TEST_LEDGER"])


def runner(file: str | Path, path: str | Path) -> JobRunner:
    """Return a runner with these tasks that writes to this ledger."""
    os.environ["JOBRUNNER_TEST_LEDGER"] = str(path)
    jobs = JobRunner(file, queues={"default": 10})
    jobs.include(router)
    return jobs


@router.task(max_attempts=100, wait=wait_none())
async def member(job: JobContext, tag: str, number: int, fails: int = 0) -> int:
    """Succeed, after some failures."""
    ledger().note("ran", f"{tag} {number}")
    if job.attempt <= fails:
        raise ValueError(tag)
    return number


@router.task(max_attempts=100)
async def poison(job: JobContext, tag: str) -> int:
    """Kill the process in the first attempt."""
    ledger().note("ran", f"{tag} poison")
    if job.attempt == 1:
        os.kill(os.getpid(), 9)
    return 0


@router.task(max_attempts=100)
async def grow(job: JobContext, tag: str, depth: int) -> int:
    """Add two members, until the depth is reached."""
    ledger().note("ran", f"{tag} {depth}")
    if depth:
        job.batch.add(*(grow.call(tag, depth - 1) for _ in range(2)))
    return depth


@router.task(max_attempts=100)
async def total(tag: str, numbers: list[int]) -> int:
    """Add the results of others."""
    ledger().note("ran", f"{tag} total")
    return sum(numbers)


@router.task(max_attempts=100)
async def then(job: JobContext, tag: str) -> None:
    """Write how many members have succeeded, as the callback sees them."""
    seen = 0
    for task in (member, poison, grow, total):
        async for _ in job.batch.results(task):
            seen += 1
    ledger().note("then", f"{tag} {seen} {job.id}")


@router.task(max_attempts=100)
async def otherwise(job: JobContext, tag: str) -> None:
    """Write that the batch has not succeeded."""
    ledger().note("otherwise", f"{tag} {job.id}")


async def effect(tag: str) -> str:
    """Return another value at each run."""
    ledger().note("effect", tag)
    return f"{random.getrandbits(64)}"


@router.task(max_attempts=100)
async def flow(job: JobContext, tag: str) -> str:
    """Step, sleep, wait and run children; write both reads of the step."""
    first = await job.step("first", effect, tag)
    await job.sleep(timedelta(milliseconds=20))
    try:
        await job.wait_for("go", timeout=timedelta(milliseconds=200))
    except WaitTimedOut:
        ledger().note("late", tag)
    numbers = await job.run("children", [member.call(tag, number) for number in range(3)])
    assert numbers == [0, 1, 2]
    again = await job.step("second", effect, tag)
    ledger().note("flow", f"{tag} {first} {again}")
    return first


async def enqueue_one(jobs: JobRunner, dice: random.Random) -> None:
    """Enqueue a batch or a durable job of a random shape; note it once it is acknowledged."""
    tag = f"{dice.getrandbits(64):x}"
    shape = dice.choice(["flat", "flat", "graph", "grow", "flow", "empty", "poison"])
    done, not_done = then.call(tag), otherwise.call(tag)
    size = dice.choice(MEMBERS)
    if shape == "flow":
        job = await jobs.enqueue(flow, tag)
        if dice.random() < 0.5:
            await jobs.signal(job.id, "go")
        ledger().note("flowing", tag, sync=True)
        return
    if shape == "flat":
        calls = [member.call(tag, n, dice.choice([0, 0, 0, 1])) for n in range(size)]
        await jobs.enqueue_batch(calls, then=done, otherwise=not_done)
    elif shape == "graph":
        parts = [member.call(tag, n) for n in range(size)]
        await jobs.enqueue_batch(
            [*parts, total.call(tag, [p.result for p in parts])], then=done, otherwise=not_done
        )
        size += 1
    elif shape == "grow":
        await jobs.enqueue_batch([grow.call(tag, DEPTH)], then=done, otherwise=not_done)
        size = GROWN
    elif shape == "poison" and dice.random() < 0.2:
        await jobs.enqueue_batch(
            [poison.call(tag), member.call(tag, 0)], then=done, otherwise=not_done
        )
        size = 2
    else:
        await jobs.enqueue_batch([], then=done, otherwise=not_done)
        size = 0
    ledger().note("acked", f"{tag} {size}", sync=True)


async def load(jobs: JobRunner) -> None:
    """Enqueue without end, as long as not too much waits."""
    dice = random.Random()
    while True:
        counts = (await jobs.queues.list()).items
        if sum(queue.queued for queue in counts) < MOST_WAITING:
            await enqueue_one(jobs, dice)
        await asyncio.sleep(0)  # noqa: TID251 - room for the jobs
