"""Opens the store of a URL.

No other module above ``store.sqlite`` knows the supported databases.
"""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jobrunner.core.errors import ConfigurationError
from jobrunner.store.findings import Finding
from jobrunner.store.postgres import location as postgres
from jobrunner.store.protocol import Store
from jobrunner.store.sqlite.host.location import path_of, warn_of_layer
from jobrunner.store.sqlite.maintenance.contents import Contents, image_of, put_blank, read_all
from jobrunner.store.sqlite.maintenance.read_only import require_store
from jobrunner.store.sqlite.sessions.commits import GuardedCommits, Moment
from jobrunner.store.sqlite.sessions.guard import commits_seen
from jobrunner.store.sqlite.sql.task_writes import as_write
from jobrunner.store.sqlite.store import SqliteStore

__all__ = [
    "Contents",
    "GuardedCommits",
    "Moment",
    "as_write",
    "blank_store",
    "check_durability",
    "commits_seen",
    "diagnose",
    "image_of",
    "location_of",
    "open_store",
    "put_blank",
    "read_all",
]


def location_of(url: str | os.PathLike[str]) -> str:
    """Return the location of a store, for messages: a path, or a URL without its user and password.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, a path, or ``postgresql://host/database``.

    Raises:
        ConfigurationError: The URL names no database that jobrunner supports.
    """
    if postgres.is_postgres(url):
        return postgres.location_of(str(url)).name
    return str(path_of(url))


def check_durability(url: str | os.PathLike[str], durability: str) -> None:
    """Raise if the store of a URL does not have this durability.

    Raises:
        ConfigurationError: On PostgreSQL the server decides how durable a commit is.
    """
    if postgres.is_postgres(url) and durability != "full":
        raise ConfigurationError(
            f"durability={durability!r} is an option of SQLite files; on PostgreSQL leave it out, and to trade the last"
            " commits for speed write ALTER ROLE ... SET synchronous_commit = off"
        )


async def open_store(
    url: str | os.PathLike[str], *, durability: str = "full", must_exist: bool = False
) -> Store:
    """Open the store of a URL or path; the caller closes it.

    Args:
        url: see ``location_of``.
        durability: ``"full"`` syncs at each commit; of a SQLite file, ``"normal"`` may lose the last commits at a power
            cut, and ``"off"`` never syncs, for files of tests.
        must_exist: raise if the store does not exist or needs a migration.

    Raises:
        ConfigurationError: The URL names no database that jobrunner supports, its driver is not installed, or the
            database has no such durability.
        StoreError: The store cannot be used; the message says why.
    """
    if postgres.is_postgres(url):
        check_durability(url, durability)
        return await _open_postgres(str(url), must_exist=must_exist)
    store = SqliteStore(url, durability=durability)
    if must_exist:
        require_store(store.path)
    await store.open()
    warn_of_layer(store.path)
    return store


async def _open_postgres(url: str, *, must_exist: bool) -> Store:
    postgres.location_of(url)  # raises if the URL cannot be used, whatever is installed
    try:
        # Imported here: the driver is an extra, and a process on SQLite does not need it.
        from jobrunner.store.postgres.store import PostgresStore  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _driver_missing(error) from error
    store = PostgresStore(url, must_exist=must_exist)
    await store.open()
    return store


def _driver_missing(error: ModuleNotFoundError) -> Exception:
    """Return the error to raise after an import for PostgreSQL has failed."""
    if error.name != "asyncpg":
        return error
    return ConfigurationError(
        "jobs in PostgreSQL need asyncpg: write pip install 'fastapi-jobrunner[postgres]'"
    )


async def blank_store() -> bytes:
    """Return the bytes of a blank store's file, for ``put_blank``."""
    with tempfile.TemporaryDirectory(prefix="jobrunner-") as folder:
        path = Path(folder) / "blank.db"
        store = await open_store(path, durability="off")
        await store.close()
        return path.read_bytes()


def diagnose(
    url: str | os.PathLike[str],
    *,
    now: Callable[[], int],
    deep: bool,
    lanes: Mapping[str, Callable[[str], str | None]] | None,
) -> Sequence[Finding]:
    """Check a store without changing it; the store may be in use.

    Args:
        url: see ``location_of``.
        now: returns the current time, in µs.
        deep: also read every page.
        lanes: of each task of the loaded application, by its stored names, the function that computes a job's lane from
            its stored arguments.  The lanes of waiting jobs are checked, and the SQLAlchemy engines that this process
            has created for the file.  None if no application is loaded.
    """
    if postgres.is_postgres(url):
        return _diagnose_postgres(str(url), now, lanes)
    # Imported here: only commands need it, and the import takes a tenth of an application's start.
    from jobrunner.store.sqlite.maintenance import (  # noqa: PLC0415
        doctor,
        engine_check,
        lane_check,
    )

    path = path_of(url)
    found = list(doctor.diagnose(path, now=now, deep=deep))
    if lanes is None:
        return found
    return [*found, *lane_check.findings(path, lanes), *engine_check.findings(path)]


def _diagnose_postgres(
    url: str, now: Callable[[], int], lanes: Mapping[str, Callable[[str], str | None]] | None
) -> Sequence[Finding]:
    postgres.location_of(url)
    try:
        from jobrunner.store.postgres import doctor  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise _driver_missing(error) from error
    return doctor.diagnose(url, now=now, lanes=lanes)
