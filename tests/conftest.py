"""Fixtures of all tests: a frozen clock, a database file, checks for leaked threads, tasks and processes."""

import asyncio
import gc
import inspect
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from freezegun.api import FrozenDateTimeFactory
from hypothesis import HealthCheck, settings

from jobrunner import JobRunner
from jobrunner.core.logs import repeats
from jobrunner.store.sqlite import SqliteStore, connection
from tests.support import division, forks
from tests.support import postgres as postgres_servers
from tests.support.clocks import freeze
from tests.support.marking import starts_processes

OURS = ("_connection_worker_thread", "jobrunner")
"""Parts of the names of aiosqlite's threads and of our own, which are daemons and still count as left behind."""

GOODBYE_S = 2.0
"""The time that a stopping thread has until it counts as left behind."""

MEMORY = Path("/dev/shm")  # noqa: S108 - pytest makes the directory, with rights for its user alone
ROOM = 2**30
"""Bytes that must be free there: some tests write large files."""

LOG_BYTES = connection.LOG_BYTES
"""The value outside of the tests."""

COLLECT_AFTER = 10_000
"""New objects after which the collector runs on the youngest generation; Python's default is 700."""

STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}
"""The audit events of a process that starts. Source: the audit events table of the library reference."""


collect_ignore_glob = [] if postgres_servers.is_wanted() else ["*/test_postgres_*.py"]

# Properties are no measurements: a machine with other work on it may take its time for an example.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that repeat a run, shorten it, shuffle it, or keep its files on the disk."""
    parser.addoption(
        "--seed", type=int, help="of random numbers in tests, such as the moment of a kill -9"
    )
    parser.addoption(
        "--cases", type=int, help="run at most N cases of each test; applies to whole runs alone"
    )
    parser.addoption("--rest", action="store_true", help="run what --cases leaves out")
    parser.addoption("--shuffle", action="store_true", help="run in an order that the seed draws")
    parser.addoption("--disk", action="store_true", help="keep the tests' files on the disk")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the seed, choose the directory of the files, and set up the process."""
    started_with: dict[str, Any] = getattr(config, "workerinput", {})
    if config.option.seed is None:
        config.option.seed = started_with.get("seed", random.randrange(2**32))
    config.option.cases = started_with.get("cases", division.cases(config))
    if not config.option.disk and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        # Tests spend most of their time in syncs of the disk, and no power is cut here.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    # No plugin is in use here, and the search for them takes a fifth of what a process needs to start.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    if postgres_servers.is_wanted():
        postgres_servers.reserve()


def pytest_unconfigure() -> None:
    """Stop the PostgreSQL server that the run has started."""
    postgres_servers.release()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass options to a process of pytest-xdist, which otherwise gets only the command line."""
    node.workerinput["seed"] = node.config.option.seed
    node.workerinput["cases"] = node.config.option.cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test with the mark ``each_store`` on every kind of store."""
    if (
        metafunc.definition.get_closest_marker("each_store") is not None
        and "store_url" in metafunc.fixturenames
        and postgres_servers.is_wanted_everywhere()
    ):
        metafunc.parametrize("store_url", ["sqlite", "postgres"], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that start processes, leave out those of another run, and order the others."""
    for item in items:
        if starts_processes(item):
            item.add_marker("process")
        # A second store doubles the suite, and what it alone breaks is found by the rest.
        if "postgres" in item.nodeid:
            item.add_marker("rest")
    if config.option.cases is not None:
        division.divide(config, items)
    if config.option.shuffle:
        _shuffle(items, random.Random(config.option.seed))
    # At the end, a core would wait for the other one's slow test.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _shuffle(items: list[pytest.Item], dice: random.Random) -> None:
    """Shuffle the modules, and the tests of each module.

    Tests of a module stay together, and so do those with a browser, since each return to them would make their fixtures
    anew.
    """
    together: dict[Path, dict[Path, list[pytest.Item]]] = {}
    for item in items:
        place = item.path.parent if item.get_closest_marker("browser") else item.path
        together.setdefault(place, {}).setdefault(item.path, []).append(item)
    items.clear()
    for modules in dice.sample(list(together.values()), len(together)):
        for tests in dice.sample(list(modules.values()), len(modules)):
            items += dice.sample(tests, len(tests))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Exclude the loaded tests and modules from garbage collection, since they outlive every test.

    Otherwise each full collection walks all of them, which takes a tenth of the suite's time.
    """
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the seed, also after a run without failures, and what was not tested."""
    skipped = [
        report
        for report in terminalreporter.getreports("skipped")
        if postgres_servers.NONE_INSTALLED in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests of the store on PostgreSQL did not run: {postgres_servers.NONE_INSTALLED}",
            red=True,
        )
    terminalreporter.write_line(f"seed {config.option.seed} (repeat with --seed)")
    said = division.summary(config)
    if said is not None:
        terminalreporter.write_line(said)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of this run."""
    drawn: int = request.config.option.seed
    return drawn


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """Return for how long a test goes on with its rounds; it runs again, for longer, in the rest of a divided run."""
    return division.seconds(request.config)


@pytest.fixture(autouse=True, scope="session")
def handle_sigint() -> None:
    """Let processes that tests start handle SIGINT, which a shell's ``&`` makes the suite ignore."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def start_fork_server(request: pytest.FixtureRequest) -> None:
    """Start the fork server ahead of the first test that needs it, since its imports take a second."""
    if any(item.get_closest_marker("process") for item in request.session.items):
        forks.server()


@pytest.fixture(autouse=True, scope="session")
def preallocate_no_log() -> Iterator[None]:
    """Open stores without preallocating eight megabytes of log, which takes longer than most tests.

    Processes that tests start preallocate it, and so do tests with ``room_in_log``.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "LOG_BYTES", 0)
        yield


@pytest.fixture
def room_in_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stores preallocate their logs, as they do outside of the tests."""
    monkeypatch.setattr(connection, "LOG_BYTES", LOG_BYTES)


class Processes:
    """Records the processes that this one starts, with one audit hook, since a hook cannot be removed."""

    def __init__(self) -> None:
        self.started: list[str] = []
        sys.addaudithook(self._note)

    def _note(self, event: str, args: tuple[object, ...]) -> None:
        if event in STARTS:
            self.started.append(f"{event} {args[:2]}")


@pytest.fixture(scope="session")
def processes() -> Processes:
    """Return the recorder of started processes."""
    return Processes()


@pytest.fixture(autouse=True)
def start_processes_only_if_marked(
    request: pytest.FixtureRequest, processes: Processes
) -> Iterator[None]:
    """Fail a test that starts a process without the mark ``process``, which `just quick` leaves out."""
    processes.started.clear()
    yield
    if request.node.get_closest_marker("process") is None:
        assert not processes.started, f"not marked as `process`: {processes.started}"


@pytest.fixture(autouse=True)
def count_log_lines_anew() -> None:
    """Forget the log lines of earlier tests, so that no flood carries over."""
    repeats.end()


@pytest.fixture(autouse=True)
def leave_no_thread_behind() -> Iterator[None]:
    """Fail a test that leaves a thread which keeps the process or a connection open."""
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
    """Freeze the wall clock at ``tests.support.clocks.MOMENT``; ``frozen.tick(seconds)`` moves it. See ``freeze``."""
    with freeze() as clock:
        yield clock


@pytest.fixture(scope="session")
def blank_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of an empty store's file, which takes longer to make than most tests."""
    path = tmp_path_factory.mktemp("blank") / "jobs.db"

    async def make() -> None:
        store = SqliteStore(path)
        await store.open()
        await store.close()

    asyncio.run(make())
    return path.read_bytes()


@pytest.fixture(scope="session")
def postgres(processes: Processes) -> postgres_servers.Databases:
    """Return a maker of databases on the run's PostgreSQL server.

    Where ``CI`` is set, the tests fail if the machine has none; elsewhere they are skipped, which the summary says.
    """
    try:
        url = postgres_servers.server()
    except postgres_servers.NoServer as missing:
        if "CI" in os.environ:
            raise
        pytest.skip(str(missing))
    # It is the run's, not that of the test that needed it first.
    processes.started.clear()
    return postgres_servers.Databases(url)


@pytest.fixture
def postgres_url(postgres: postgres_servers.Databases) -> Iterator[str]:
    """Return the URL of a database with an empty store."""
    with postgres.new() as url:
        yield url


@pytest.fixture
def bare_postgres_url(postgres: postgres_servers.Databases) -> Iterator[str]:
    """Return the URL of a database without any table."""
    with postgres.bare() as url:
        yield url


@pytest.fixture
def new_db(tmp_path: Path) -> Path:
    """Return the path of a database file that does not exist yet, in ``tmp_path``."""
    return tmp_path / "jobs.db"


@pytest.fixture
def tmp_db(new_db: Path, blank_store: bytes) -> Path:
    """Write the file of an empty store to ``tmp_path``, and return its path."""
    new_db.write_bytes(blank_store)
    return new_db


@pytest.fixture
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of an empty store; tests with the mark ``each_store`` run once on each kind."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield f"sqlite:///{request.getfixturevalue('tmp_db')}"
        return
    with pytest.MonkeyPatch.context() as patch:
        # What a test kills is dead at once: the checks are apart for what is only cut off.
        for name in ("LOOKS_APART_S", "RESTART_GRACE_S"):
            patch.setattr(f"jobrunner.store.postgres.workers.{name}", 0)
        yield request.getfixturevalue("postgres_url")


@pytest.fixture
def jobs(store_url: str) -> JobRunner:
    """Return a runner with default settings, not yet open."""
    return JobRunner(store_url)
