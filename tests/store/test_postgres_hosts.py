"""Several processes on a PostgreSQL server that is restarted, killed, cut off or copied."""

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from jobrunner.core.clock import now_s
from jobrunner.core.errors import StoreError, StoreFull, StoreUnavailable
from jobrunner.core.model import Claimed
from jobrunner.store.postgres.store import PostgresStore
from jobrunner.store.round import Round
from tests.conformance.peer import Peer
from tests.soak import postgres as soak
from tests.soak import stopped
from tests.support.factories import (
    NOW,
    OTHER_WORKER,
    WORKER,
    claim,
    claim_of,
    enqueue,
    new,
    succeeded,
    worker_row,
)
from tests.support.network import Network, can_make, network
from tests.support.pace import pace
from tests.support.postgres import make_directory
from tests.support.postgres_own import OwnServer, own_server

PATIENCE_S: Final = 60.0
JOBS: Final = 5

StartPeer = Callable[..., Peer]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the server's user may pass."""
    with tempfile.TemporaryDirectory(prefix="jr-own-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def server(place: Path) -> Iterator[OwnServer]:
    """A server of the test's own."""
    with own_server(place / "one") as one:
        yield one


@pytest.fixture
def start() -> Iterator[StartPeer]:
    """Start a process on a store, perhaps on another machine."""
    peers: list[Peer] = []

    def begin(url: str, network: int | None = None) -> Peer:
        peers.append(Peer(url, network))
        return peers[-1].opened()

    yield begin
    for peer in peers:
        peer.kill()


def works(peer: Peer, worker: int) -> Sequence[Claimed]:
    """Let a process join, and claim jobs that it enqueues."""
    peer.call("join", worker_row(worker))
    peer.call("write", Round(NOW, enqueues=[new() for _ in range(JOBS)]))
    claimed: Sequence[Claimed] = peer.call(
        "write", Round(NOW, claim=claim_of(worker=worker))
    ).claimed
    assert len(claimed) == JOBS
    return claimed


def settle(peer: Peer, jobs: Sequence[Claimed]) -> Sequence[object]:
    """Let a process settle jobs; return the stale outcomes."""
    until_it_works(peer, "change_counter")
    stale: Sequence[object] = peer.call(
        "write", Round(NOW, outcomes=[succeeded(job) for job in jobs])
    ).stale
    return stale


def until_it_works(peer: Peer, verb: str, **kwargs: object) -> object:
    """Call a verb until the server answers."""
    deadline = now_s() + PATIENCE_S
    while True:
        try:
            return peer.call(verb, **kwargs)
        except StoreError:
            assert now_s() < deadline, "the server stays away"


def claimable(peer: Peer, worker: int) -> int:
    """Return how many jobs a process gets once it may claim again."""
    peer.call("write", Round(NOW, enqueues=[new()]))
    deadline = now_s() + PATIENCE_S
    while now_s() < deadline:
        found = peer.call("write", Round(NOW, claim=claim_of(worker=worker))).claimed
        if found:
            return len(found)
    return 0


def found_dead(peer: Peer, seconds: float) -> Sequence[int]:
    """Let a process search for dead workers for so long; return those that it has found."""
    deadline = now_s() + seconds
    while now_s() < deadline:
        with suppress(StoreError):
            found = peer.call("workers.recover", now=NOW, thorough=True)
            if found.workers:
                return list(found.workers)
    return []


def test_F03_immediate_restart_of_the_server_takes_no_worker_its_jobs(
    server: OwnServer, start: StartPeer
) -> None:
    one, two = start(server.url), start(server.url)
    jobs = works(one, WORKER)
    others = works(two, OTHER_WORKER)
    server.stop()
    server.start()
    assert found_dead(two, 6) == []
    assert settle(one, jobs) == []
    assert settle(two, others) == []
    assert claimable(one, WORKER) == 1


def test_F04_worker_that_dies_while_the_server_restarts_is_found_after_the_grace(
    server: OwnServer, start: StartPeer
) -> None:
    one, two = start(server.url), start(server.url)
    jobs = works(one, WORKER)
    two.call("join", worker_row(OTHER_WORKER))
    server.stop()
    one.kill()
    server.start()
    up = now_s()
    assert found_dead(two, 30) == [WORKER]
    assert now_s() - up > 4
    taken = two.call("write", Round(NOW, claim=claim_of(worker=OTHER_WORKER))).claimed
    assert {job.id for job in taken} == {job.id for job in jobs}


def test_F08_process_that_is_stopped_keeps_its_jobs_under_a_hundred_thousand_notices(
    postgres_url: str,
) -> None:
    """For a minute: `just soak --part stopped --seconds 60`."""
    assert stopped.keeps_its_jobs(postgres_url, 8) > 3


def test_F11_fail_over_to_a_standby_that_reuses_numbers_settles_nothing_of_before(
    server: OwnServer, place: Path, start: StartPeer
) -> None:
    """The standby has missed the job, and gives its number to another one."""
    (place / "two").mkdir(mode=0o755)
    peer = start(server.url)
    standby = server.standby(place / "two")
    try:
        peer.call("join", worker_row(WORKER))
        peer.call("write", Round(NOW, enqueues=[new()]))
        # The server reserves 32 numbers ahead: what the standby gives anew begins behind them.
        standby.stop("fast")
        peer.call("write", Round(NOW, enqueues=[new() for _ in range(60)]))
        before = peer.call("write", Round(NOW, claim=claim_of(worker=WORKER))).claimed
        server.stop()
        standby.start()
        standby.promote()
        other = start(standby.url)
        other.call("join", worker_row(OTHER_WORKER))
        other.call("write", Round(NOW, enqueues=[new() for _ in range(60)]))
        again = other.call("write", Round(NOW, claim=claim_of(worker=OTHER_WORKER))).claimed
        reused = {job.seq for job in again} & {job.seq for job in before}
        assert reused, "no number came again"
        stale = other.call("write", Round(NOW, outcomes=[succeeded(job) for job in before])).stale
        assert {outcome.job.id for outcome in stale} == {job.id for job in before}
        assert settle(other, again) == []
    finally:
        standby.remove()


async def test_F31_server_without_a_connection_left_is_named_and_serves_once_there_is_one(
    place: Path,
) -> None:
    with own_server(place / "small", settings=("max_connections=12",)) as small:
        others: list[asyncpg.Connection] = []
        with suppress(asyncpg.TooManyConnectionsError):
            while len(others) < 20:
                others.append(await asyncpg.connect(small.url))
        assert len(others) == 12
        store = PostgresStore(small.url)
        with pytest.raises(StoreUnavailable, match="no connection left"):
            await store.open()
        for other in others:
            await other.close()
        await store.open()
        (answer,) = await enqueue(store, new())
        assert answer.created
        await store.close()


@pytest.fixture
def small(place: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    path = place / "small"
    path.mkdir()
    # The tablespace lies in it, the log of the server does not: a server without room for its log stops.
    mount = ("mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "jobrunner-test", path)
    subprocess.run(mount, check=True)
    yield path
    subprocess.run(("umount", "-l", path), check=True)  # noqa: S607 - as in the PATH


async def test_F30_disk_that_is_full_refuses_jobs_keeps_those_it_has_and_takes_more_once_there_is_room(
    server: OwnServer, small: Path
) -> None:
    outside = await asyncpg.connect(server.url)
    make_directory(small / "space")
    await outside.execute(f"CREATE TABLESPACE small LOCATION '{small}/space'")
    await outside.execute("CREATE DATABASE jobs TABLESPACE small")
    filler = small / "filler"
    filler.write_bytes(b"x" * 6_000_000)
    store = PostgresStore(server.url.replace("/postgres", "/jobs"))
    await store.open()
    await store.workers.join(worker_row(), lambda: None)
    stored = list[str]()
    with pytest.raises(StoreFull, match="no room left"):
        await enqueue_without_end(store, stored)
    assert stored
    filler.unlink()
    stored += [one.id for one in await enqueue(store, new())]
    claimed = await claim(store, slots=2_000)
    assert [job.id for job in claimed] == stored
    await store.workers.leave(WORKER, now=NOW)
    await store.close()
    await outside.close()


async def enqueue_without_end(store: PostgresStore, stored: list[str]) -> None:
    """Enqueue job after job until one is refused, and note those that were stored."""
    while True:
        # Random text, which the server cannot make smaller.
        job = new(args=json.dumps(os.urandom(30_000).hex()))
        stored += [one.id for one in await enqueue(store, job)]


async def set_read_only(url: str, value: str) -> None:
    """Let a server take writes or none; its sessions notice it one after another."""
    connection = await asyncpg.connect(url)
    await connection.execute("SET default_transaction_read_only = off")
    await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


async def test_F30_server_that_becomes_read_only_refuses_jobs_until_it_takes_them_again(
    server: OwnServer,
) -> None:
    store = PostgresStore(server.url)
    await store.open()
    jobs = list[str]()
    await set_read_only(server.url, "on")
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(StoreUnavailable, match="read-only"):
            await enqueue_without_end(store, jobs)
        await set_read_only(server.url, "off")
        before = len(jobs)
        while len(jobs) == before:
            with suppress(StoreUnavailable):
                jobs += [one.id for one in await enqueue(store, new())]
    await store.workers.join(worker_row(), lambda: None)
    assert [job.id for job in await claim(store, slots=100_000)] == jobs
    await store.workers.leave(WORKER, now=NOW)
    await store.close()


async def test_F12_standby_is_refused(server: OwnServer, place: Path) -> None:
    (place / "two").mkdir(mode=0o755)
    store = PostgresStore(server.url)
    await store.open()
    await store.close()
    standby = server.standby(place / "two")
    try:
        with pytest.raises(StoreUnavailable, match=r"read-only|standby|primary|read-write"):
            await PostgresStore(standby.url).open()
    finally:
        standby.remove()


@pytest.fixture
def machines() -> Iterator[Network]:
    """Three machines on a switch."""
    if not can_make():
        pytest.skip(
            "only root may make networks, with the programs ip, unshare, nsenter and setpriv"
        )
    with network(3) as made:
        yield made


@pytest.fixture
def remote(machines: Network, place: Path) -> Iterator[OwnServer]:
    """A server on the third machine."""
    address = machines.address(3)
    with own_server(place / "one", address=address, network=machines.pids[2]) as one:
        yield one


def test_F05_machine_that_is_cut_off_silently_loses_its_jobs_to_the_other_within_six_seconds(
    machines: Network, remote: OwnServer, start: StartPeer
) -> None:
    one = start(remote.url, machines.pids[0])
    two = start(remote.url, machines.pids[1])
    jobs = works(one, WORKER)
    two.call("join", worker_row(OTHER_WORKER))
    assert found_dead(two, 6) == []  # also the grace after the server's start is over
    machines.cut(1)
    began = now_s()
    assert found_dead(two, 60) == [WORKER]
    assert now_s() - began < 6 * pace()
    taken = two.call("write", Round(NOW, claim=claim_of(worker=OTHER_WORKER))).claimed
    assert {job.id for job in taken} == {job.id for job in jobs}
    # It still writes what it has queued up, and asks for more, when its packets arrive again.
    one.begin("write", Round(NOW, claim=claim_of(worker=WORKER)))
    two.call("write", Round(NOW, enqueues=[new()]))
    machines.heal(1)
    with suppress(StoreError):
        assert one.answer().claimed == []
    stale = settle(one, jobs)
    assert len(stale) == JOBS
    assert settle(two, taken) == []


def test_F06_machine_that_is_cut_off_for_a_second_keeps_its_jobs(
    machines: Network, remote: OwnServer, start: StartPeer
) -> None:
    one = start(remote.url, machines.pids[0])
    two = start(remote.url, machines.pids[1])
    jobs = works(one, WORKER)
    two.call("join", worker_row(OTHER_WORKER))
    machines.cut(1)
    assert found_dead(two, 1) == []
    machines.heal(1)
    assert found_dead(two, 8) == []
    assert settle(one, jobs) == []
    assert claimable(one, WORKER) == 1


@pytest.mark.slow
async def test_workers_on_two_machines_lose_and_double_nothing_whatever_dies(
    seed: int, seconds: float
) -> None:
    figures = await soak.run(seed, seconds)
    assert figures["jobs"]
