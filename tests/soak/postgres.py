"""Two machines on one PostgreSQL server: killed workers, cut networks, a server that dies, with a ledger outside.

Halfway the server dies for good, and its standby, which each commit had waited for, is promoted.
"""

import asyncio
import random
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from jobrunner.core.clock import now_s
from tests.soak.budget import Figures, rounds
from tests.support.network import Network, can_make, network
from tests.support.postgres_own import OwnServer, own_server
from tests.support.processes import CHECKOUT

PATIENCE_S: Final = 180.0
LEAST: Final = 3
"""Rounds, one of each fault."""
LONGEST_CUT_S: Final = 8.0
_FAULTS: Final = ("kills", "cuts", "restarts")
_WEIGHTS: Final = (20, 1, 1)


async def run(seed: int, seconds: float) -> Figures:
    """Let faults happen under load; then no job that was enqueued is lost, and no row doubled."""
    draw = random.Random(seed)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jr-soak-")))
        place.chmod(0o755)
        machines = stack.enter_context(network(4)) if can_make() else None
        server = stack.enter_context(
            own_server(place / "server")
            if machines is None
            else own_server(place / "server", address=machines.address(3), network=machines.pids[2])
        )
        begin = now_s()
        site = _Site(server, machines, place, until=begin + seconds)
        stack.callback(site.end)
        await site.prepare()
        for number in (0, 1):
            site.start(number)
        done = Counter[str]()
        for number in rounds(seconds, least=LEAST):
            fault = _FAULTS[number] if number < LEAST else draw.choices(_FAULTS, _WEIGHTS)[0]
            if number >= LEAST - 1 and now_s() >= begin + seconds / 2 and "promotions" not in done:
                fault = "promotions"
            if fault == "cuts" and machines is None:
                fault = "kills"
            done[fault] += 1
            await site.suffer(fault, draw)
        return {**done, **await site.settled()}


class _Site:
    """The server with its standby, and a worker on each of two machines."""

    def __init__(
        self, server: OwnServer, machines: Network | None, place: Path, *, until: float
    ) -> None:
        self._server = server
        self._machines = machines
        self._until = until
        self._ledger = place / "ledger"
        self._workers: dict[int, subprocess.Popen[str]] = {}
        (place / "standby").mkdir(mode=0o755)
        self._standby = (
            server.standby(place / "standby")
            if machines is None
            else server.standby(
                place / "standby", address=machines.address(4), network=machines.pids[3]
            )
        )
        self._url = f"postgresql://jobrunner@{server.place},{self._standby.place}/postgres"

    def _inside(self, number: int) -> list[str]:
        """Return the words that run a program on a machine."""
        if self._machines is None:
            return []
        return ["nsenter", "-t", str(self._machines.pids[number]), "-n"]

    async def prepare(self) -> None:
        """Make the table of effects, and let each commit wait for the standby."""
        await self._query("CREATE TABLE effects (job text NOT NULL)")
        await self._query("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await self._query("SELECT pg_reload_conf()")

    async def _query(self, statement: str) -> list[list[str]]:
        """Run a statement by ``psql`` where the server is; return its rows."""
        words = [
            str(self._server.programs / "psql"),
            "-qAtX",
            "-F",
            "\t",
            "-d",
            self._server.url,
            "-c",
            statement,
        ]
        process = await asyncio.create_subprocess_exec(
            *self._inside(2), *words, stdout=subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode == 0
        return [line.split("\t") for line in said.decode().splitlines()]

    def start(self, number: int) -> None:
        """Start the worker of a machine, which enqueues until the end, and wait until it is open."""
        words = [sys.executable, "-m", "tests.soak._postgres_worker"]
        words += [self._url, str(self._ledger), str(self._until - now_s())]
        worker = subprocess.Popen(
            [*self._inside(number), *words],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._workers[number] = worker
        assert worker.stdout is not None
        assert worker.stdout.readline() == "open\n"

    async def suffer(self, fault: str, draw: random.Random) -> None:
        """Let a fault happen, and end it."""
        number = draw.randrange(2)
        if fault == "kills":
            self._kill(number)
            self.start(number)
        elif fault == "cuts":
            assert self._machines is not None
            self._machines.cut(number + 1)
            await asyncio.sleep(draw.uniform(0.5, LONGEST_CUT_S))
            self._machines.heal(number + 1)
        elif fault == "promotions":
            self._server.stop()
            self._server = self._standby
            self._server.promote()
        else:
            self._server.stop()
            self._server.start()

    def _kill(self, number: int) -> None:
        worker = self._workers.pop(number)
        worker.kill()
        worker.wait()
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.close()
        worker.stdout.close()

    async def settled(self) -> Figures:
        """Wait until every job has run, and compare the ledger with the rows."""
        async with asyncio.timeout(PATIENCE_S):
            while await self._query(  # noqa: ASYNC110 - nobody announces that nothing is left
                "SELECT 1 FROM jobrunner.jobs WHERE state IN ('queued', 'running', 'scheduled') LIMIT 1"
            ):
                await asyncio.sleep(0.5)
        lines = [line.split() for line in self._ledger.read_text().splitlines()]
        enqueued = {id for what, id in lines if what == "enqueued"}
        succeeded = {
            id
            for (id,) in await self._query(
                "SELECT id FROM jobrunner.jobs WHERE state = 'succeeded'"
            )
        }
        effects = Counter(id for (id,) in await self._query("SELECT job FROM effects"))
        lost = enqueued - succeeded
        doubled = [id for id, count in effects.items() if count > 1]
        without = succeeded - effects.keys()
        assert enqueued, "nothing was enqueued"
        assert not lost, f"{len(lost)} acknowledged jobs are lost, such as {min(lost)}"
        assert not doubled, f"the rows of {len(doubled)} jobs are doubled, such as {min(doubled)}"
        assert not without, f"{len(without)} jobs succeeded without their row"
        runs = sum(what == "ran" for what, _ in lines)
        return {"jobs": len(enqueued), "runs": runs, "lost": 0, "doubled rows": 0}

    def end(self) -> None:
        """Kill the workers, and stop the standby."""
        for number in list(self._workers):
            self._kill(number)
        self._standby.remove()
