"""``kill -9`` within an act of an operator: the audit log says of it only what is known."""

import os
import signal
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from jobrunner import JobRunner
from jobrunner.queue.slices import CHANGED_PER_SLICE
from tests.faults.acting import send
from tests.support.processes import CHECKOUT, PATIENCE_S

JOBS = CHANGED_PER_SLICE + 200
CANCELLED = {"before": 0, "between": CHANGED_PER_SLICE, "after": JOBS}


def act_and_die(file: Path, point: str) -> None:
    """Let another process begin the act and die in it."""
    ended = subprocess.run(
        (sys.executable, "-m", "tests.faults.acting", str(file), point),
        cwd=CHECKOUT,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("point", CANCELLED)
async def test_act_of_a_killed_process_is_recorded_with_an_unknown_end(
    tmp_db: Path, point: str
) -> None:
    jobs = JobRunner(tmp_db)

    @jobs.task
    async def noop(number: int) -> None: ...

    async def cancelled() -> int:
        page = await jobs.list(state="cancelled", limit=1_000)
        assert page.next_cursor is None
        return len(page.items)

    async with jobs.running(work=False):
        later = noop.options(delay=3600, tag="wrong")
        await jobs.enqueue_many([later.call(number) for number in range(JOBS)])
    act_and_die(tmp_db, point)
    app = FastAPI()
    app.include_router(jobs.dashboard(insecure=True), prefix="/ui")
    async with (
        jobs.running(app, work=False),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app)) as client,
    ):
        (entry,) = (await jobs.audit.list()).items
        assert (entry.action, entry.count, entry.reason) == ("cancel_all", None, "a wrong list")
        assert entry.filter is not None
        assert entry.filter["tag"] == "wrong"
        assert await cancelled() == CANCELLED[point]
        page = await client.get("http://localhost/ui/audit")
        assert ">Cancelled jobs<" in page.text
        assert ">end unknown<" in page.text

        # The entry of another act says what that one did; the first stays as it is.
        assert (await send(client)).status_code == HTTPStatus.SEE_OTHER
        again, first = (await jobs.audit.list()).items
        assert (again.count, first.count) == (JOBS - CANCELLED[point], None)
        assert await cancelled() == JOBS
