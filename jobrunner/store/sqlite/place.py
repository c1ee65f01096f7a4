"""Where a store may lie: what its URL names, and what the library and the file system must be able to do."""

import os
import re
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from jobrunner.errors import ConfigurationError, StoreUnavailable, StoreUnsupported
from jobrunner.logs import log_of
from jobrunner.store.sqlite.files import container_layer, network_file_system

logger = log_of("jobrunner")

MINIMUM_SQLITE: Final = (3, 37, 0)
"""STRICT tables."""

ON_CONTAINER_LAYER: Final = (
    "lies on a container's own layer (%s) and goes with the container: mount a volume there"
)


_SCHEMES: Final = ("sqlite", "sqlite+aiosqlite", "sqlite+pysqlite")
"""SQLAlchemy's names for drivers of the same file, so that an application can keep one URL for both."""
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][\w.+-]*)://|(?P<short>sqlite(?:\+\w+)?):")


def path_of(store: str | os.PathLike[str]) -> Path:
    """Return the absolute path that a store's URL or path names.

    Args:
        store: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a path.

    Raises:
        ConfigurationError: another database, or none at all.
    """
    text = os.fspath(store) if isinstance(store, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise ConfigurationError(
            f'store={store!r} is neither a URL nor a path: write JobRunner("sqlite:///jobs.db")'
        )
    if not text.startswith("file:") and (url := _URL.match(text)):
        text = _named_by_url(text, url)
    if text in {"", ":memory:"} or text.startswith("file:"):
        raise ConfigurationError(_not_a_file(text))
    return Path(text).expanduser().absolute()


def _named_by_url(text: str, url: re.Match[str]) -> str:
    """Return the path in a URL, or what stands for a database in memory."""
    scheme, rest = url["scheme"] or url["short"], text[url.end() :]
    if scheme not in _SCHEMES:
        raise ConfigurationError(
            f"jobrunner cannot store jobs in {scheme!r} yet: write sqlite:///jobs.db"
        )
    if rest.removeprefix("/").startswith("file:"):
        return rest.removeprefix("/")
    rest, question, options = rest.partition("?")
    if rest and url["short"] is not None:
        raise ConfigurationError(f"{text!r} lacks slashes: write {_line(rest)}")
    if rest and not rest.startswith("/"):
        raise ConfigurationError(
            f"{text!r} lacks a slash: write {_line(rest)} for a file below the working directory,"
            f" {_line('/' + rest)} for one below the root"
        )
    if question:
        raise ConfigurationError(
            f"the URL of a store takes no options, jobrunner sets SQLite's itself: write {_line(rest[1:])}"
            f" without ?{options}"
        )
    return rest[1:]


def _not_a_file(text: str) -> str:
    """Return what is wrong with a URI of SQLite's own, and with a database in memory."""
    uri = urlsplit(text)
    name = unquote(uri.path)
    if name in {"", ":memory:"} or "mode=memory" in uri.query:
        return (
            "a queue in memory would lose its jobs with the process: write sqlite:///jobs.db, in a test"
            ' JobRunner(tmp_path / "jobs.db")'
        )
    return f"{text!r} is a URI of SQLite's own: write {_line(name)}"


def _line(path: str) -> str:
    return f"sqlite:///{path}"


def check_place(path: Path) -> None:
    """Make sure that a store can lie at the path.

    Raises:
        StoreUnavailable: there is no such directory, the path is one or a device, or nobody may look there.
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
