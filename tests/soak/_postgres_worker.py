"""A process of ``tests.soak.postgres``: ``python -m tests.soak._postgres_worker URL LEDGER SECONDS``.

It enqueues jobs for so long, one after another, and runs what there is until a line comes.
"""

import asyncio
import contextlib
import logging
import sys
from typing import Any

from tenacity import wait_none

from jobrunner import JobContext, JobRunner
from jobrunner.core.clock import now_s
from jobrunner.core.errors import StoreError
from tests.support.ledger import Ledger


async def add_row(connection: Any, job: str) -> None:
    """Write what must be there once."""
    await connection.execute("INSERT INTO effects (job) VALUES ($1)", job)


async def main(url: str, file: str, seconds: float) -> None:
    """Work until a line comes."""
    jobs = JobRunner(url, queues={"default": 20})
    ledger = Ledger(file)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, lambda: (sys.stdin.readline(), loop.call_soon_threadsafe(stop.set)))

    @jobs.task(max_attempts=10_000, wait=wait_none())
    async def work(job: JobContext) -> None:
        ledger.note("ran", job.id)
        job.write(add_row, job.id)

    async with jobs.running():
        print("open", flush=True)
        until = now_s() + seconds
        while now_s() < until and not stop.is_set():
            with contextlib.suppress(StoreError):
                stored = await jobs.enqueue(work)
                ledger.note("enqueued", stored.id, sync=True)
        await stop.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.CRITICAL)
    asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
