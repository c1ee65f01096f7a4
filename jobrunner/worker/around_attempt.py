"""Checks the hooks around each attempt (``@jobs.around_attempt``) when they are registered."""

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from jobrunner.core.errors import ConfigurationError
from jobrunner.tasks.context import JobContext

AroundAttempt = Callable[[JobContext], AsyncIterator[None] | AbstractAsyncContextManager[Any]]
"""An ``async def`` with one ``yield``, or a function that returns an async context manager."""
H = TypeVar("H", bound=AroundAttempt)


class Around(NamedTuple):
    """A hook around each attempt."""

    name: str
    """The name in messages, such as ``track (shop.py:12)``."""
    open: Callable[[JobContext], AbstractAsyncContextManager[Any]]


def read_around(hook: AroundAttempt) -> Around:
    """Check a hook and return it in the form that attempts use.

    Raises:
        ConfigurationError: The object is not an ``async def`` with one ``yield``.
    """
    forms = [hook, getattr(hook, "__call__", None)]  # noqa: B004 - as in FastAPI, a hook may be a callable object
    if any(map(inspect.isasyncgenfunction, forms)):
        return Around(_name_of(hook), asynccontextmanager(hook))  # type: ignore[arg-type]
    unfit = any(
        inspect.iscoroutinefunction(form) or inspect.isgeneratorfunction(form) for form in forms
    )
    if unfit or not callable(hook):
        raise ConfigurationError(
            f"around_attempt() takes an `async def` with one `yield`, not {_name_of(hook)}: write"
            " `async def around(job: JobContext) -> AsyncIterator[None]: ...; yield; ...`"
        )
    return Around(_name_of(hook), hook)  # type: ignore[arg-type]


def _name_of(hook: Any) -> str:
    inner = inspect.unwrap(hook.func if isinstance(hook, functools.partial) else hook)
    name = getattr(inner, "__qualname__", None) or repr(hook)
    code = getattr(inner, "__code__", None)
    where = (
        "" if code is None else f" ({code.co_filename.rpartition('/')[2]}:{code.co_firstlineno})"
    )
    return f"{name.rpartition('<locals>.')[2]}{where}"
