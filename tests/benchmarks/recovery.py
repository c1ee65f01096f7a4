"""From ``kill -9`` to the same jobs running again, with real processes."""

import asyncio
import time
from pathlib import Path

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Row
from tests.benchmarks.processes import child

SETTLE_IN_S = 1.0
"""The idle time of the live process before the other one dies."""


def recovery(bench: Bench) -> list[Row]:
    """Kill a process with 20 running jobs; time until the last of them runs again elsewhere."""
    restart, takeover = [], []
    for _ in range(bench.runs):
        with bench.place() as place:
            restart.append(asyncio.run(_restart(place / "jobs.sqlite")))
        with bench.place() as place:
            takeover.append(asyncio.run(_takeover(place / "jobs.sqlite")))
    return [
        Row("kill -9 → running again, from the new process's opening", "s", restart, target=1),
        Row("kill -9 → running again in another live process", "s", takeover, target=0.5),
    ]


async def _restart(file: Path) -> float:
    async with child("victim", file) as victim:
        await victim.heard("riding")
        await victim.kill()
    async with child("heir", file) as heir:
        opening = await heir.heard("open")
        resumed = await heir.heard("resumed")
    return float(resumed["at"]) - float(opening["opening"])


async def _takeover(file: Path) -> float:
    async with child("victim", file) as victim:
        await victim.heard("riding")
        async with child("heir", file) as heir:
            await heir.heard("open")
            await asyncio.sleep(SETTLE_IN_S)
            killed = time.time()
            await victim.kill()
            resumed = await heir.heard("resumed")
    return float(resumed["at"]) - killed
