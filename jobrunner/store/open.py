"""Opens the store that a URL names; no other module above ``store.sqlite`` knows which databases there are."""

import os
from collections.abc import Callable, Sequence

from jobrunner.store.findings import Finding
from jobrunner.store.protocol import FileStore
from jobrunner.store.sqlite.host.location import path_of, warn_of_layer
from jobrunner.store.sqlite.maintenance.read_only import require_store
from jobrunner.store.sqlite.store import SqliteStore


def location_of(url: str | os.PathLike[str]) -> str:
    """Return where the store of a URL or path lies, as messages name it.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a path.

    Raises:
        ConfigurationError: it names no database that jobrunner can use.
    """
    return str(path_of(url))


async def open_store(
    url: str | os.PathLike[str], *, durability: str, must_exist: bool = False
) -> FileStore:
    """Open the store of a URL or path; the caller closes it.

    Args:
        url: see ``location_of``.
        durability: ``"full"`` syncs at each commit, ``"normal"`` may lose the last commits at a power cut.
        must_exist: make no store and migrate none.

    Raises:
        ConfigurationError: it names no database that jobrunner can use.
        StoreError: the store cannot be used; the message says why.
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
    """Check the store of a URL or path, in use or stopped, without changing it.

    Args:
        url: see ``location_of``.
        now: returns the present, in µs.
        deep: also read every page.
        engines: also check the SQLAlchemy engines that this process has made on it.
    """
    # Imported here: only commands ask, and it takes a tenth of the start of an application.
    from jobrunner.store.sqlite.maintenance import doctor, engine_check  # noqa: PLC0415

    path = path_of(url)
    found = list(doctor.diagnose(path, now=now, deep=deep))
    return [*found, *engine_check.findings(path)] if engines else found
