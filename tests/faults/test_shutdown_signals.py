"""Signals to a real uvicorn with jobs under way: what it finishes, what it gives back, and that it ends."""

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobrunner import Job, JobRunner
from tests.faults.site import GRACE_S, SLOTS
from tests.support.engine import PATIENCE_S, worker_of
from tests.support.pace import pace
from tests.support.processes import Child, child, process

LEEWAY_S = 1.0 * pace()
"""The time that a shutdown may take beyond the grace."""
STARTING_S = 60.0


class Site:
    """A uvicorn that serves ``tests.faults.site``."""

    def __init__(self, server: Child, client: httpx2.AsyncClient) -> None:
        self.server = server
        self.client = client

    async def enqueue(self, task: str, number: int = 1) -> list[str]:
        answer = await self.client.post(f"/jobs/{task}", params={"number": number})
        answer.raise_for_status()
        return [job["id"] for job in answer.json()]

    async def until_running(self, number: int) -> None:
        """Wait until that many attempts are under way, over all processes."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.client.get("/running")).json().get("default", 0) < number:
                pass

    async def until_dead(self, id: str) -> None:
        """Wait until a job has become a dead letter."""
        async with asyncio.timeout(PATIENCE_S):
            while (await self.client.get(f"/state/{id}")).json() != "dead":
                pass

    async def until_it_listens_no_more(self) -> None:
        """Wait until it takes no new connections."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection(
                        "127.0.0.1", self.client.base_url.port
                    )
                except OSError:
                    return
                writer.close()
                await writer.wait_closed()

    async def until_up(self) -> None:
        """Wait until it answers."""
        async with asyncio.timeout(STARTING_S):
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    if (await self.client.get("/pid")).is_success:
                        return
                if not await self.server.lives(0.05):
                    pytest.fail("the server ended before it was up")


@asynccontextmanager
async def served(
    file: Path, *options: str, app: str = "tests.faults.site:create_app", grace: float = GRACE_S
) -> AsyncIterator[Site]:
    """Serve the site, or another one, on a free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = ("-m", "uvicorn", app, "--factory", "--port", str(port))
    base = f"http://127.0.0.1:{port}"
    async with (
        process(
            *command,
            "--log-level",
            "error",
            *options,
            errors=file.with_name("errors.log"),
            session=True,
            SITE_DATABASE=str(file),
            SITE_GRACE=str(grace),
        ) as server,
        httpx2.AsyncClient(base_url=base, trust_env=False, timeout=30) as client,
    ):
        site = Site(server, client)
        await site.until_up()
        yield site


async def jobs_in(file: Path) -> list[Job[Any]]:
    """Return every job of the file with its history, oldest first; nothing is taken over."""
    jobs = JobRunner(file)
    async with jobs.running(work=False):
        found: list[Job[Any]] = []
        cursor = None
        while True:
            page = await jobs.list(limit=1000, cursor=cursor)
            found += [await jobs.get(job.id) for job in page.items]
            cursor = page.next_cursor
            if cursor is None:
                assert (await jobs.health()).workers == ()
                return found[::-1]


async def hang(site: Site) -> Callable[[], Awaitable[None]]:
    """Begin a request that is never answered; return what ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.client.base_url.port)
    writer.write(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()
    # Answered after it: by then the server has the other one in hand.
    await site.client.get("/pid")

    async def end() -> None:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        reader.feed_eof()

    return end


def end_of(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_D7_signal_under_load_ends_in_time_and_charges_nobody(
    tmp_db: Path, number: signal.Signals
) -> None:
    stored: list[str] = []
    found: list[Job[Any]] = []
    for _ in range(3):
        async with served(tmp_db) as site:
            stored += await site.enqueue("long", 3)
            stored += await site.enqueue("short", 300)
            await site.until_running(SLOTS)
            site.server.send_signal(number)
            code = await site.server.ended(GRACE_S + LEEWAY_S)
            assert code in (0, -number)
        found = await jobs_in(tmp_db)
        assert sorted(job.id for job in found) == sorted(stored)
        assert {job.state for job in found} <= {"queued", "succeeded"}
        for job in found:
            outcomes = [a.outcome for a in job.history]
            if job.state == "succeeded":
                assert (job.attempt, outcomes[-1]) == (1, "succeeded")
                outcomes.pop()
            else:
                assert job.attempt == 0
            assert set(outcomes) <= {"released"}
    long = [job for job in found if job.task == "long"]
    assert {job.state for job in long} == {"queued"}
    assert any(job.history for job in long)
    assert any(job.state == "succeeded" for job in found)


@pytest.mark.slow
async def test_D7_signal_stops_the_claims_though_a_client_keeps_its_connection(
    tmp_db: Path,
) -> None:
    """D10: the server waits for its connections before it ends the lifespan; the jobs must not."""
    async with served(tmp_db, "--timeout-graceful-shutdown", "10") as site:
        await site.enqueue("short", 2000)
        await site.until_running(1)
        end = await hang(site)
        site.server.send_signal(signal.SIGTERM)
        jobs = JobRunner(tmp_db)
        async with jobs.running(work=False):
            async with asyncio.timeout(PATIENCE_S):
                while (await jobs.queues.list()).items[0].running:
                    pass
            (before,) = (await jobs.queues.list()).items
            assert before.queued > 0
            assert await site.server.lives(0.2), "it did not wait for its client"
            (after,) = (await jobs.queues.list()).items
            assert (after.queued, after.running) == (before.queued, 0)
        await end()
        await site.server.ended()


LONG_GRACE_S = 120.0
"""Longer than any of these tests."""


@pytest.mark.slow
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("waits_for", ["the lifespan's end", "a connection"])
async def test_D8_second_interrupt_ends_at_once_and_is_as_safe_as_kill_9(
    tmp_db: Path, first: signal.Signals, waits_for: str
) -> None:
    async with served(tmp_db, grace=LONG_GRACE_S) as site, contextlib.AsyncExitStack() as stack:
        long = await site.enqueue("long", 3)
        short = await site.enqueue("short", 200)
        await site.until_running(SLOTS)
        if waits_for == "a connection":
            stack.push_async_callback(await hang(site))
        site.server.send_signal(first)
        await site.until_it_listens_no_more()
        # uvicorn looks for its exit ten times a second; the second one must find it waiting.
        assert await site.server.lives(0.5)
        site.server.send_signal(signal.SIGINT)
        await site.server.ended(3 * LEEWAY_S)

    jobs = JobRunner(tmp_db)

    @jobs.task(name="long")
    async def end(number: int) -> int:
        return number

    @jobs.task(name="short")
    async def work(number: int) -> int:
        return number

    async with jobs.running():
        for id in (*long, *short):
            job = await jobs.get(id)
            await job.result(timeout=15)
            job = await job.refresh()
            outcomes = [a.outcome for a in job.history]
            assert outcomes[-1] == "succeeded"
            assert outcomes.count("succeeded") == 1
            assert set(outcomes[:-1]) <= {"released", "lost"}
        assert len((await jobs.health()).workers) == 1


@pytest.mark.slow
async def test_shutdown_names_what_it_waits_for(tmp_db: Path, tmp_path: Path) -> None:
    """Plain uvicorn waits for threads of ``asyncio.to_thread``, which nobody can stop; the log says for which."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with served(tmp_db) as site:
        (await site.client.post("/in_thread", params={"pipe": str(pipe)})).raise_for_status()
        await site.until_running(1)
        site.server.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            while "these threads go on" not in site.server.errors():
                assert await site.server.lives(0.05), site.server.errors()
        said = site.server.errors()
        assert re.search(
            r"shuts down: 1 attempt\(s\) get 0\.5 s to end: in_thread [0-9a-f-]{36}\n", said
        )
        (line,) = [one for one in said.splitlines() if "these threads go on" in one]
        assert re.search(r"asyncio_\d in read_pipe \(.*site\.py:\d+\)", line)
        # It does wait, and for that alone.
        assert await site.server.lives(0.5)
        await asyncio.to_thread(pipe.write_text, "done")
        await site.server.ended()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "signals"), [("stuck", 1), ("stuck", 2), ("stubborn", 1), ("timed_out", 1)]
)
async def test_C8_no_thread_and_no_task_keeps_the_process_alive(
    tmp_db: Path, task: str, signals: int
) -> None:
    async with served(tmp_db) as site:
        (id,) = await site.enqueue(task)
        if task == "timed_out":
            await site.until_dead(id)
        else:
            await site.until_running(1)
        site.server.send_signal(signal.SIGINT)
        if signals == 2 and await site.server.lives(0.3):
            site.server.send_signal(signal.SIGINT)
        # The grace, a second for the cancel, and the way out.
        await site.server.ended(GRACE_S + 1 + LEEWAY_S)
    jobs = JobRunner(tmp_db)
    async with jobs.running(work=False):
        await worker_of(jobs).maintenance.recovery.recover(thorough=True)
        assert (await jobs.get(id)).state == ("dead" if task == "timed_out" else "queued")


@pytest.mark.slow
async def test_D12_several_workers_share_the_file_and_end_together(tmp_db: Path) -> None:
    async with served(tmp_db, "--workers", "2") as site:
        await site.enqueue("long", 2 * SLOTS)
        await site.until_running(2 * SLOTS)
        site.server.send_signal(signal.SIGTERM)
        await site.server.ended(GRACE_S + 3 * LEEWAY_S)
    found = await jobs_in(tmp_db)
    assert {(job.state, job.attempt) for job in found} == {("queued", 0)}
    assert {a.outcome for job in found for a in job.history} == {"released"}


def is_there(pid: int) -> bool:
    """Return whether there is a process of this id, be it a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
async def test_D11_reload_starts_and_stops(tmp_db: Path, tmp_path: Path) -> None:
    watched = tmp_path / "watched"
    watched.mkdir()
    (watched / "code.py").touch()
    # Nobody gets the grace.
    reload = ("--reload", "--reload-dir", str(watched))
    async with served(tmp_db, *reload, grace=LONG_GRACE_S) as site:
        pid = (await site.client.get("/pid")).json()
        try:
            (id,) = await site.enqueue("long")
            await site.until_running(1)
            async with asyncio.timeout(STARTING_S):
                changed_at = 2_000_000_000
                while is_there(pid):
                    # The first change that it sees is the one that it compares the next with; none must come once the
                    # next process starts, or that one would be stopped in its turn.
                    changed_at += 1
                    os.utime(watched / "code.py", (changed_at, changed_at))
                    await site.server.lives(0.5)
            await site.until_up()
            pid = (await site.client.get("/pid")).json()
            await site.until_running(1)
            site.server.send_signal(signal.SIGTERM)
            await site.server.ended(5 * LEEWAY_S)
        finally:
            end_of(pid)
    (job,) = await jobs_in(tmp_db)
    assert (job.id, job.state, job.attempt) == (id, "queued", 0)
    assert [a.outcome for a in job.history] == ["released", "released"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_D7_signal_ends_a_worker_of_jobs_run(tmp_db: Path, number: signal.Signals) -> None:
    jobs = JobRunner(tmp_db)

    async with child("run", tmp_db) as worker:
        await worker.heard("ready")
        async with child("client", tmp_db) as client:
            await client.heard("open")
            client.send("hold a")
            id = (await client.heard("stored"))["id"]
            await worker.heard("held")
            worker.send_signal(number)
            await worker.heard("closed")
            assert await worker.ended() == 0
    async with jobs.running(work=False):
        job = await jobs.get(id)
        assert (job.state, job.attempt) == ("queued", 0)
        assert [a.outcome for a in job.history] == ["released"]
