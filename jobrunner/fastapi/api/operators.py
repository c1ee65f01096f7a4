"""Provides acting routes with the queue and the client's name for the audit log."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Query, params

from jobrunner.core.audit import MAX_REASON, UNKNOWN_ACTOR, Action
from jobrunner.core.errors import ConfigurationError
from jobrunner.queue.audit import Act, audited
from jobrunner.queue.queue import JobQueue

AuditReason = Annotated[
    str | None,
    Query(
        description="The reason, for the audit log.",
        examples=["the mail server is back"],
        min_length=1,
        max_length=MAX_REASON,
    ),
]


class Operator(NamedTuple):
    """The client of an acting route."""

    queue: JobQueue
    name: str
    reason: str | None

    def act(
        self,
        action: Action,
        *,
        target: str | None = None,
        filter: Mapping[str, object] | None = None,
    ) -> AbstractAsyncContextManager[Act]:
        """Record the act inside the block; see ``audited``."""
        return audited(
            self.queue.audit, self.name, action, target=target, filter=filter, reason=self.reason
        )


def operator_of(queue: Callable[..., object], actor: params.Depends | None) -> Callable[..., Any]:
    """Return the dependency of acting routes that provides the ``Operator``.

    Args:
        queue: the dependency that provides the ``JobQueue``.
        actor: the application's dependency that returns the client's name; None if it has none.
    """
    named = Depends(_nobody) if actor is None else actor

    async def operator(
        queue: JobQueue = Depends(queue),
        name: Any = named,
        audit_reason: AuditReason = None,
    ) -> Operator:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(
                f"jobs.router(actor=...) returned {name!r}: return the name of the client, as a text"
            )
        return Operator(queue, name, audit_reason)

    return operator


async def _nobody() -> str:
    return UNKNOWN_ACTOR
