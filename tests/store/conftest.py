"""An open store on a new file, a committer, and other processes that hold locks."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from jobrunner.store.committer import Committer
from jobrunner.store.sqlite import SqliteStore
from tests.support.faulty import FaultyStore
from tests.support.locking import Child, Spawn


@pytest.fixture
def tmp_db(new_db: Path) -> Path:
    """Name a file that is not there yet: how a store comes to be is a subject of these tests."""
    return new_db


@pytest.fixture
async def store(tmp_db: Path, blank_store: bytes) -> AsyncIterator[SqliteStore]:
    tmp_db.write_bytes(blank_store)
    store = SqliteStore(tmp_db)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Spawn]:
    children: list[Child] = []

    def start(script: str) -> Child:
        children.append(Child(script, tmp_path))
        return children[-1]

    yield start
    for child in children:
        child.discard()


@pytest.fixture
async def committer(store: FaultyStore) -> AsyncIterator[Committer]:
    """A committer that has started; its ``store`` is that of the test file."""
    committer = Committer(store)
    committer.start()
    yield committer
    store.gate.set()
    await committer.close()
