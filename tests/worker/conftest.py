"""Runners with sessions, by kind."""

from pathlib import Path

import pytest

from tests.worker.site import KINDS, Site


@pytest.fixture(params=KINDS)
def site(tmp_db: Path, request: pytest.FixtureRequest) -> Site:
    return Site(tmp_db, request.param)


@pytest.fixture(params=["Session", "sqlite3"])
def blocking(tmp_db: Path, request: pytest.FixtureRequest) -> Site:
    return Site(tmp_db, request.param)
