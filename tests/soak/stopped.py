"""A worker's process that is stopped under 100,000 notices keeps its jobs on PostgreSQL."""

import asyncio
import tempfile
from pathlib import Path
from typing import Final

import asyncpg

from jobrunner.core.clock import now_s
from jobrunner.store.postgres.bell import WORK
from jobrunner.store.postgres.location import location_of
from jobrunner.store.round import Round
from tests.conformance.peer import Peer
from tests.soak.budget import Figures
from tests.support.factories import NOW, OTHER_WORKER, WORKER, new, succeeded, worker_row
from tests.support.postgres_own import own_server

NOTICES: Final = 100_000
JOBS: Final = 5


async def run(seconds: float) -> Figures:
    """Stop a worker for so long, on a new server."""
    with tempfile.TemporaryDirectory(prefix="jr-soak-") as name:
        Path(name).chmod(0o755)
        with own_server(Path(name, "server")) as server:
            looks = await asyncio.to_thread(keeps_its_jobs, server.url, seconds)
    return {"seconds stopped": seconds, "notices": NOTICES, "looks at its lock": looks}


def keeps_its_jobs(url: str, seconds: float) -> int:
    """Stop a worker while another one searches for dead workers; return how often it has searched."""
    peers = [Peer(url), Peer(url)]
    try:
        one, two = (peer.opened() for peer in peers)
        two.call("write", Round(NOW, enqueues=[new() for _ in range(JOBS)]))
        jobs = one.works(WORKER)
        assert len(jobs) == JOBS
        two.call("join", worker_row(OTHER_WORKER))
        one.pause()
        try:
            looks = _looks(two, seconds, asyncio.run(_notify(url)))
        finally:
            one.go_on()
        ends = Round(NOW, outcomes=[succeeded(job) for job in jobs])
        assert one.call("write", ends).stale == []
        return looks
    finally:
        for peer in peers:
            peer.kill()


def _looks(peer: Peer, seconds: float, began_s: float) -> int:
    looks = 0
    while now_s() < began_s + seconds:
        found = peer.call("workers.recover", now=NOW, thorough=True)
        assert not found.workers, f"found dead after {now_s() - began_s:.1f} s"
        looks += 1
    return looks


async def _notify(url: str) -> float:
    """Send different notices of work, which the stopped process does not read; return the time before."""
    began_s = now_s()
    connection = await asyncpg.connect(url)
    try:
        channel = location_of(url).schema + WORK
        numbers = "SELECT pg_notify($1, n::text) FROM generate_series(1, $2) AS number (n)"
        assert len(await connection.fetch(numbers, channel, NOTICES)) == NOTICES
    finally:
        await connection.close()
    return began_s
