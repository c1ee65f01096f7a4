"""Processes that watch jobs: who is notified of a change, and for how long."""

import asyncio

import pytest

from jobrunner.store.protocol import WATCH_US, Store
from tests.conformance.conftest import StartPeer
from tests.support.factories import NOW, SECOND

ONE, TWO, THREE = 1, 2**62, 2**63 - 1


def unheard() -> None:
    pytest.fail("nobody has notified this watcher")


async def rung(bell: asyncio.Event) -> None:
    """Wait until a watcher is notified."""
    async with asyncio.timeout(15):
        await bell.wait()


async def test_watched_are_the_jobs_of_the_other_watchers(store: Store) -> None:
    assert await store.workers.watched(ONE, now=NOW) == frozenset()
    await store.workers.watch(ONE, {"a", "b"}, unheard, now=NOW)
    await store.workers.watch(TWO, {"b", "c"}, unheard, now=NOW)
    assert await store.workers.watched(ONE, now=NOW) == {"b", "c"}
    assert await store.workers.watched(TWO, now=NOW) == {"a", "b"}
    assert await store.workers.watched(THREE, now=NOW) == {"a", "b", "c"}


async def test_watch_replaces_the_jobs_and_ends_without_any(store: Store) -> None:
    await store.workers.watch(ONE, {"a", "b"}, unheard, now=NOW)
    await store.workers.watch(ONE, {"b", "c"}, unheard, now=NOW)
    assert await store.workers.watched(TWO, now=NOW) == {"b", "c"}
    await store.workers.watch(ONE, (), unheard, now=NOW)
    assert await store.workers.watched(TWO, now=NOW) == frozenset()


async def test_notify_reaches_those_that_watch_one_of_the_jobs_and_no_others(store: Store) -> None:
    bells = [asyncio.Event(), asyncio.Event()]
    await store.workers.watch(ONE, {"a", "b"}, bells[0].set, now=NOW)
    await store.workers.watch(TWO, {"b", "c"}, bells[1].set, now=NOW)
    await store.workers.watched(THREE, now=NOW)
    store.workers.notify_watchers({"a", "unknown"})
    await rung(bells[0])
    assert not bells[1].is_set()
    bells[0].clear()
    store.workers.notify_watchers({"b"})
    await rung(bells[0])
    await rung(bells[1])


async def test_notify_before_the_watchers_were_read_does_nothing(store: Store) -> None:
    await store.workers.watch(ONE, {"a"}, unheard, now=NOW)
    store.workers.notify_watchers({"a"})


async def test_watcher_that_was_killed_is_read_for_a_minute(store: Store, peer: StartPeer) -> None:
    other = peer().opened()
    other.call("workers.watch", TWO, {"a"}, len, now=NOW)
    other.kill()
    assert await store.workers.watched(ONE, now=NOW + WATCH_US) == {"a"}
    store.workers.notify_watchers({"a"})
    assert await store.workers.watched(ONE, now=NOW + WATCH_US + 1) == frozenset()
    # The next call of anybody deletes its row; a clock that is set back does not bring it back.
    await store.workers.watch(ONE, {"b"}, unheard, now=NOW + WATCH_US + SECOND)
    assert await store.workers.watched(THREE, now=NOW) == {"b"}
