"""One PostgreSQL server for a run of the tests, shared by all of its processes, and databases on it.

The first test that needs a server starts it, under a lock, in the directory that ``reserve`` has named; the process
that began the run stops it.  The server refuses root, so as root it runs as ``postgres`` or ``nobody``.
"""

import asyncio
import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg

from tests.support.ports import free_port

DIRECTORY: Final = "JOBRUNNER_TEST_POSTGRES"
"""The variable that names the directory of the run's server."""
BINARIES: Final = "JOBRUNNER_TEST_POSTGRES_BIN"
"""The variable that names a directory with the server's programs; by default Debian's."""
SCOPE: Final = "JOBRUNNER_TEST_ON_POSTGRES"
"""The variable that says how much is tested on PostgreSQL: ``none``, ``all``, or by default what is about its store."""
_PREFIX: Final = "jr-pg-"
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the directory is made with rights for its user alone
_PATIENCE_S: Final = 30
_GRACE_S: Final = 5.0
"""``RESTART_GRACE_S``, which tests set to 0 in their own process."""
_ENV: Final = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
_QUICK: Final = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
"""Settings of tests: no power is cut here. Measurements use none of them."""


def is_wanted() -> bool:
    """Return whether the run tests the store on PostgreSQL, as it does by default."""
    return os.environ.get(SCOPE) != "none"


def is_wanted_everywhere() -> bool:
    """Return whether the tests with the mark ``each_store`` run on it too: `just test-postgres`."""
    return os.environ.get(SCOPE) == "all"


NONE_INSTALLED: Final = "no PostgreSQL server is installed: `apt-get install postgresql` brings one"


class NoServer(Exception):
    """The machine has no PostgreSQL server."""


def binaries() -> Path:
    """Return the directory of the server's programs.

    Raises:
        NoServer: There is none.
    """
    named = os.environ.get(BINARIES)
    places = [Path(named)] if named else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for place in reversed(places):
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise NoServer(NONE_INSTALLED)


def reserve() -> None:
    """Name the directory of this run's server, and stop the servers of runs that were killed."""
    if DIRECTORY in os.environ:
        return
    parent = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())
    for left in parent.glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX)
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            stop(left)
    os.environ[DIRECTORY] = str(parent / f"{_PREFIX}{os.getpid()}")


def release() -> None:
    """Stop the server of this run, if it has one; only the process that began the run does it."""
    directory = Path(os.environ.get(DIRECTORY, "/nowhere"))
    if directory.name == f"{_PREFIX}{os.getpid()}":
        del os.environ[DIRECTORY]
        stop(directory)


def stop(directory: Path) -> None:
    """Stop the server in a directory and remove it; does nothing if there is none."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        pid = int((directory / "data" / "postmaster.pid").read_text().split()[0])
        watched = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(watched, signal.SIGQUIT)
            _wait_for_end(watched)
        finally:
            os.close(watched)
    shutil.rmtree(directory, ignore_errors=True)


def _wait_for_end(pidfd: int) -> None:
    import select  # noqa: PLC0415 - only here

    select.select([pidfd], [], [], _PATIENCE_S)


def server() -> str:
    """Return the URL of the run's server without a database, starting the server if no other process has.

    Raises:
        NoServer: The machine has none.
    """
    programs = binaries()
    directory = Path(os.environ[DIRECTORY])
    directory.mkdir(mode=0o755, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        port = directory / "port"
        if not port.exists():
            number = start(programs, directory, _QUICK)
            asyncio.run(_outlast_start(f"postgresql://jobrunner@127.0.0.1:{number}/postgres"))
            port.write_text(str(number))
        return f"postgresql://jobrunner@127.0.0.1:{port.read_text()}"


async def _outlast_start(url: str) -> None:
    """Wait until workers that die are found, which they are not right after a start of the server."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(
            "SELECT pg_sleep_until(pg_postmaster_start_time() + make_interval(secs => $1))",
            _GRACE_S,
        )
    finally:
        await connection.close()


def start(programs: Path, directory: Path, settings: Sequence[str]) -> int:
    """Start a server in a directory, and return its port once it takes connections.

    Args:
        programs: the directory of its programs.
        directory: an existing directory; the files lie in ``data`` below it.
        settings: more settings, as ``name=value``.
    """
    data = directory / "data"
    make_directory(data)
    run_program(
        *(programs / "initdb", "-D", data, "-U", "jobrunner", "-A", "trust"),
        *("-E", "UTF8", "--no-sync", "--no-instructions"),
    )
    port = free_port()
    launch(programs, data, (f"port={port}", "listen_addresses=127.0.0.1", *settings))
    return port


def make_directory(path: Path) -> None:
    """Make a directory for the server's user."""
    path.mkdir(mode=0o700)
    if who := _unprivileged():
        os.chown(path, who["user"], who["group"])


def launch(programs: Path, data: Path, settings: Sequence[str], network: int | None = None) -> None:
    """Start the server of a data directory, and return once it takes connections.

    Args:
        programs: the directory of its programs.
        data: its files.
        settings: settings, as ``name=value``.
        network: a process in whose network it is to live; None for this one's.
    """
    given = ("max_connections=300", f"unix_socket_directories={data}", *settings)
    options = " ".join(f"-c {setting}" for setting in given)
    # pg_ctl waits until the server is ready, and leaves it running in a session of its own.
    run_program(
        *(programs / "pg_ctl", "start", "-s", "-w", "-t", str(_PATIENCE_S)),
        *("-D", data, "-l", data / "log", "-o", options),
        network=network,
    )


def run_program(*command: str | Path, network: int | None = None) -> None:
    """Run a program of the server as the server's user; see ``launch``."""
    who = dict(_unprivileged())
    inside: Sequence[str] = ()
    if network is not None:
        inside = (
            *("nsenter", "-t", str(network), "-n", "setpriv"),
            *(f"--reuid={who.pop('user')}", f"--regid={who.pop('group')}", "--clear-groups"),
        )
        who = {}
    subprocess.run(
        [*inside, *command],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # Inherited by the server, it would keep a pipe of the tests open.
        stderr=subprocess.DEVNULL,
        env=_ENV,
        cwd="/",
        **who,
    )


def _unprivileged() -> Mapping[str, Any]:
    """Return the arguments that run a program as somebody else than root; empty if this is not root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise NoServer("PostgreSQL refuses root, and this machine has neither `postgres` nor `nobody`")


_EMPTY: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
DO $$
DECLARE name text;
BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'jobrunner' AND tablename <> 'meta' LOOP
        EXECUTE format('DELETE FROM jobrunner.%I', name);
    END LOOP;
END $$;
DELETE FROM jobrunner.meta WHERE name <> 'schema_version';
"""


class Databases:
    """Lends databases on the server that each hold an empty store.

    A returned one is emptied and lent again: to make one takes 60 times as long, since the server writes a checkpoint
    for each.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._number = 0
        self._free: list[str] = []

    @contextlib.contextmanager
    def new(self) -> Iterator[str]:
        """Lend a database with an empty store; yield its URL."""
        name = self._free.pop() if self._free else self._create()
        yield f"{self._url}/{name}"
        self._run(name, _EMPTY)
        self._free.append(name)

    @contextlib.contextmanager
    def bare(self) -> Iterator[str]:
        """Make a database without any table, yield its URL, and drop it."""
        name = self._create(bare=True)
        try:
            yield f"{self._url}/{name}"
        finally:
            self._run("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    def _create(self, *, bare: bool = False) -> str:
        self._number += 1
        name = f"test_{os.getpid()}_{self._number}"
        self._run("postgres", f"CREATE DATABASE {name}")
        if not bare:
            # Imported here: a run without such tests need not have the driver's extra.
            from jobrunner.store.postgres.store import PostgresStore  # noqa: PLC0415

            async def fill() -> None:
                store = PostgresStore(f"{self._url}/{name}")
                await store.open()
                await store.close()

            asyncio.run(fill())
        return name

    def _run(self, database: str, statements: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(f"{self._url}/{database}")
            try:
                await connection.execute(statements)
            finally:
                await connection.close()

        asyncio.run(execute())
