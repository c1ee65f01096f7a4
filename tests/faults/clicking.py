"""An operator's process, which sends forms on demand: ``python -m tests.faults.clicking FILE NAME``.

Each line is a request as JSON.  After the line ``pausing`` each act waits, once its entry is in the audit log, for the
next line: so two processes are within an act at the same instant.
"""

import asyncio
import json
import sys
from typing import Any

import httpx2
from fastapi import FastAPI

from jobrunner import Bury, JobRunner
from jobrunner.store.sqlite.audit import SqliteAudit
from tests.support.children import parent
from tests.support.processes import say


def runner(file: str) -> JobRunner:
    """Return a runner whose one task refuses a bad address."""
    jobs = JobRunner(file)

    @jobs.task
    async def write_letter(email: str) -> None:
        if "@" not in email:
            raise Bury(f"{email} is no address")

    return jobs


def pause_after_each_entry() -> None:
    """Let each act say that its entry is stored, and wait for a line before it begins."""
    record = SqliteAudit.record

    async def record_and_wait(self: SqliteAudit, **entry: Any) -> int | None:
        number = await record(self, **entry)
        if number is not None:
            say("acting")
            await parent()
        return number

    SqliteAudit.record = record_and_wait  # type: ignore[method-assign]


async def send(client: httpx2.AsyncClient, request: dict[str, Any]) -> None:
    """Send a request, and say what the answer is."""
    answer = await client.request(
        "POST", request["path"], data=request.get("form"), json=request.get("json")
    )
    to = answer.headers.get("location", "")
    say("answered", status=answer.status_code, to=to, text=answer.text)


async def main(file: str, name: str) -> None:
    """Send what comes, until the parent says an empty line."""

    def actor() -> str:
        return name

    jobs = runner(file)
    app = FastAPI()
    app.include_router(jobs.dashboard(insecure=True, actor=actor), prefix="/ui")
    app.include_router(jobs.router(insecure=True, actor=actor), prefix="/jobs")
    async with (
        jobs.running(app, work=False),
        httpx2.AsyncClient(
            base_url="http://localhost",
            transport=httpx2.ASGITransport(app),
            headers={"Sec-Fetch-Site": "same-origin"},
        ) as client,
    ):
        say("open")
        while line := await parent():
            if line == "pausing":
                pause_after_each_entry()
            else:
                await send(client, json.loads(line))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
