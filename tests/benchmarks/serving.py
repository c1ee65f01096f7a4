"""Measures the latency of requests while jobs drain in the same process.

The client runs in another process.
"""

import asyncio
import json
import time
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row, percentile
from tests.benchmarks.processes import PATIENCE_S, child
from tests.benchmarks.workload import fill

JOBS = 20_000
CONNECTIONS = 4
PAUSE_S = 0.002
"""Between a client's answer and its next request: a site in use, not one under siege."""
WARM_UP = 200


class Client:
    """One HTTP/1.1 connection that is kept open, with little overhead."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, port: int) -> "Client":
        """Connect to the server on this machine."""
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, method: str, path: str) -> bytes:
        """Send a request and return the body of its answer."""
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n".encode()
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{method} {path} was answered by {head!r}")
        length = next(
            int(line.partition(b":")[2])
            for line in head.splitlines()
            if line.lower().startswith(b"content-length:")
        )
        return await self._reader.readexactly(length)

    def close(self) -> None:
        """Drop the connection."""
        self._writer.close()


class Pings(NamedTuple):
    """Answer times in ms."""

    idle: list[float]
    draining: list[float]


def http(bench: Bench) -> list[Row]:
    """Ask for a trivial route before and while 20,000 jobs drain."""
    idle, draining = [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            pings = asyncio.run(_pings(place / "jobs.sqlite"))
        idle.append(percentile(pings.idle, 0.99))
        draining.append(percentile(pings.draining, 0.99))
    return [
        Row(
            f"HTTP p99 of a trivial route while {JOBS:,} jobs drain",
            "ms",
            draining,
            idle,
            beside="no jobs",
            target=25,
        )
    ]


async def _pings(file: Path) -> Pings:
    await fill(file, JOBS, paused=True)
    async with child("serve", file) as server:
        port = (await server.heard("listening"))["port"]
        clients = [await Client.connect(port) for _ in range(CONNECTIONS)]
        for _ in range(WARM_UP):
            await clients[0].ask("GET", "/ping")
        idle: list[float] = []
        draining: list[float] = []

        async def ask_while_idle(client: Client) -> None:
            idle.extend([(await _ping(client))[0] for _ in range(WARM_UP)])

        async def ask_while_draining(client: Client) -> None:
            done = 0
            while done < JOBS:
                took, done = await _ping(client)
                if done:
                    draining.append(took)

        await asyncio.gather(*map(ask_while_idle, clients))
        starter = await Client.connect(port)
        asking = asyncio.gather(*map(ask_while_draining, clients))
        await starter.ask("POST", "/go")
        await asyncio.wait_for(asking, PATIENCE_S)
        for client in (*clients, starter):
            client.close()
    return Pings(idle, draining)


async def _ping(client: Client) -> tuple[float, int]:
    """Return how long the answer took in ms, and how many jobs were done by then."""
    await asyncio.sleep(PAUSE_S)
    started = time.perf_counter()
    body = await client.ask("GET", "/ping")
    return (time.perf_counter() - started) * 1000, int(json.loads(body)["done"])
