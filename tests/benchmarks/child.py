"""The roles that other processes play: ``python -m tests.benchmarks.child ROLE FILE ...``."""

import asyncio
import logging
import socket
import sys
import time
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from jobrunner import JobRunner
from tests.benchmarks.processes import say
from tests.benchmarks.rates import rated_runner
from tests.benchmarks.workload import Workload

SLOTS = 20


async def idle(file: Path, seconds: float) -> None:
    """Keep a worker open that has nothing to do, and say what share of a core it took."""
    async with Workload(file).jobs.running():
        await asyncio.sleep(2)  # what opening takes is not idleness
        clock, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        share = (time.process_time() - cpu) / (time.perf_counter() - clock)
    say("idle", share=share)


async def victim(file: Path) -> None:
    """Fill every slot with a job that never ends, and wait to be killed."""
    jobs = JobRunner(file, queues={"default": SLOTS})
    for_ever = asyncio.Event()
    riding = asyncio.Semaphore(0)

    @jobs.task(timeout=None)
    async def ride(number: int) -> None:
        riding.release()
        await for_ever.wait()

    async with jobs.running():
        await jobs.enqueue_many([ride.call(number) for number in range(SLOTS)])
        for _ in range(SLOTS):
            await riding.acquire()
        say("riding")
        await for_ever.wait()


async def heir(file: Path) -> None:
    """Run the jobs that a dead process has left, and say when the last of them had begun."""
    jobs = JobRunner(file, queues={"default": SLOTS})
    began: asyncio.Queue[float] = asyncio.Queue()

    @jobs.task(timeout=None)
    async def ride(number: int) -> None:
        began.put_nowait(time.time())

    opening = time.time()
    async with jobs.running():
        say("open", opening=opening)
        last = max([await began.get() for _ in range(SLOTS)])
        say("resumed", at=last)


def serve(file: Path) -> None:
    """Serve a trivial route beside jobs that wait in a paused queue until ``POST /go``."""
    workload = Workload(file, slots=100)
    app = FastAPI(lifespan=workload.jobs.lifespan)

    @app.get("/ping")
    async def ping() -> dict[str, int]:
        return {"done": workload.calls}

    @app.post("/go")
    async def go() -> None:
        await workload.jobs.queues.resume("default")

    # With its protocol named: on a socket without, asyncio leaves Nagle's algorithm on, and answers take 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    say("listening", port=listener.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    server.run(sockets=[listener])


async def rated(file: Path, rate: int, keys: int) -> None:
    """Work at a rate, and wait to be killed."""
    jobs, _ = rated_runner(file, rate, keys)
    async with jobs.running():
        say("open")
        await asyncio.Event().wait()


def main() -> None:
    """Play the role that the command line names."""
    logging.basicConfig(level=logging.ERROR)
    role, file, *more = sys.argv[1:]
    match role:
        case "idle":
            asyncio.run(idle(Path(file), float(more[0])))
        case "victim":
            asyncio.run(victim(Path(file)))
        case "heir":
            asyncio.run(heir(Path(file)))
        case "rated":
            asyncio.run(rated(Path(file), int(more[0]), int(more[1])))
        case "serve":
            serve(Path(file))
        case _:
            sys.exit(f"no role {role!r}")


if __name__ == "__main__":
    main()
