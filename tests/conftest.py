"""What every test gets: the check that it left nothing running, a frozen clock, a place for a database."""

import asyncio
import inspect
import random
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from freezegun.api import FrozenDateTimeFactory

from jobrunner.core.logs import repeats
from tests.support.clocks import freeze

OURS = ("_connection_worker_thread", "jobrunner")
"""Parts of the names of aiosqlite's threads and of our own, which are daemons and count as left behind all the same."""

GOODBYE_S = 2.0
"""How long a thread that has been told to end may take to do so."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run be repeated with what it drew."""
    parser.addoption("--seed", type=int, help="of what the rounds of kill -9 and the like draw")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed in the process that was started; those of pytest-xdist get its options."""
    if config.option.seed is None:
        config.option.seed = random.randrange(2**32)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say which seed it was, also when all is well."""
    terminalreporter.write_line(f"seed {config.option.seed} (repeat with --seed)")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of this run."""
    drawn: int = request.config.option.seed
    return drawn


@pytest.fixture(autouse=True, scope="session")
def hear_sigint() -> None:
    """Let the processes that tests start hear SIGINT also where the suite itself must not: behind a shell's ``&``."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def count_log_lines_anew() -> None:
    """Let no test's log lines make those of the next one a flood."""
    repeats.end()


@pytest.fixture(autouse=True)
def leave_no_thread_behind() -> Iterator[None]:
    """Fail a test after which a thread still runs that would keep the process, or a connection, open."""
    before = set(threading.enumerate())
    yield
    left = [
        thread for thread in threading.enumerate() if thread not in before and _is_a_leak(thread)
    ]
    for thread in left:
        thread.join(GOODBYE_S)
    left = [thread for thread in left if thread.is_alive()]
    assert not left, f"threads left behind: {left}"


def _is_a_leak(thread: threading.Thread) -> bool:
    return not thread.daemon or any(name in thread.name for name in OURS)


@pytest.fixture(autouse=True)
def leave_no_task_behind(
    leave_no_thread_behind: None,  # torn down before it, while the test's loop is still there
    request: pytest.FixtureRequest,
) -> None:
    """Fail an async test after which a task still runs on its loop."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("_no_task_left")


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    yield
    # Callbacks of what the test has just closed may still be on their way.
    await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop, not a wait
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"


@pytest.fixture
def frozen() -> Iterator[FrozenDateTimeFactory]:
    """Hold the wall clock at ``tests.support.clocks.MOMENT``; ``frozen.tick(seconds)`` moves it. See ``freeze``."""
    with freeze() as clock:
        yield clock


@pytest.fixture
def tmp_db(tmp_path: Path) -> Path:
    """Name a database file that is not there yet, in a directory of the test's own."""
    return tmp_path / "jobs.db"
