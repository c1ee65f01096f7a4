"""Declares what ``job.transaction()`` returns."""

from types import TracebackType
from typing import Any, Protocol


class JobTransaction(Protocol):
    """A context manager that yields the application's session, as ``job.transaction()`` returns it.

    Use ``async with`` in an ``async def`` task and ``with`` in a ``def`` task.
    """

    async def __aenter__(self) -> Any: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...
