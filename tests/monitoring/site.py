"""A process under load that shows its metrics: ``python -m tests.monitoring.site FILE``."""

import asyncio
import sys

from prometheus_client import CollectorRegistry, generate_latest
from tenacity import wait_none

from jobrunner import Bury, JobRunner
from jobrunner.prometheus import JobCollector
from tests.support.children import parent
from tests.support.engine import worker_of
from tests.support.processes import say

JOBS_AT_A_TIME = 50


def runner(file: str) -> JobRunner:
    """Return a runner with tasks that succeed, fail once, and die."""
    jobs = JobRunner(file, queues={"default": 10, "mail": 10})

    @jobs.task
    async def good(number: int) -> None: ...

    @jobs.task(queue="mail", max_attempts=2, wait=wait_none())
    async def shaky(number: int) -> None:
        if number % 20:
            raise ValueError(number)

    @jobs.task
    def hopeless(number: int) -> None:
        raise Bury("no")

    return jobs


async def at_most(jobs: JobRunner, most: int) -> None:
    """Wait until at most so many jobs are not finished."""
    while True:
        queues = (await jobs.queues.list()).items
        if sum(one.queued + one.running + one.scheduled for one in queues) <= most:
            return


async def load(jobs: JobRunner) -> None:
    """Enqueue for ever, as fast as the jobs end."""
    tasks = list(jobs._resolved_tasks().values())
    number = 0
    while True:
        made = []
        for _ in range(JOBS_AT_A_TIME):
            number += 1
            # One in fifty of the third kind, one in ten of the second.
            task = tasks[2 if number % 50 == 0 else 1 if number % 10 == 0 else 0]
            made.append(task.call(number))
        await jobs.enqueue_many(made)
        await at_most(jobs, JOBS_AT_A_TIME)


async def main(file: str) -> None:
    """Answer the parent's lines: ``scrape``, ``load``, ``rest``; an empty line ends it."""
    jobs = runner(file)
    registry = CollectorRegistry()
    registry.register(JobCollector(jobs))
    loading: asyncio.Task[None] | None = None
    async with jobs.running():
        say("open", worker=worker_of(jobs).id)
        while word := await parent():
            match word:
                case "scrape":
                    say("metrics", text=generate_latest(registry).decode())
                case "load":
                    loading = asyncio.create_task(load(jobs))
                    say("loading")
                case "rest" if loading is not None:
                    loading.cancel()
                    await asyncio.wait([loading])
                    await at_most(jobs, 0)
                    say("resting")
    say("closed")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
