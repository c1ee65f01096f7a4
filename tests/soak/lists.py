"""Clients that list by a filter without a match, beside what must not wait for them, in a file of a million rows.

``python -m tests.soak.lists ROWS SECONDS`` prints the figures alone.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

from jobrunner import JobRunner, StoreError
from tests.benchmarks.bench import Bench
from tests.benchmarks.child import SLOTS
from tests.benchmarks.prefill import Past
from tests.benchmarks.processes import child
from tests.support.engine import worker_of

LISTERS = 8
QUEUES = 50
PATIENCE_S = 60

Mix = Callable[[Past, int], None]


def _spread(past: Past, rows: int) -> None:
    for number in range(QUEUES):
        past.queued(rows // QUEUES, queue=f"queue-{number}", task=f"task-{number}")


MIXES: dict[str, Mix] = {
    "finished": lambda past, rows: past.finished(rows),
    "queued in one queue": lambda past, rows: past.queued(rows),
    "queued in 50 queues": _spread,
    "scheduled": lambda past, rows: past.future(rows),
    "dead letters": lambda past, rows: past.dead(rows // 2),
}


class Times:
    """The durations of calls of one kind, in milliseconds."""

    def __init__(self) -> None:
        self.took: list[float] = []

    async def call(self, what: Awaitable[object]) -> None:
        """Await a call and note its time."""
        started = time.perf_counter()
        await what
        self.took.append((time.perf_counter() - started) * 1000)

    def figures(self, name: str) -> dict[str, object]:
        """Return the median and the worst."""
        if not self.took:
            return {f"{name}, calls": 0}
        return {
            f"{name}, median ms": round(median(self.took), 1),
            f"{name}, worst ms": round(max(self.took), 1),
        }


async def run(rows: int, seconds: float) -> dict[str, object]:
    """Measure lists beside single reads, recovery and a deleted log; and the queues of each mix of states.

    Args:
        rows: in each file.
        seconds: how long the clients list.

    Returns:
        Figures by their names.
    """
    figures: dict[str, object] = {"rows": rows, "listing clients": LISTERS}
    with tempfile.TemporaryDirectory(prefix="jobrunner-soak-", dir=Bench(1).root) as folder:
        for number, (name, fill) in enumerate(MIXES.items()):
            file = Path(folder, f"{number}.sqlite")
            past = Past(file)
            fill(past, rows)
            past.close()
            figures |= await _queues(name, file)
            if name == "finished":
                figures |= await _beside_lists(file, seconds)
            for one in Path(folder).glob(f"{number}.sqlite*"):
                if one.is_file():
                    one.unlink()
    return figures


async def _queues(name: str, file: Path) -> dict[str, object]:
    jobs = JobRunner(file, work=False)
    queues, health = Times(), Times()
    async with jobs.running() as queue:
        for _ in range(10):
            await queues.call(queue.queues.list())
            await health.call(queue.health())
    return queues.figures(f"queues, {name}") | health.figures(f"health, {name}")


async def _beside_lists(file: Path, seconds: float) -> dict[str, object]:
    jobs = JobRunner(file, queues={"default": SLOTS})
    began: asyncio.Queue[float] = asyncio.Queue()

    @jobs.task(timeout=None)
    async def ride(number: int) -> None:
        began.put_nowait(time.perf_counter())

    lists, first_page, get, health = Times(), Times(), Times(), Times()
    counters: dict[str, object] = {}
    async with child("victim", file) as victim:
        await victim.heard("riding")
        async with jobs.running() as queue:
            (known,) = (await queue.list(limit=1)).items
            listers = [asyncio.create_task(_list(queue, lists)) for _ in range(LISTERS)]
            loop = asyncio.get_running_loop()
            end_s = loop.time() + seconds
            while loop.time() < end_s:
                await get.call(queue.get(known.id))
                await health.call(queue.health())
                await first_page.call(queue.list(limit=50))
                await asyncio.sleep(0.02)
            killed = time.perf_counter()
            await victim.kill()
            async with asyncio.timeout(PATIENCE_S):
                last = max([await began.get() for _ in range(SLOTS)])
            counters["kill -9 to running again, ms"] = round((last - killed) * 1000)
            Path(f"{file}-wal").unlink()
            deleted = time.perf_counter()
            async with asyncio.timeout(PATIENCE_S):
                await worker_of(jobs).has_failed.wait()
            counters["deleted log to noticed, ms"] = round((time.perf_counter() - deleted) * 1000)
            for lister in listers:
                lister.cancel()
            await asyncio.gather(*listers, return_exceptions=True)
    return (
        lists.figures("list without a match")
        | first_page.figures("first page beside")
        | get.figures("get beside")
        | health.figures("health beside")
        | counters
    )


async def _list(queue: JobRunner, lists: Times) -> None:
    """List by a filter without a match, again and again, page after page."""
    cursor = None
    while True:
        started = time.perf_counter()
        try:
            page = await queue.list(task="nobody", cursor=cursor)
        except StoreError:
            return  # the log has been deleted
        lists.took.append((time.perf_counter() - started) * 1000)
        cursor = page.next_cursor


def main() -> None:
    """Print the figures."""
    rows, seconds = int(sys.argv[1]), float(sys.argv[2])
    print(json.dumps(asyncio.run(run(rows, seconds)), indent=2))


if __name__ == "__main__":
    main()
