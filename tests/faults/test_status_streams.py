"""Streams of a job's status on real uvicorns: shutdown, clients that go away, and two processes."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from jobrunner.fastapi.status.stream import MOST_STREAMS
from tests.faults.test_shutdown_signals import LEEWAY_S, Site, served
from tests.support.engine import PATIENCE_S

APP = "tests.faults.status_site:create_app"
CLIENTS = 10


class Follower:
    """A client that reads a stream."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def event(self) -> dict[str, Any] | None:
        """Return the next status; None at the end of the stream."""
        async with asyncio.timeout(PATIENCE_S):
            async for line in self._lines:
                if line.startswith("data: "):
                    found: dict[str, Any] = json.loads(line.removeprefix("data: "))
                    return found
        return None


@asynccontextmanager
async def following(site: Site, id: str) -> AsyncIterator[Follower]:
    async with site.client.stream("GET", f"/status/{id}/events") as response:
        assert response.status_code == 200, await response.aread()
        yield Follower(response)


async def start(site: Site, steps: int = 0) -> str:
    """Enqueue a job of so many steps; one of none never ends."""
    answer = await site.client.post("/follow", params={"steps": steps})
    id: str = answer.raise_for_status().json()["id"]
    return id


async def test_shutdown_waits_for_no_stream(tmp_db: Path) -> None:
    async with served(tmp_db, app=APP) as site, AsyncExitStack() as stack:
        id = await start(site)
        followers = [await stack.enter_async_context(following(site, id)) for _ in range(CLIENTS)]
        for one in followers:
            assert await one.event() is not None
        began = time.monotonic()  # noqa: TID251 - what is measured is how long it takes
        site.server.send_signal(signal.SIGTERM)
        for one in followers:
            while await one.event() is not None:
                pass
        assert await site.server.ended() in {0, -signal.SIGTERM}
        assert time.monotonic() - began < LEEWAY_S  # noqa: TID251 - as above


async def test_client_that_goes_away_frees_its_stream_at_once(tmp_db: Path) -> None:
    async with served(tmp_db, app=APP) as site:
        id = await start(site)
        request = f"GET /status/{id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        leave: list[Callable[[], Awaitable[None]]] = []
        for _ in range(MOST_STREAMS):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.client.base_url.port)
            writer.write(request)
            await asyncio.wait_for(reader.readuntil(b"retry: 2000\n\n"), PATIENCE_S)
            leave.append(lambda writer=writer: end(writer))  # type: ignore[misc]
        path = f"/status/{id}/events"
        refused = await site.client.get(path)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        await leave.pop()()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with site.client.stream("GET", path) as answer:
                    if answer.status_code == 200:
                        break
        for each in leave:
            await each()


async def end(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("polls", ["yes", "no"])
async def test_stream_of_a_process_that_runs_no_jobs_follows_the_one_that_does(
    tmp_db: Path, monkeypatch: pytest.MonkeyPatch, polls: str
) -> None:
    """By the poll, and without it by the doorbell."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(served(tmp_db, app=APP))
        monkeypatch.setenv("SITE_WORK", "no")
        monkeypatch.setenv("SITE_POLLS", polls)
        site = await stack.enter_async_context(served(tmp_db, app=APP))
        id = await start(site, steps=4)
        seen: list[dict[str, Any]] = []
        async with following(site, id) as follower:
            while (status := await follower.event()) is not None:
                seen.append(status)
        assert [one["state"] for one in seen if one["done"]] == ["succeeded"]
        assert seen[-1]["result"] == "done"
        steps = [one["progress"]["done"] for one in seen if one["progress"]]
        assert steps == sorted(steps)
        # The first ones may come before the other process knows who watches the job.
        assert {3, 4}.issubset(steps)
