"""The transaction of a task that the present code runs inside of, so that it does not wait for itself.

While it is open nobody else writes to the store.  So jobs that are stored in it are stored through it, and a call that
would wait for another write is refused at once.
"""

import inspect
from contextvars import ContextVar, Token
from typing import Any, Final

from jobrunner.core.errors import WouldDeadlock


class TransactionScope:
    """One open transaction on a store, and the session of the application that holds it."""

    __slots__ = ("_token", "closed", "source", "store")

    def __init__(self, store: object, source: Any) -> None:
        self.store = store
        self.source = source
        self.closed = False
        """Tasks that were made inside keep the context, and may outlive the block."""
        self._token: Token[TransactionScope | None] | None = None

    def enter(self) -> None:
        """Make it the transaction that the code of this context runs inside of."""
        self._token = _current.set(self)

    def leave(self) -> None:
        """End that, for tasks that were started inside as well."""
        self.closed = True
        if self._token is not None:
            _current.reset(self._token)


_current: ContextVar[TransactionScope | None] = ContextVar(
    "jobrunner.store.reentrancy", default=None
)


in_write: Final[ContextVar[bool]] = ContextVar("jobrunner.in_write", default=False)
"""Whether the present code is a function of ``job.write()``: the thread that runs it is the one that writes."""


def inside_of(store: object) -> TransactionScope | None:
    """Return the transaction on the store that the present code runs inside of."""
    scope = _current.get()
    return scope if scope is not None and not scope.closed and scope.store is store else None


def refuse_inside(store: object, what: object) -> None:
    """Raise if the present code runs inside of a transaction on the store.

    Args:
        what: what would wait, or the function that would write.

    Raises:
        WouldDeadlock: it does.
    """
    if inside_of(store) is not None:
        raise WouldDeadlock(
            f"{name_of(what)} waits for the store, and inside `job.transaction()` nobody else writes to it: call it"
            " before or after the block"
        )


def name_of(what: object) -> object:
    """Return a function's name as messages write it; a name as it is."""
    return f"{what.__name__}()" if inspect.isfunction(what) else what
