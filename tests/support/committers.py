"""Callers of a committer that wait in its line, while a round is held up."""

import asyncio
from collections.abc import Sequence

from jobrunner.core.model import Enqueue, Enqueued
from jobrunner.store.committer import Committer
from tests.support.factories import new
from tests.support.faulty import FaultyStore


async def hold(store: FaultyStore, committer: Committer) -> "asyncio.Future[Sequence[Enqueued]]":
    """Shut the gate behind a first round, so that what comes now gathers for the next."""
    store.gate.clear()
    store.entered.clear()
    first = committer.submit([new()])
    await store.entered.wait()
    return first


def line_up(
    committer: Committer, units: Sequence[Sequence[Enqueue]]
) -> "list[asyncio.Future[Sequence[Enqueued]]]":
    """Let one caller for each unit wait in the line."""
    return [committer.submit(jobs) for jobs in units]


async def turn() -> None:
    """Let the loop go round once."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done
