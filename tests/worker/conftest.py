"""Runners with sessions, by kind, threads for attempts, and a process that does not poll."""

from collections.abc import AsyncIterator

import pytest

from jobrunner.queue.shared_reads import SharedReads
from jobrunner.worker import maintenance
from jobrunner.worker.thread_pool import Threads
from tests.worker.site import BLOCKING, KINDS, ON_SQLITE, PREFIX, Site


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest) -> Site:
    return _site(request)


@pytest.fixture(params=ON_SQLITE)
def sqlite_site(request: pytest.FixtureRequest) -> Site:
    """For what only happens where there is one writer."""
    return _site(request)


@pytest.fixture(params=BLOCKING)
def blocking(request: pytest.FixtureRequest) -> Site:
    return _site(request)


def _site(request: pytest.FixtureRequest) -> Site:
    kind: str = request.param
    on = "postgres_url" if kind.startswith(PREFIX) else "tmp_db"
    return Site(request.getfixturevalue(on), kind)


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be found by the poll: what is found was woken for."""
    monkeypatch.setattr(maintenance, "POLL_S", 3600.0)


@pytest.fixture
def no_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a wait for a result read the store once: what comes later was notified."""
    monkeypatch.setattr(SharedReads, "next_poll_s", lambda reads, id: 3600.0)


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    pool = Threads(2)
    yield pool
    pool.close()
