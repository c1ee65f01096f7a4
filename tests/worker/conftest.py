"""Runners with sessions, by kind, and a worker that does not poll."""

from pathlib import Path

import pytest

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
