"""One process of a queue on PostgreSQL: ``python peer.py QUEUE ROLE URL NUMBER``, jobrunner's or pgqueuer's.

The same file runs under both interpreters, that of this checkout and one that has pgqueuer, so it imports neither
``tests`` nor, before it knows whose process it is, a queue.  It says in lines of JSON what it measured.
"""

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, Protocol, Self

SLOTS = 100
CALLERS = 100
REPORT_S = 0.01


class Peer(Protocol):
    """A queue with one task, which calls ``on_call(number)``."""

    async def enqueue_many(self, jobs: int) -> None: ...
    async def enqueue(self, number: int) -> None: ...
    async def run(self, until: asyncio.Event, opened: asyncio.Event) -> None: ...


class Jobrunner:
    """This checkout."""

    def __init__(self, url: str, on_call: Callable[[int], None]) -> None:
        from jobrunner import JobRunner  # noqa: PLC0415 - see above

        self.runner = JobRunner(url, queues={"default": SLOTS})

        @self.runner.task
        async def noop(number: int) -> None:
            on_call(number)

        self.noop = noop

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def enqueue_many(self, jobs: int) -> None:
        async with self.runner.running(work=False):
            for first in range(0, jobs, 5_000):
                count = min(5_000, jobs - first)
                await self.runner.enqueue_many([self.noop.call(n) for n in range(count)])

    async def enqueue(self, number: int) -> None:
        await self.runner.enqueue(self.noop, number)

    async def run(self, until: asyncio.Event, opened: asyncio.Event) -> None:
        async with self.runner.running():
            opened.set()
            await until.wait()

    def callers(self) -> Any:
        return self.runner.running(work=False)


class Pgqueuer:
    """pgqueuer with our slots: as many jobs at once, and the largest batches that it allows with them."""

    limits: ClassVar[Mapping[str, int]] = {
        "batch_size": SLOTS // 2,
        "max_concurrent_tasks": SLOTS,
    }

    def __init__(self, url: str, on_call: Callable[[int], None]) -> None:
        self.url = url
        self.on_call = on_call

    async def __aenter__(self) -> Self:
        import asyncpg  # noqa: PLC0415 - see above
        from pgqueuer import PgQueuer, Queries  # noqa: PLC0415
        from pgqueuer.adapters.drivers.asyncpg import (  # noqa: PLC0415
            AsyncpgDriver,
            AsyncpgPoolDriver,
        )

        self.pool = await asyncpg.create_pool(self.url, min_size=10, max_size=10)
        self.queries = Queries(AsyncpgPoolDriver(self.pool))
        if not await self.queries.schema_is_installed():
            await self.queries.install()
        self.connection = await asyncpg.connect(self.url)
        self.queuer = PgQueuer(AsyncpgDriver(self.connection))

        async def noop(job: Any) -> None:
            self.on_call(int(job.payload))

        self.queuer.entrypoint("noop", accepts_context=False)(noop)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.connection.close()
        await self.pool.close()

    async def enqueue_many(self, jobs: int) -> None:
        for first in range(0, jobs, 5_000):
            count = min(5_000, jobs - first)
            payloads = [str(n).encode() for n in range(count)]
            await self.queries.enqueue(["noop"] * count, payloads, [0] * count)

    async def enqueue(self, number: int) -> None:
        await self.queries.enqueue("noop", str(number).encode())

    async def run(self, until: asyncio.Event, opened: asyncio.Event) -> None:
        opened.set()
        running = asyncio.create_task(self.queuer.run(**self.limits))
        await until.wait()
        self.queuer.shutdown.set()
        await running

    def callers(self) -> Any:
        import contextlib  # noqa: PLC0415

        return contextlib.nullcontext()


class UnlimitedPgqueuer(Pgqueuer):
    """pgqueuer with any number of jobs at once, its fastest way to run jobs that do nothing."""

    limits: ClassVar[Mapping[str, int]] = {"batch_size": SLOTS}


PEERS: dict[str, Any] = {
    "jobrunner": Jobrunner,
    "pgqueuer": Pgqueuer,
    "unlimited-pgqueuer": UnlimitedPgqueuer,
}


async def fill(make: Any, url: str, jobs: int) -> None:
    """Leave jobs that wait."""
    async with make(url, lambda _: None) as peer:
        await peer.enqueue_many(jobs)
    say("filled")


async def drain(make: Any, url: str, _: int) -> None:
    """Run what waits from one line until the next; say how many were called so far, and when the first was."""
    first: list[float] = []
    called = 0

    def note(_: int) -> None:
        nonlocal called
        called += 1
        if not first:
            first.append(time.time())

    async def report() -> None:
        said = 0
        while True:
            await asyncio.sleep(REPORT_S)
            if called > said:
                said = called
                say("called", jobs=said, at=time.time())

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with make(url, note) as peer:
        say("ready")
        sys.stdin.readline()
        loop.run_in_executor(
            None, lambda: (sys.stdin.readline(), loop.call_soon_threadsafe(stop.set))
        )
        reporting = asyncio.create_task(report())
        await peer.run(stop, asyncio.Event())
        reporting.cancel()
    say("drained", first=first[0] if first else None, cpu=time.process_time())


async def callers(make: Any, url: str, jobs: int) -> None:
    """Let 100 callers enqueue, each awaiting its own before the next."""
    async with make(url, lambda _: None) as peer, peer.callers():
        await peer.enqueue(0)

        async def caller() -> None:
            for number in range(jobs // CALLERS):
                await peer.enqueue(number)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        say("enqueued", rate=jobs / (time.perf_counter() - started))


async def start(make: Any, url: str, jobs: int) -> None:
    """Enqueue into an idle queue, and time each call to the first line of the task."""
    began: asyncio.Queue[float] = asyncio.Queue()
    took = []
    stop = asyncio.Event()
    async with make(url, lambda _: began.put_nowait(time.perf_counter())) as peer:
        opened = asyncio.Event()
        running = asyncio.create_task(peer.run(stop, opened))
        await opened.wait()
        await peer.enqueue(0)
        await began.get()  # it works
        for number in range(jobs):
            started = time.perf_counter()
            await peer.enqueue(number)
            took.append((await began.get() - started) * 1000)
            await asyncio.sleep(0.02)  # until it is idle again
        stop.set()
        await running
    say("started", took=sorted(took))


ROLES: dict[str, Callable[[Any, str, int], Coroutine[Any, Any, None]]] = {
    "fill": fill,
    "drain": drain,
    "callers": callers,
    "start": start,
}


def say(word: str, **more: object) -> None:
    """Send a word to the parent."""
    print(json.dumps({"word": word} | more), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    whose, role, its_url, number = sys.argv[1:]
    asyncio.run(ROLES[role](PEERS[whose], its_url, int(number)))
