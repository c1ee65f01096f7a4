"""The parts of a shutdown: signals, grace, and the names of stuck threads."""

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, SimpleNamespace

import pytest

from jobrunner import JobRunner
from jobrunner.runner.shutdown import chain, is_reloading
from jobrunner.worker import thread_pool
from jobrunner.worker.grace import Grace
from tests.support.engine import Gate, soon, worker_of

pytestmark = pytest.mark.each_store


@pytest.fixture
def handlers() -> Iterator[list[int]]:
    """Install handlers of both signals, yield the signals they received, and restore the old handlers."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heard: list[int] = []
    for number in before:
        signal.signal(number, lambda number, _: heard.append(number))
    yield heard
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        ([signal.SIGINT], ["begin"]),
        ([signal.SIGTERM, signal.SIGTERM], ["begin", "begin"]),
        ([signal.SIGINT, signal.SIGINT], ["begin", "hurry", "begin"]),
        ([signal.SIGTERM, signal.SIGINT], ["begin", "hurry", "begin"]),
    ],
)
def test_interrupt_after_a_first_signal_hurries(
    handlers: list[int], signals: list[signal.Signals], said: list[str]
) -> None:
    calls: list[str] = []
    heard: set[int] = set()
    restore = chain(lambda: calls.append("begin"), lambda: calls.append("hurry"), heard)
    for number in signals:
        signal.raise_signal(number)
    restore()
    assert calls == said
    assert handlers == signals
    assert heard == set(signals)


async def test_second_interrupt_ends_the_attempts_of_an_open_runner(
    store_url: str, handlers: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    jobs, gate = JobRunner(store_url, grace=3600), Gate()

    @jobs.task
    async def hold() -> None:
        await gate.enter()

    leave = asyncio.Event()

    async def be_open() -> str:
        async with jobs.running():
            job = await jobs.enqueue(hold)
            await gate.arrival()
            leave.set()
        return job.id

    opened = asyncio.create_task(be_open())
    await soon(leave.wait())
    signal.raise_signal(signal.SIGTERM)
    # The block is left, and its end waits for the attempt.
    await asyncio.wait([opened], timeout=0.3)
    assert not opened.done()
    signal.raise_signal(signal.SIGINT)
    id = await soon(opened)
    assert handlers == [signal.SIGTERM, signal.SIGINT]
    (said,) = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert said == f"the process shuts down: 1 attempt(s) get 3600 s to end: hold {id}"
    async with jobs.running(work=False):
        assert (await jobs.get(id)).state == "queued"


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("reload", [False, True])
async def test_runner_under_a_reloading_server_gives_no_grace(
    store_url: str, handlers: list[int], reload: bool, nested: bool
) -> None:
    """Of two runners the second finds the first one's handler in the server's place."""

    class Server:
        config = SimpleNamespace(reload=reload)

        def handle_exit(self, number: int, frame: FrameType | None) -> None: ...

    signal.signal(signal.SIGTERM, Server().handle_exit)
    undo: Callable[[], None] = chain(list, list, set()) if nested else lambda: None
    assert is_reloading() is reload
    jobs = JobRunner(store_url, grace=7)
    async with jobs.running():
        assert worker_of(jobs)._grace.seconds == (0 if reload else 7)
    undo()


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN, lambda *_: None])
def test_other_handlers_are_no_reloading_server(handlers: list[int], handler: object) -> None:
    signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]
    assert not is_reloading()


async def test_cut_grace_ends_every_wait_and_those_that_begin_later() -> None:
    grace = Grace(3600)
    ended: list[int] = []

    async def wait(number: int) -> None:
        try:
            async with grace.limit():
                await asyncio.Event().wait()
        except TimeoutError:
            ended.append(number)

    waits = [asyncio.create_task(wait(number)) for number in range(2)]
    await asyncio.wait(waits, timeout=0.05)
    assert ended == []
    grace.cut()
    await soon(asyncio.gather(*waits))
    await soon(wait(2))
    assert sorted(ended) == [0, 1, 2]


async def test_threads_in_a_call_are_named_and_idle_ones_are_not() -> None:
    entered, leave = threading.Event(), threading.Event()

    def block_here() -> None:
        entered.set()
        leave.wait()

    await asyncio.to_thread(int)
    assert thread_pool.at_work() == []
    call = asyncio.create_task(asyncio.to_thread(block_here))
    await asyncio.to_thread(entered.wait)
    (said,) = [one for one in thread_pool.at_work() if "block_here" in one]
    assert said.startswith("asyncio_")
    assert f"block_here ({__file__}:" in said
    leave.set()
    await call
