"""Resolves the URL of a store and checks its path, file system and permissions."""

import contextlib
import errno
import os
import re
import shlex
import sqlite3
import stat
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from jobrunner.core.errors import ConfigurationError, StoreUnavailable, StoreUnsupported
from jobrunner.core.logs import log_of
from jobrunner.store.sqlite.host.identity import container_layer, network_file_system
from jobrunner.store.sqlite.host.record_locks import give_away

logger = log_of("jobrunner")

MINIMUM_SQLITE: Final = (3, 37, 0)
"""The first version with STRICT tables."""

ON_CONTAINER_LAYER: Final = (
    "lies on a container's own layer (%s) and goes with the container: mount a volume there"
)


_SCHEMES: Final = ("sqlite", "sqlite+aiosqlite", "sqlite+pysqlite")
"""Includes SQLAlchemy's driver names, so that an application can use one URL for both."""
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][\w.+-]*)://|(?P<short>sqlite(?:\+\w+)?):")


def path_of(store: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a store's file, with symbolic links resolved.

    SQLite keeps its log beside the link's target, and the locks must lie there too: otherwise two processes that use
    different names would not see each other's locks.

    Args:
        store: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a path.

    Raises:
        ConfigurationError: The URL names another kind of database, or no file.
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
    return Path(os.path.realpath(Path(text).expanduser()))


def _named_by_url(text: str, url: re.Match[str]) -> str:
    """Return the path in a URL; empty or ``:memory:`` for a database in memory."""
    scheme, rest = url["scheme"] or url["short"], text[url.end() :]
    if scheme not in _SCHEMES:
        raise ConfigurationError(
            f"jobrunner cannot store jobs in {scheme!r}: write sqlite:///jobs.db or postgresql://host/database"
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
    """Return the error message for a SQLite URI or a database in memory."""
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
    """Check that a store can lie at the path.

    Raises:
        StoreUnavailable: The directory does not exist or is not accessible, or the path is a directory, a device or a
            link to itself.
        StoreUnsupported: The path is on a network file system, or this Python's SQLite is too old.
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
            f"{path} cannot be accessed ({error.strerror}); check the owners and modes of the directories above it"
        ) from error
    if kind := network_file_system(path):
        raise StoreUnsupported(
            f"{path} lies on a network file system ({kind}), where SQLite's log cannot be shared safely;"
            " put it on a local disk"
        )


def _check_kind(path: Path) -> None:
    if os.path.islink(path):
        # ``path_of`` has resolved all other links.
        raise StoreUnavailable(f"{path} is a link that leads back to itself; name a file")
    if not path.parent.is_dir():
        raise StoreUnavailable(
            f"{path.parent} is not a directory; make it first, or name another store"
        )
    if path.is_dir():
        raise StoreUnavailable(f"{path} is a directory; name a file in it")
    if path.exists() and not path.is_file():
        # For example a pipe: SQLite would wait for its other end for ever.
        raise StoreUnavailable(f"{path} is not a regular file; name another")


def create(path: Path) -> None:
    """Create an empty file with mode 0600 if there is none; SQLite gives its log the same mode.

    Raises:
        OSError: The file cannot be created.
    """
    # Not by the umask, which belongs to the whole process. And not by open() where mknod() works: closing any
    # descriptor of the file drops SQLite's locks on it, and an engine of this process may already use the file.
    try:
        os.mknod(path, stat.S_IFREG | 0o600)
    except FileExistsError:
        return
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        # On this system (macOS) only root may call mknod.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def folder_of(path: Path) -> Path:
    """Return the folder beside a database that holds the locks."""
    return path.with_name(f"{path.name}-jobrunner")


def make_folder(path: Path) -> Path:
    """Create the folder of a database's locks with mode 0700 if needed; return it.

    Raises:
        OSError: The folder cannot be created.
        StoreUnavailable: See ``check_folder``.
    """
    folder = folder_of(path)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
        _give_to_owner(folder, path)
    check_folder(folder, path)
    return folder


def _give_to_owner(folder: Path, path: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # If there is no database yet, this user will create it and keeps the folder.
        with contextlib.suppress(FileNotFoundError):
            give_away(fd, path)
    finally:
        os.close(fd)


def check_folder(folder: Path, path: Path) -> None:
    """Check that only this user and the database's owner can write to the folder.

    Another user could take a live worker's jobs or block all writers.

    Raises:
        OSError: The folder cannot be read.
        StoreUnavailable: The path is not a folder, or other users can write to it; the message names the remedy.
    """
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise StoreUnavailable(
            f"{folder} is not a folder but {'a link' if stat.S_ISLNK(found.st_mode) else 'a file'}, and the"
            f" locks of {path} must lie in one: remove it, and it is made anew"
        )
    trusted = {os.geteuid()}
    with contextlib.suppress(FileNotFoundError):
        trusted.add(os.stat(path).st_uid)
    if found.st_uid not in trusted:
        raise StoreUnavailable(
            f"{folder} belongs to user {found.st_uid}, who could take jobs from live workers: write"
            f" `chown -R {os.geteuid()} {shlex.quote(str(folder))}`, or run as that user"
        )
    if found.st_mode & 0o022:
        raise StoreUnavailable(
            f"other users can write to {folder} (mode {stat.S_IMODE(found.st_mode):04o}), and could take jobs from live"
            f" workers: write `chmod 700 {shlex.quote(str(folder))}`"
        )


def warn_of_layer(path: Path) -> None:
    """Log a warning if the store lies on a container's own layer."""
    if kind := container_layer(path):
        logger.warning("%s %s", path, ON_CONTAINER_LAYER % kind)
