"""Specifies how jobs and attempts are traced; ``jobrunner.opentelemetry`` implements it."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from jobrunner.core.model import Claimed, Enqueue, Enqueued, Outcome


class Tracing(Protocol):
    """Makes spans and carries their context in the rows of jobs."""

    def is_active(self) -> bool:
        """Return whether spans are made; if not, the other methods need not be called."""
        ...

    async def enqueue(
        self,
        jobs: Sequence[Enqueue],
        store: Callable[[Sequence[Enqueue]], Awaitable[Sequence[Enqueued]]],
    ) -> Sequence[Enqueued]:
        """Store jobs with ``store`` in a span, whose context they carry."""
        ...

    def prepare(self, job: Enqueue) -> Enqueue:
        """Return a job that is stored later with the context of a new span."""
        ...

    def attempt(self, job: Claimed) -> AbstractContextManager[Callable[[Outcome], None]]:
        """Run the block in the span of an attempt; call what it yields with the outcome."""
        ...


def trace_id_of(context: str | None) -> str | None:
    """Return the id of a stored trace context; None if it is not in the form of the W3C."""
    version, _, rest = (context or "").partition("-")
    trace_id, _, parent = rest.partition("-")
    return trace_id if version and parent else None
