"""Iterates async generators of a tester from blocking code."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Future
from contextlib import aclosing
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def each_in_thread(items: AsyncGenerator[T, None]) -> Iterator[T]:
    """Iterate an async generator in one task, on a loop in another thread.

    The loop goes on while the caller has an item. One task, because a lifespan is closed by the task that opens it.
    """
    found: SimpleQueue[tuple[T, asyncio.AbstractEventLoop, asyncio.Future[bool]] | None] = (
        SimpleQueue()
    )
    ended: Future[None] = Future()

    async def iterate() -> None:
        loop = asyncio.get_running_loop()
        async with aclosing(items):
            async for item in items:
                goes_on: asyncio.Future[bool] = loop.create_future()
                found.put((item, loop, goes_on))
                if not await goes_on:
                    return

    def run() -> None:
        try:
            asyncio.run(iterate())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller
            ended.set_exception(error)
        else:
            ended.set_result(None)
        found.put(None)

    thread = threading.Thread(target=run, name="jobrunner-tester", daemon=True)
    thread.start()
    try:
        while (step := found.get()) is not None:
            item, loop, goes_on = step
            more = False
            try:
                yield item
                more = True
            finally:
                loop.call_soon_threadsafe(goes_on.set_result, more)
    finally:
        thread.join()
        ended.result()
