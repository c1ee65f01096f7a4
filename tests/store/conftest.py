"""An open store on a file of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobrunner.store.sqlite import SqliteStore


@pytest.fixture
async def store(tmp_db: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_db)
    await store.open()
    yield store
    await store.close()
