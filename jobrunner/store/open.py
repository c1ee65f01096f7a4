"""Opens the store of a URL.

No other module above ``store.sqlite`` knows the supported databases.
"""

import os
from collections.abc import Callable, Sequence

from jobrunner.store.findings import Finding
from jobrunner.store.protocol import FileStore
from jobrunner.store.sqlite.host.location import path_of, warn_of_layer
from jobrunner.store.sqlite.maintenance.read_only import require_store
from jobrunner.store.sqlite.store import SqliteStore


def location_of(url: str | os.PathLike[str]) -> str:
    """Return the location of a store, for messages.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a path.

    Raises:
        ConfigurationError: The URL names no database that jobrunner supports.
    """
    return str(path_of(url))


async def open_store(
    url: str | os.PathLike[str], *, durability: str, must_exist: bool = False
) -> FileStore:
    """Open the store of a URL or path; the caller closes it.

    Args:
        url: see ``location_of``.
        durability: ``"full"`` syncs at each commit; ``"normal"`` may lose the last commits at a power cut.
        must_exist: raise if the store does not exist or needs a migration.

    Raises:
        ConfigurationError: The URL names no database that jobrunner supports.
        StoreError: The store cannot be used; the message says why.
    """
    store = SqliteStore(url, durability=durability)
    if must_exist:
        require_store(store.path)
    await store.open()
    warn_of_layer(store.path)
    return store


def diagnose(
    url: str | os.PathLike[str], *, now: Callable[[], int], deep: bool, engines: bool
) -> Sequence[Finding]:
    """Check a store without changing it; the store may be in use.

    Args:
        url: see ``location_of``.
        now: returns the current time, in µs.
        deep: also read every page.
        engines: also check the SQLAlchemy engines that this process has created for the file.
    """
    # Imported here: only commands need it, and the import takes a tenth of an application's start.
    from jobrunner.store.sqlite.maintenance import doctor, engine_check  # noqa: PLC0415

    path = path_of(url)
    found = list(doctor.diagnose(path, now=now, deep=deep))
    return [*found, *engine_check.findings(path)] if engines else found
