"""A fresh store for each test, of each kind that there is, and other processes on it."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from jobrunner.store.postgres import workers as postgres_workers
from jobrunner.store.postgres.sql import walks
from jobrunner.store.protocol import Store
from jobrunner.store.sqlite import readers
from tests.conformance.peer import PATIENCE_S, Peer
from tests.conformance.rigs import STORES, Rig, SqliteRig, maker


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let lists and groups take their time: on a busy machine they would stop after 100 ms with a part.

    A worker that a test kills on PostgreSQL is dead at once: the checks are apart for those that are only cut off.
    """
    monkeypatch.setattr(readers, "PAGE_S", PATIENCE_S)
    monkeypatch.setattr(walks, "PAGE_S", PATIENCE_S)
    monkeypatch.setattr(postgres_workers, "LOOKS_APART_S", 0)
    monkeypatch.setattr(postgres_workers, "RESTART_GRACE_S", 0)


@pytest.fixture(params=STORES)
def closed_rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """A store under test, not yet open."""
    if request.param == "sqlite":
        yield SqliteRig(request.getfixturevalue("tmp_path"))
        return
    with maker(request.param, lambda: request.getfixturevalue("postgres"))() as rig:
        yield rig


@pytest.fixture
async def rig(closed_rig: Rig) -> AsyncIterator[Rig]:
    """A store under test, open, and what can be done to it from outside."""
    await closed_rig.open()
    yield closed_rig
    await closed_rig.close()


@pytest.fixture
async def store(rig: Rig) -> Store:
    """The store alone, open."""
    return rig.store


StartPeer = Callable[[], Peer]


@pytest.fixture
def peer(rig: Rig) -> Iterator[StartPeer]:
    """Start another process on the store; wait for it with ``opened()``."""
    peers: list[Peer] = []

    def start() -> Peer:
        peers.append(Peer(rig.url))
        return peers[-1]

    yield start
    for one in peers:
        one.kill()
