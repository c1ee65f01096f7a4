"""A fresh store for each test, of each kind that there is, and other processes on it."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from jobrunner.store.protocol import Store
from tests.conformance.peer import Peer
from tests.conformance.rigs import RIGS, Rig


@pytest.fixture(params=sorted(RIGS))
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """A store under test, open, and what can be done to it from outside."""
    rig = RIGS[request.param](tmp_path)
    await rig.open()
    yield rig
    await rig.close()


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
