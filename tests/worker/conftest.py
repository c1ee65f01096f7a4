"""Runners with sessions, by kind, and a process that does not poll."""

from pathlib import Path

import pytest

from jobrunner.queue import results
from jobrunner.worker import maintenance
from tests.worker.site import KINDS, Site


@pytest.fixture(params=KINDS)
def site(tmp_db: Path, request: pytest.FixtureRequest) -> Site:
    return Site(tmp_db, request.param)


@pytest.fixture(params=["Session", "sqlite3"])
def blocking(tmp_db: Path, request: pytest.FixtureRequest) -> Site:
    return Site(tmp_db, request.param)


@pytest.fixture
def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be found by the poll: what is found was woken for."""
    monkeypatch.setattr(maintenance, "POLL_S", 3600.0)


@pytest.fixture
def no_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a wait for a result read the store once: what comes later was notified."""
    monkeypatch.setattr(results, "POLL_S", 3600.0)
