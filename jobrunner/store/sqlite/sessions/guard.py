"""Guards the application's commits inside a block, by replacing the functions that make them.

It sees the commits of SQLAlchemy's engines, of aiosqlite connections, and of the connections that ``sqlite3.connect``
opens inside the block.
"""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, Final

import aiosqlite

from jobrunner.store.sqlite.sessions.commits import GuardedCommits, original_connect
from jobrunner.store.sqlite.writer import Writer


@contextmanager
def commits_seen(commits: GuardedCommits) -> Iterator[None]:
    """Let ``commits`` see those on its file inside the block; see ``GuardedCommits.guarded``."""
    with ExitStack() as stack:
        stack.enter_context(_connects_seen(commits))
        stack.enter_context(_replaced(aiosqlite.Connection, "_execute", commits.aiosqlite_call()))
        stack.enter_context(_store_announced(commits))
        if "sqlalchemy" in sys.modules:
            # Not at the top: code without SQLAlchemy must not pay for the import.
            from jobrunner.store.sqlite.sessions.engine import commits_of_engines  # noqa: PLC0415

            stack.enter_context(commits_of_engines(commits))
        yield


_seeing: list[GuardedCommits] = []
"""The commits that see the connections opened now; at most one."""


def _connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
    """Take the place of ``sqlite3.connect``.

    It is the same function in each block: a module that is imported inside one keeps it.
    """
    caller = sys._getframe(1).f_globals.get("__name__", "")  # noqa: SLF001 - as freezegun does
    if not _seeing or caller.partition(".")[0] in _GUARDED_ELSEWHERE:
        return original_connect(*args, **kwargs)
    return _seeing[-1].connect(*args, **kwargs)


_GUARDED_ELSEWHERE: Final = ("aiosqlite", "jobrunner")
"""The callers whose connections are guarded by other functions, or are the store's own."""


@contextmanager
def _connects_seen(commits: GuardedCommits) -> Iterator[None]:
    """Let ``commits`` open the connections inside the block."""
    if commits.names is None:
        commits.names = _names_of(original_connect)
    _seeing.append(commits)
    try:
        with ExitStack() as stack:
            for module, name in commits.names:
                stack.enter_context(_replaced(module, name, _connect))
            yield
    finally:
        _seeing.remove(commits)


def _names_of(function: Any) -> list[tuple[ModuleType, str]]:
    """Return the modules that have a function, each with its name there.

    ``from sqlite3 import connect`` makes such a name.
    """
    return [
        (module, name)
        for module in list(sys.modules.values())
        if isinstance(module, ModuleType)
        and module.__name__.partition(".")[0] not in _GUARDED_ELSEWHERE
        for name, value in list(vars(module).items())  # getattr() could import more
        if value is function
    ]


@contextmanager
def _store_announced(commits: GuardedCommits) -> Iterator[None]:
    """Announce the commits of the store itself."""
    owner: Any = Writer
    inside = owner._locked  # noqa: SLF001 - every write of a store passes it

    def locked(writer: Writer, *args: Any) -> Any:
        with commits.announced():
            return inside(writer, *args)

    with _replaced(owner, "_locked", locked):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
