"""Reports the ends of the transactions of SQLAlchemy's sessions, by their events.

Imported only if SQLAlchemy is in use.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

_COMMITTED: Final = "jobrunner.committed"
"""Key in the ``info`` of a session that has been committed."""
_WATCHED: Final = "jobrunner.watched"
"""Key in the ``info`` of a session; holds the jobs whose commit must be reported."""


class Followed(Protocol):
    """The adapter of a session."""

    def is_open(self) -> bool:
        """Return whether the driver's connection is still in a transaction."""
        ...

    def follow(self, on_commit: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Watch the connection's transaction until it ends."""
        ...


class _Watched(NamedTuple):
    """Jobs of one call whose commit must still be reported."""

    nested: SessionTransaction | None
    """The innermost savepoint that contains the jobs; None for the transaction itself."""
    on_commit: Callable[[], None]
    on_lost: Callable[[], None]
    by: Followed


def watch(
    session: Session, by: Followed, on_commit: Callable[[], None], on_lost: Callable[[], None]
) -> None:
    """Report the end of the transaction that a session is in; see ``Session.watch`` of the store."""
    watched: list[_Watched] = session.info.setdefault(_WATCHED, [])
    watched.append(_Watched(session.get_nested_transaction(), on_commit, on_lost, by))


def has_committed(session: Session) -> bool:
    """Return whether a session has committed."""
    return _COMMITTED in session.info


def _after_commit(session: Session) -> None:
    if session.get_nested_transaction() is None:
        session.info[_COMMITTED] = True
    watched: list[_Watched] | None = session.info.get(_WATCHED)
    if not watched:
        return
    nested = session.get_nested_transaction()
    if nested is not None:
        # A savepoint was released: its jobs now belong to the enclosing savepoint or transaction.
        around = nested.parent if nested.parent is not None and nested.parent.nested else None
        watched[:] = [
            one._replace(nested=around) if one.nested is nested else one for one in watched
        ]
        return
    del session.info[_WATCHED]
    for one in {one.on_commit: one for one in watched}.values():
        if one.by.is_open():
            # The session joined a transaction that other code began and will end.
            one.by.follow(one.on_commit, one.on_lost)
        else:
            one.on_commit()


def _after_rollback(session: Session) -> None:
    watched: list[_Watched] | None = session.info.get(_WATCHED)
    if not watched:
        return
    nested = session.get_nested_transaction()
    if nested is None:
        del session.info[_WATCHED]
    else:
        watched[:] = [one for one in watched if one.nested is not nested]


def _after_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None and _WATCHED in session.info:
        for one in session.info.pop(_WATCHED):
            one.on_lost()


# Listens on the class, once for all sessions: cheaper than listening on each session that stores jobs.
event.listen(Session, "after_commit", _after_commit)
event.listen(Session, "after_rollback", _after_rollback)
event.listen(Session, "after_transaction_end", _after_end)
