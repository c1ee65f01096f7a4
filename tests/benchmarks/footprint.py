"""Measures the processor time of an idle worker and the memory of an idle shop."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row
from tests.benchmarks.prefill import Past
from tests.benchmarks.processes import CHECKOUT, PATIENCE_S, child

IDLE_S = 10
SETTLE_IN_S = 3
WAITING = 1_000_000
UNKNOWN = 500


def idle(bench: Bench) -> list[Row]:
    """Measure an idle worker's processor time over ten seconds, alone and beside jobs that it cannot run."""
    shares, beside = [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            shares.append(asyncio.run(idle_share(place / "jobs.sqlite")) * 100)
        with bench.place() as place:
            past = Past(place / "jobs.sqlite")
            for number in range(UNKNOWN):
                past.queued(2, task=f"alien-{number}")
            past.close()
            beside.append(asyncio.run(idle_share(place / "jobs.sqlite")) * 100)
    return [
        Row("idle worker, share of a core", "%", shares, target=0.5),
        Row(f"  beside waiting jobs of {UNKNOWN} unknown tasks", "%", beside, target=0.5),
    ]


async def idle_share(file: Path) -> float:
    """Return the share of a core that a worker takes which has nothing to do."""
    async with child("idle", file, IDLE_S) as worker:
        return float((await worker.heard("idle"))["share"])


def memory(bench: Bench) -> list[Row]:
    """Measure the resident memory of the shop under uvicorn, with no jobs and with a million."""
    empty, full = [], []
    with bench.place() as place:
        past = Past(place / "full.sqlite")
        past.future(WAITING)
        past.close()
        for run in range(bench.runs):
            empty.append(asyncio.run(_resident(place / f"empty-{run}.sqlite", place)))
            full.append(asyncio.run(_resident(place / "full.sqlite", place)))
    more = [with_jobs - without for with_jobs, without in zip(full, empty, strict=True)]
    return [
        Row("resident memory, shop idle", "MB", empty, target=90),
        Row(f"  more with {WAITING:,} waiting jobs", "MB", more, target=10),
    ]


async def _resident(file: Path, place: Path) -> float:
    async with _shop(file, place) as pid:
        await asyncio.sleep(SETTLE_IN_S)
        return _resident_mb(pid)


@asynccontextmanager
async def _shop(file: Path, place: Path) -> AsyncIterator[int]:
    """Start the shop as its users do, wait until it answers, and yield its process id."""
    listener = socket.create_server(("127.0.0.1", 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory"),
        *("--fd", str(listener.fileno()), "--log-level", "warning"),
        cwd=CHECKOUT,
        env=os.environ
        | {
            "SHOP_DATABASE": str(file),
            "SHOP_DATA_DIR": str(place / "data"),
            "SHOP_ADMIN_TOKEN": "only-for-the-benchmark",
            "SHOP_LOG_LEVEL": "WARNING",
        },
        pass_fds=[listener.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        port = listener.getsockname()[1]
        listener.close()
        await asyncio.wait_for(_answered(port), PATIENCE_S)
        yield process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answered(port: int) -> None:
    """Return when the server has answered a request; it need not like it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /nothing-here HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
    if not await reader.read():
        raise RuntimeError("the shop ended before it answered; its errors are above")
    writer.close()


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(
            line for line in status.read_text("utf-8").splitlines() if line.startswith("VmRSS")
        )
        return int(line.split()[1]) / 1024
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True)  # noqa: S607
    return int(said.stdout) / 1024
