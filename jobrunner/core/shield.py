"""Runs work to its end even if the caller is cancelled."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_the_end(work: Awaitable[T]) -> T:
    """Wait until the work is done, even if the caller is cancelled meanwhile.

    The ``CancelledError`` is raised once the work has ended.
    """
    running = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001, S110 - raised below, by result()
            pass
    result = running.result()
    if cancelled is not None:
        raise cancelled
    return result


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, in this thread, and return its result."""
    try:
        work.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        work.close()
    raise AssertionError("a blocking session has waited; please report it")
