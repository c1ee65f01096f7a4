"""The transaction of a task that the present code runs inside of: it must not wait for itself.

While it is open nobody else writes to the store.  So what is stored in it is stored through it, and what would wait for
another write is refused at once.
"""

from contextvars import ContextVar
from typing import Any, Final

from jobrunner.errors import InsideTransaction


class Inside:
    """One transaction that is under way."""

    __slots__ = ("closed", "session", "store")

    def __init__(self, store: object, session: Any) -> None:
        self.store = store
        self.session = session
        """A ``store.protocol.Session``."""
        self.closed = False
        """Tasks that were made inside keep the context, and may outlive the block."""


_inside: Final[ContextVar[Inside | None]] = ContextVar("jobrunner.inside", default=None)


def inside_of(store: object) -> Inside | None:
    """Return the transaction on the store that the present code runs inside of."""
    here = _inside.get()
    return here if here is not None and not here.closed and here.store is store else None


def refuse_inside(store: object, what: str) -> None:
    """Raise if the present code runs inside of a transaction on the store.

    Raises:
        InsideTransaction: it does.
    """
    if inside_of(store) is not None:
        raise InsideTransaction(
            f"{what} waits for the store, and inside `job.transaction()` nobody else writes to it: call it before or"
            " after the block"
        )
