"""Refuses attempts that forgot an ``await``.

An attempt that returned an awaitable, or that called an async method of jobrunner (a "verb") without ``await``, has not
done that work, so it is no success.  The call itself cannot be refused: in ``jobs.sync.run(job.refresh())`` a ``def``
task makes a coroutine for a good reason.  Only when a coroutine is deallocated is it certain that nobody will await it.
Python then calls a function in ``warnings``, which is replaced by ours while a runner is open.
"""

import asyncio
import concurrent.futures
import gc
import inspect
import linecache
import threading
import traceback
import warnings
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final, NoReturn, Protocol

from jobrunner.core.errors import NotAwaited
from jobrunner.core.logs import log_of

logger = log_of("jobrunner")

_PLAIN: Final = frozenset({str, int, float, bool, bytes, dict, list, tuple})
"""The types of most results, which need no further check."""
_LAZY: Final = (GeneratorType, AsyncGeneratorType, map, filter)
_UNFINISHED: Final = (Awaitable, concurrent.futures.Future, *_LAZY)

MOST_SEARCHED: Final = 1_000
"""The most values inside a result that are searched; the message names only one."""


class Caller(Protocol):
    """An attempt, as this module uses it."""

    dropped: list[str] | None
    """The lines to write instead of async methods that it called and did not await."""
    ended: bool


caller: Final[ContextVar[Caller | None]] = ContextVar("jobrunner.caller", default=None)
"""The attempt to which the running code belongs."""


# -- returned awaitables -------------------------------------------------------------------------------


def refuse_unfinished(value: object, *, is_async: bool) -> None:
    """Raise if a task returned an awaitable or a lazy iterator; a coroutine is closed.

    Raises:
        NotAwaited: The value is one of these; the message says what to write.
    """
    if type(value) in _PLAIN or not isinstance(value, _UNFINISHED):
        return
    line = _line_for(value, is_async=is_async)
    if inspect.iscoroutine(value):
        close(value)
    raise NotAwaited(f"the task returned {_kind_of(value)}: {line}")


def refuse_unfinished_inside(value: object, *, is_async: bool) -> None:
    """Raise like ``refuse_unfinished`` for values inside a result that cannot be stored."""
    found = [one for one in _inside(value) if isinstance(one, _UNFINISHED)]
    if not found:
        return
    kind = _kind_of(found[0])
    for one in found:
        if inspect.iscoroutine(one):
            close(one)
    line = (
        "write `return await asyncio.gather(*...)`"
        if is_async
        else "write the task as `async def` and `return await asyncio.gather(*...)`"
    )
    raise NotAwaited(f"the task returned a {type(value).__name__} that holds {kind}: {line}")


def close(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Close a coroutine that has not begun, so that Python gives no warning."""
    if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        coroutine.close()


def _inside(value: object) -> Iterator[object]:
    left: list[object] = [value]
    for _ in range(MOST_SEARCHED):
        if not left:
            return
        one = left.pop()
        yield one
        if isinstance(one, Mapping):
            left += one.values()
        elif isinstance(one, Collection) and not isinstance(one, (str, bytes, bytearray)):
            left += one


def _kind_of(value: object) -> str:
    if inspect.iscoroutine(value):
        return f"the coroutine of {value.__qualname__}(), which nobody has awaited"
    if isinstance(value, AsyncGeneratorType):
        return "an async generator, which nobody has gone through"
    if isinstance(value, _LAZY):
        return f"a {type(value).__name__}, which nobody has gone through"
    return f"a {type(value).__name__}, which nobody has waited for"


def _line_for(value: object, *, is_async: bool) -> str:
    if isinstance(value, CoroutineType) and (line := _line_of_verb(value, is_async=is_async)):
        return line
    if isinstance(value, AsyncGeneratorType):
        return "write `return [one async for one in ...]`"
    if isinstance(value, _LAZY):
        return "write `return list(...)`"
    if isinstance(value, concurrent.futures.Future):
        wrapped = "await asyncio.wrap_future(...)" if is_async else "....result()"
        return f"write `return {wrapped}`"
    return "write `return await ...`" if is_async else "write the task as `async def` and await it"


# -- verbs that were called and dropped ----------------------------------------------------------------


_WRITTEN: Final[Mapping[str, str]] = {
    "Task": "task",
    "AsyncTask": "task",
    "CtxAsyncTask": "task",
    "Job": "job",
    "JobContext": "job",
    "JobQueue": "queue",
    "JobRunner": "jobs",
    "RunnerRoutes": "jobs",
    "Queues": "jobs.queues",
    "Batch": "batch",
    "Batches": "jobs.batches",
    "DeadLetters": "jobs.dead_letters",
    "Schedules": "jobs.schedules",
    "AuditLog": "jobs.audit",
    "Limits": "jobs.limits",
}
"""The classes whose coroutine functions are verbs, each with the usual name of an object in code."""
_BLOCKING: Final = frozenset(
    {
        "enqueue",
        "enqueue_many",
        "enqueue_chain",
        "enqueue_batch",
        "get",
        "list",
        "payload",
        "cancel",
        "health",
    }
)
"""The verbs of a queue that ``jobs.sync`` has under the same name."""
_COLLECTIONS: Final = frozenset(
    {"Queues", "Batches", "DeadLetters", "Schedules", "AuditLog", "Limits"}
)
"""The classes whose objects ``jobs.sync`` has with all verbs, under the same names as ``jobs``."""
_HOOK: Final = "_warn_unawaited_coroutine"
_OF_PYTHON: Final = ("warnings", "_py_warnings")
"""The modules that define this function, depending on the version of Python."""


class _Watch:
    """Watches for dropped coroutines while a runner of this process is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._hook: _Hook | None = None

    def begin(self) -> None:
        with self._lock:
            self._open += 1
            before = getattr(warnings, _HOOK, None)
            # A Python without this function would not call ours either.
            if self._open == 1 and before is not None:
                self._hook = _Hook(before)
                setattr(warnings, _HOOK, self._hook)
                gc.callbacks.append(self._hook.collects)

    def end(self) -> None:
        with self._lock:
            self._open -= 1
            if self._open == 0 and self._hook is not None:
                hook, self._hook = self._hook, None
                gc.callbacks.remove(hook.collects)
                # If someone else has replaced ours since, theirs goes on calling ours, which then only passes on.
                hook.is_open = False
                if getattr(warnings, _HOOK, None) is hook:
                    setattr(warnings, _HOOK, hook.before)


class _Hook:
    """Replaces the function in ``warnings``, and calls it for coroutines of no attempt.

    Each opening makes a new one: a reused one could end up calling itself.
    """

    def __init__(self, before: Callable[[Any], None]) -> None:
        self.before = before
        self.is_open = True
        self._collecting: int | None = None
        """The thread in which the garbage collector is running; None if it is not."""

    def collects(self, phase: str, _: object) -> None:
        self._collecting = threading.get_ident() if phase == "start" else None

    def __call__(self, coroutine: Any) -> None:
        """Note a verb that an attempt dropped; otherwise log a verb, and pass the call on.

        If this raises, for example in a log handler, Python reports the error and gives its own warning.
        """
        line = _line_of_verb(coroutine, is_async=_has_loop()) if self.is_open else ""
        attempt = caller.get()
        # A coroutine that the garbage collector frees may have been dropped by any code.
        is_found = self._collecting == threading.get_ident()
        if line and attempt is not None and not (attempt.ended or is_found):
            if attempt.dropped is None:
                attempt.dropped = []
            attempt.dropped.append(line)
            return
        if line:
            logger.error(
                "%s() was called and not awaited, so that it did nothing: %s",
                coroutine.__qualname__,
                line,
                like=line,
            )
        if getattr(self.before, "__module__", "") in _OF_PYTHON:
            _warn(coroutine)
        else:
            self.before(coroutine)


def _warn(coroutine: Any) -> None:
    """Warn like Python's own function, but at the line that dropped the coroutine.

    Python's function would name the line that calls it, which is ours.
    """
    text = f"coroutine '{coroutine.__qualname__}' was never awaited"
    if coroutine.cr_origin is not None:
        lines = [
            (file, line, function, linecache.getline(file, line))
            for file, line, function in reversed(coroutine.cr_origin)
        ]
        made = "".join(traceback.format_list(lines)).rstrip("\n")
        text += f"\nCoroutine created at (most recent call last)\n{made}"
    # The line that dropped the coroutine is two frames up.
    warnings.warn(text, RuntimeWarning, stacklevel=3, source=coroutine)


_watch: Final = _Watch()


@contextmanager
def watched() -> Iterator[None]:
    """Inside the block, note dropped verbs in their attempt, and log all others."""
    _watch.begin()
    try:
        yield
    finally:
        _watch.end()


def refuse_dropped(lines: Sequence[str]) -> NoReturn:
    """Raise the error for verbs that were called and not awaited.

    Raises:
        NotAwaited: Always; the message says what to write.
    """
    times = "" if len(lines) == 1 else f" ({len(lines)} such calls)"
    raise NotAwaited(f"the task called an async verb and did not await it: {lines[0]}{times}")


def _has_loop() -> bool:
    return asyncio._get_running_loop() is not None  # noqa: SLF001 - as get_running_loop(), without an error to catch


def _line_of_verb(coroutine: Any, *, is_async: bool) -> str:
    """Return the line to write instead of a call of a verb; empty for other coroutines."""
    cls, _, verb = coroutine.__qualname__.rpartition(".")
    frame = coroutine.cr_frame
    # A coroutine without a frame has run, so it was awaited.
    if cls not in _WRITTEN or frame is None or not _is_ours(frame):
        return ""
    held = frame.f_locals.get("self")
    name = getattr(held, "__name__", None) or _WRITTEN[cls]
    if verb == "__call__":
        return (
            f"write `await {name}(...)`"
            if is_async
            else f"write `jobs.sync.enqueue({name}, ...)`, or this function as `async def`"
        )
    call = f"{name}.{verb}(...)"
    if is_async:
        return f"write `await {call}`"
    if cls == "JobContext":
        return f"write `job.sync.{verb}(...)` in place of `{call}`"
    blocking = _blocking_call(cls, verb, name)
    if blocking is None:
        return f"write `jobs.sync.run({call})`"
    return f"write `jobs.sync.{blocking}` in place of `{call}`"


def _blocking_call(cls: str, verb: str, name: str) -> str | None:
    """Return the call of ``jobs.sync`` that replaces a verb; None if there is none."""
    if cls == "Task":
        return f"enqueue({name}, ...)"
    if cls in _COLLECTIONS:
        return f"{name.removeprefix('jobs.')}.{verb}(...)"
    if verb in _BLOCKING and cls in {"JobRunner", "JobQueue"}:
        return f"{verb}(...)"
    if (cls, verb) == ("Job", "result"):
        return f"result({name}, ...)"
    return None


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "jobrunner"
