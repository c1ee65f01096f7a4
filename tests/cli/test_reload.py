"""``jobrunner serve --reload``: the new code serves at once, and jobs under way go back without a grace."""

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from jobrunner import JobRunner
from tests.cli import service
from tests.cli.commands import client, jobrunner, ready
from tests.support.ports import free_port
from tests.support.processes import Child, process

CODE = """
from tests.cli.service import create_app as create_service

def create_app():
    app = create_service()

    @app.get("/edition")
    async def edition() -> int:
        return {edition}

    return app
"""

PATIENCE_S = 60.0

MOMENTS = itertools.count(2_000_000_000, 10)


@asynccontextmanager
async def reloading(store: Path, folder: Path) -> AsyncIterator[tuple[Child, httpx2.AsyncClient]]:
    """Serve ``edited.py`` of a folder, watch it, and wait until it is ready."""
    port = free_port()
    words = ("serve", "edited:create_app", "--factory", "--reload", "--reload-dir", ".")
    started = process(
        *("-m", "jobrunner.cli", *words, "--port", str(port)),
        cwd=folder,
        errors=folder / "errors.log",
        SERVICE_STORE=str(store),
        SERVICE_GRACE="120",
    )
    async with started as serving, client(port) as http:
        await ready(http)
        yield serving, http


def write(folder: Path, edition: int | str) -> None:
    """Write the code anew, at a time that differs from the last one's."""
    path = folder / "edited.py"
    path.write_text(CODE.format(edition=edition), encoding="utf-8")
    moment = next(MOMENTS)
    os.utime(path, (moment, moment))


async def edition_of(http: httpx2.AsyncClient) -> int | None:
    """Return the edition that answers, None if none does within a while."""
    with contextlib.suppress(httpx2.TransportError):
        answer = await http.get("/edition")
        if answer.status_code == 200:
            return int(answer.json())
    return None


async def until(serving: Child, http: httpx2.AsyncClient, edition: int, folder: Path) -> None:
    """Write the code of an edition, and wait until it answers.

    The code is written again as long as the previous edition answers: the reloader compares files with those it found
    first after its start. It is not written while no edition answers, since that would end the starting process.
    """
    write(folder, edition)
    async with asyncio.timeout(PATIENCE_S):
        while (found := await edition_of(http)) != edition:
            if found is not None:
                write(folder, edition)
            assert await serving.lives(0.5), "the server has ended"


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_change_serves_the_new_code_at_once_and_gives_back_what_runs(
    tmp_db: Path, tmp_path: Path
) -> None:
    write(tmp_path, 1)
    async with reloading(tmp_db, tmp_path) as (serving, http):
        id = (await http.post("/hold")).json()["id"]
        first = await serving.heard("held")
        # Its grace is 120 s.
        await until(serving, http, 2, tmp_path)
        again = await serving.heard("held")
        assert (again["id"], again["attempt"]) == (id, 1)
        assert again["pid"] != first["pid"]
        serving.send_signal(signal.SIGTERM)
        await serving.ended()
        assert not Path(f"/proc/{again['pid']}").exists()
    jobs = JobRunner(tmp_db, queues={"default": 1, "mail": 1})
    jobs.include(service.tasks)
    async with jobs.running(work=False):
        job = await jobs.get(id)
        assert (job.state, job.attempt) == ("queued", 0)
        assert {one.outcome for one in job.history} == {"released"}


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_code_that_cannot_be_loaded_is_told_and_the_next_change_is_served(
    tmp_db: Path, tmp_path: Path
) -> None:
    write(tmp_path, 1)
    async with reloading(tmp_db, tmp_path) as (serving, http):
        async with asyncio.timeout(PATIENCE_S):
            while "edited cannot be imported" not in serving.errors():
                if await edition_of(http) is not None:
                    write(tmp_path, "(")
                assert await serving.lives(0.5), "the server has ended"
        assert "SyntaxError" in serving.errors()
        # Its reloader has looked at the broken code by now, and finds the next one different.
        assert await serving.lives(1)
        await until(serving, http, 3, tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--reload", "--workers", "2"), "leave out --workers"),
        (("--reload-dir", "."), "add --reload"),
    ],
)
async def test_reload_that_cannot_be_is_refused(
    tmp_db: Path, words: tuple[str, ...], said: str
) -> None:
    app = ("tests.cli.service:create_app", "--factory")
    answer = await jobrunner("serve", *app, *words, env={"SERVICE_STORE": str(tmp_db)})
    assert (answer.code, said in answer.err) == (2, True), answer.err
