"""An operator's process that kills itself within an act: ``python -m tests.faults.acting FILE POINT``.

It sends the dashboard's form that cancels all jobs, and sends itself SIGKILL ``before`` the first slice of the act,
``between`` two slices, or ``after`` the last one, when the entry of the audit log has no count yet.
"""

import asyncio
import os
import signal
import sys
from typing import Any, NoReturn

import httpx2
from fastapi import FastAPI

from jobrunner import JobRunner
from jobrunner.core.clock import utcnow
from jobrunner.store.sqlite.audit import SqliteAudit
from jobrunner.store.sqlite.jobs import SqliteJobs

FORM = "http://localhost/ui/jobs/cancel-all"
SLICES_BEFORE = {"before": 0, "between": 1, "after": None}


def die() -> NoReturn:
    """End as with ``kill -9``."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it lives")


async def send(client: httpx2.AsyncClient) -> httpx2.Response:
    """Send the form."""
    return await client.post(
        FORM,
        data={"until": utcnow().isoformat(), "tag": "wrong", "reason": "a wrong list"},
        headers={"Sec-Fetch-Site": "same-origin"},
    )


def fatal(slices: int | None) -> None:
    """Make the act deadly behind a number of slices; behind all for None."""
    cancel_all, done = SqliteJobs.cancel_all, 0

    async def cancel_slice(self: SqliteJobs, *args: Any, **kwargs: Any) -> Any:
        nonlocal done
        if done == slices:
            die()
        done += 1
        return await cancel_all(self, *args, **kwargs)

    async def finish(self: SqliteAudit, entry: int, count: int) -> None:
        die()

    SqliteJobs.cancel_all = cancel_slice  # type: ignore[method-assign]
    SqliteAudit.finish = finish  # type: ignore[method-assign]


async def main(file: str, point: str) -> None:
    """Act, and die."""
    fatal(SLICES_BEFORE[point])
    jobs = JobRunner(file)
    app = FastAPI()
    app.include_router(jobs.dashboard(insecure=True), prefix="/ui")
    transport = httpx2.ASGITransport(app)
    async with (
        jobs.running(app, work=False),
        httpx2.AsyncClient(transport=transport) as client,
    ):
        await send(client)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
