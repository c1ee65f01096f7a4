"""Tracks the task transaction that the current code runs in, to prevent deadlocks.

While this transaction is open, nobody else can write to the store.  So jobs are stored through it, and a call that
would wait for another write raises at once.
"""

import inspect
from contextvars import ContextVar, Token
from typing import Any, Final

from jobrunner.core.errors import WouldDeadlock


class TransactionScope:
    """An open transaction on a store and the application's session that holds it."""

    __slots__ = ("_token", "closed", "source", "store")

    def __init__(self, store: object, source: Any) -> None:
        self.store = store
        self.source = source
        self.closed = False
        """True after the block: tasks that were created inside keep the context and may outlive it."""
        self._token: Token[TransactionScope | None] | None = None

    def enter(self) -> None:
        """Make this the current transaction of the running context."""
        self._token = _current.set(self)

    def leave(self) -> None:
        """Reset the context; tasks started inside leave the transaction too."""
        self.closed = True
        if self._token is not None:
            _current.reset(self._token)


_current: ContextVar[TransactionScope | None] = ContextVar(
    "jobrunner.store.reentrancy", default=None
)


in_write: Final[ContextVar[bool]] = ContextVar("jobrunner.in_write", default=False)
"""True while a function of ``job.write()`` runs: its thread is the only one that writes."""


def inside_of(store: object) -> TransactionScope | None:
    """Return the open transaction on the store that the current code runs in; None if there is none."""
    scope = _current.get()
    return scope if scope is not None and not scope.closed and scope.store is store else None


def refuse_inside(store: object, what: object) -> None:
    """Raise if the current code runs inside a transaction on the store.

    Args:
        store: the store that the call would wait for.
        what: name of the call that would wait, or its function; used in the error.

    Raises:
        WouldDeadlock: The current code runs inside such a transaction.
    """
    if inside_of(store) is not None:
        raise WouldDeadlock(
            f"{name_of(what)} waits for the store, and inside `job.transaction()` nobody else writes to it: call it"
            " before or after the block"
        )


def name_of(what: object) -> object:
    """Return the name of a function for messages; return a name unchanged."""
    return f"{what.__name__}()" if inspect.isfunction(what) else what
