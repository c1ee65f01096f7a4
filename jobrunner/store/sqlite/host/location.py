"""Checks the place of a store: its URL, the SQLite library, the file system and the rights."""

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
"""STRICT tables."""

ON_CONTAINER_LAYER: Final = (
    "lies on a container's own layer (%s) and goes with the container: mount a volume there"
)


_SCHEMES: Final = ("sqlite", "sqlite+aiosqlite", "sqlite+pysqlite")
"""SQLAlchemy's names for drivers of the same file, so that an application can keep one URL for both."""
_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][\w.+-]*)://|(?P<short>sqlite(?:\+\w+)?):")


def path_of(store: str | os.PathLike[str]) -> Path:
    """Return the absolute path of the file that a store's URL or path names, through symbolic links.

    SQLite keeps its log beside the file that a link leads to, and so must the locks lie there: two processes that come
    by two names would not see each other.

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
    return Path(os.path.realpath(Path(text).expanduser()))


def _named_by_url(text: str, url: re.Match[str]) -> str:
    """Return the path in a URL, or the name of a database in memory."""
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
    """Return the fault of a URI of SQLite, or of a database in memory."""
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


def create(path: Path) -> None:
    """Create an empty database for this user alone, if there is no file; SQLite gives its log the same mode.

    Raises:
        OSError: it cannot be.
    """
    # Not by the umask, which is the whole process's; and not by open(), if it can be had: closing any descriptor of the
    # file drops SQLite's locks on it, and an engine of this process may be quick.
    try:
        os.mknod(path, stat.S_IFREG | 0o600)
    except FileExistsError:
        return
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        # For the superuser alone on this system (macOS).
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def folder_of(path: Path) -> Path:
    """Return the folder beside a database that holds the locks."""
    return path.with_name(f"{path.name}-jobrunner")


def make_folder(path: Path) -> Path:
    """Return the folder of a database's locks, made for this user alone if there is none.

    Raises:
        OSError: it cannot be made.
        StoreUnavailable: see ``check_folder``.
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
        # There may be no database yet: then it will be of whoever runs this.
        with contextlib.suppress(FileNotFoundError):
            give_away(fd, path)
    finally:
        os.close(fd)


def check_folder(folder: Path, path: Path) -> None:
    """Make sure that only this user and the database's can put files into the folder of its locks.

    Whoever can might take a live worker's jobs, or keep everybody from writing.

    Raises:
        OSError: it cannot be looked at.
        StoreUnavailable: others can; the message says what to write.
    """
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise StoreUnavailable(
            f"{folder} is no folder of its own but {'a link' if stat.S_ISLNK(found.st_mode) else 'a file'}, and the"
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
    """Warn if the store lies where it will not last."""
    if kind := container_layer(path):
        logger.warning("%s %s", path, ON_CONTAINER_LAYER % kind)
