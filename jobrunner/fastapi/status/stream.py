"""Streams the status of a job as server-sent events, until the job has ended."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jobrunner.core.errors import StoreError
from jobrunner.core.model import JobRow
from jobrunner.fastapi.api.problems import TOO_MANY_STREAMS, Refusal, answer_http_exception
from jobrunner.fastapi.status.schemas import status_of
from jobrunner.queue.parts import QueueParts

MOST_STREAMS: Final = 100
"""The most streams of one router in one process: each holds a connection."""
KEEP_ALIVE_S: Final = 15.0
"""The longest silence of a stream, so that no proxy takes the connection for a dead one."""
RETRY_MS: Final = 2_000
"""The time after which a client whose connection was lost connects again."""
MEDIA_TYPE: Final = "text/event-stream"


class Streams:
    """Counts the open streams of one router."""

    def __init__(self) -> None:
        self.open = 0


class Event:
    """The status of a job as one event; equal statuses have equal ids, in every process."""

    def __init__(self, row: JobRow) -> None:
        status = status_of(row)
        data = status.model_dump_json()
        self.done = status.done
        self.id = hashlib.blake2b(data.encode(), digest_size=8).hexdigest()
        self.text = f"id: {self.id}\ndata: {data}\n\n"


class StatusStream(Response):
    """A response that sends the status of a job whenever it changes.

    It ends with the job, when the client is gone, and when the process shuts down.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self, parts: QueueParts, id: str, streams: Streams, *, last_event_id: str | None
    ) -> None:
        # Named in full: Starlette would add a charset, and the stream is UTF-8 by definition.
        super().__init__(headers={"content-type": MEDIA_TYPE, "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._parts = parts
        self._id = id
        self._streams = streams
        self._last_event_id = last_event_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the stream ends; beyond the limit, send a problem."""
        if self._streams.open >= MOST_STREAMS:
            refusal = Refusal(TOO_MANY_STREAMS, TOO_MANY_STREAMS.example)
            answer = await answer_http_exception(Request(scope), refusal)
            await answer(scope, receive, send)
            return
        self._streams.open += 1
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            # Closed here, and not by the garbage collector: its future is among those that wait for the job.
            async with aclosing(self._texts(gone)) as texts:
                async for text in texts:
                    if gone.done():
                        return
                    body = {"type": "http.response.body", "body": text.encode(), "more_body": True}
                    await send(body)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._streams.open -= 1
            gone.cancel()
            await asyncio.wait([gone])

    async def _texts(self, gone: asyncio.Task[None]) -> AsyncGenerator[str, None]:
        """Yield events and comments."""
        loop = asyncio.get_running_loop()
        watches, reads = self._parts.events.watches, self._parts.reads
        sent = self._last_event_id
        yield f"retry: {RETRY_MS}\n\n"
        quiet_until_s = loop.time() + KEEP_ALIVE_S
        while not (gone.done() or watches.ended):
            # Registered before the read, so that no change between the two is missed.
            change = watches.change_of(self._id)
            try:
                row = await self._read()
                if row is None:
                    return
                event = Event(row)
                if event.id != sent:
                    sent = event.id
                    yield event.text
                    quiet_until_s = loop.time() + KEEP_ALIVE_S
                if event.done:
                    return
                left_s = min(reads.next_poll_s(self._id), quiet_until_s - loop.time())
                await asyncio.wait(
                    [change, gone], timeout=left_s, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                change.cancel()
            if loop.time() >= quiet_until_s:
                quiet_until_s = loop.time() + KEEP_ALIVE_S
                yield ": keep-alive\n\n"

    async def _read(self) -> JobRow | None:
        """Return the job's row; None if it was deleted, or if the store cannot be read at present."""
        try:
            return await self._parts.reads.get(self._id)
        except StoreError:
            return None  # the client connects again, and gets the problem


async def _disconnected(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
