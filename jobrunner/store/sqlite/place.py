"""Where a store may lie: what its URL names, and what the library and the file system must be able to do."""

import logging
import os
import sqlite3
from pathlib import Path
from typing import Final

from jobrunner.errors import ConfigurationError, StoreUnavailable, StoreUnsupported
from jobrunner.store.sqlite.files import container_layer, network_file_system

logger = logging.getLogger("jobrunner")

MINIMUM_SQLITE: Final = (3, 37, 0)
"""STRICT tables."""

ON_CONTAINER_LAYER: Final = (
    "lies on a container's own layer (%s) and goes with the container: mount a volume there"
)


def path_of(store: str | os.PathLike[str]) -> Path:
    """Return the absolute path of the file that a store's URL or path names, through symbolic links.

    SQLite keeps its log beside the file that a link leads to, and so must the locks lie there: two processes that come
    by two names would not see each other.

    Args:
        store: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a path.

    Raises:
        ConfigurationError: another database, or none at all.
    """
    text = os.fspath(store)
    scheme, separator, rest = text.partition("://")
    if separator:
        if scheme not in {"sqlite", "sqlite+aiosqlite"}:
            raise ConfigurationError(
                f"jobrunner cannot store jobs in {scheme!r} yet; write sqlite:///jobs.db"
            )
        if not rest.startswith("/") or "?" in rest:
            raise ConfigurationError(
                f"{text!r} is not a store; write sqlite:///relative.db or sqlite:////absolute.db"
            )
        text = rest[1:]
    if text in {"", ":memory:"} or text.startswith("file:"):
        raise ConfigurationError(
            "a queue in memory would lose its jobs with the process; name a file: sqlite:///jobs.db"
        )
    return Path(os.path.realpath(Path(text).expanduser()))


def check_place(path: Path) -> None:
    """Make sure that a store can lie at the path.

    Raises:
        StoreUnavailable: there is no such directory, the path is one, a device or a link to itself, or nobody may look
            there.
        StoreUnsupported: it lies on a network file system, or this Python's SQLite is too old.
    """
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        wanted = ".".join(map(str, MINIMUM_SQLITE))
        raise StoreUnsupported(
            f"this Python's SQLite is {sqlite3.sqlite_version}, jobrunner needs {wanted}"
        )
    try:
        _check_kind(path)
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be looked at ({error.strerror}); check the owners and modes of the directories above it"
        ) from error
    if kind := network_file_system(path):
        raise StoreUnsupported(
            f"{path} lies on a network file system ({kind}), where SQLite's log cannot be shared safely;"
            " put it on a local disk"
        )


def _check_kind(path: Path) -> None:
    if os.path.islink(path):
        # What ``path_of`` cannot follow to its end.
        raise StoreUnavailable(f"{path} is a link that leads back to itself; name a file")
    if not path.parent.is_dir():
        raise StoreUnavailable(
            f"{path.parent} is not a directory; make it first, or name another store"
        )
    if path.is_dir():
        raise StoreUnavailable(f"{path} is a directory; name a file in it")
    if path.exists() and not path.is_file():
        # SQLite would wait for ever for the other end of a pipe.
        raise StoreUnavailable(f"{path} is no ordinary file; name another")


def warn_of_layer(path: Path) -> None:
    """Warn if the store lies where it will not last."""
    if kind := container_layer(path):
        logger.warning("%s %s", path, ON_CONTAINER_LAYER % kind)
