"""Writes the library's log lines: always one line each, and summed up when many are alike.

Values are escaped when the record is made, so that handlers and formatters of the application need not do it. The
template of the message is unchanged, because error trackers group by it.
"""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.escape import escaped

WHOLE: Final = 10
"""Lines alike that are written in one window; the others are counted, and the series floods."""
WINDOW_US: Final = 30 * SECOND_US
MOST_KINDS: Final = 1_000
"""Kinds of lines that are counted at the same time; a new one replaces the oldest."""
MAX_TRACEBACK: Final = 32 * 1024

_AS_THEY_ARE: Final = (int, float, type(None))


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger adapter for the library's own lines, which escapes their values.

    A call takes two keywords more than ``logging``: ``like``, a key that separates the lines of one template into kinds
    (by default they are one kind), and ``trace``, the text of ``exc_info`` if it has been formatted already.
    """

    def log(  # type: ignore[override] # **kwargs of the parent are the words that stand here
        self,
        level: int,
        msg: str,
        *args: object,
        exc_info: bool | BaseException | None = None,
        extra: Mapping[str, object] | None = None,
        stacklevel: int = 1,
        like: Hashable = None,
        trace: str | None = None,
    ) -> None:
        """Write a line, unless too many like it were written in this window."""
        if not self.isEnabledFor(level):
            return
        if level > logging.DEBUG and not repeats.admit(self, level, msg, args, like):
            return
        error = sys.exception() if exc_info is True else exc_info or None
        # One more, for this method's own frame; findCaller does not count those of `logging` between the two.
        file, line, function, _ = self.logger.findCaller(stacklevel=stacklevel + 1)
        record = self.logger.makeRecord(
            self.logger.name,
            level,
            file,
            line,
            msg,
            tuple(map(_shown, args)),
            None if error is None else (type(error), error, error.__traceback__),
            function,
            extra,
        )
        if error is not None:
            # The standard formatter prints exc_text. Unescaped, an error's text could imitate another line of the log.
            record.exc_text = _indented(_trace_of(error) if trace is None else trace)
        self.logger.handle(record)


class LineFormatter(logging.Formatter):
    """Formats the records of any logger as one line; a traceback follows indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the parent's name
        """Return the record as one escaped line."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as above
        """Return the traceback, escaped and indented."""
        return _indented(escaped(super().formatException(ei), lines=True))


def _shown(value: object) -> object:
    if isinstance(value, _AS_THEY_ARE):
        return value
    try:
        return escaped(str(value))
    except Exception as wrong:  # noqa: BLE001 - the application's __str__ may raise anything
        return f"<{type(value).__name__}, which cannot be shown: {type(wrong).__name__}>"


def _trace_of(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as wrong:  # noqa: BLE001 - as above
        text = f"<its traceback cannot be shown: {type(wrong).__name__}>"
    return escaped(text[-MAX_TRACEBACK:], lines=True)


def _indented(trace: str) -> str:
    return "\n".join(f"  {line}" for line in trace.rstrip("\n").split("\n"))


class _Series:
    """Counts lines alike in the current window."""

    __slots__ = ("args", "began", "count", "floods", "hidden", "last", "log", "total", "window")

    def __init__(self, log: Log, now: int) -> None:
        self.log = log
        self.began = self.last = self.window = now
        self.total = self.count = self.hidden = 0
        self.floods = False
        """True if the previous window had too many lines: then none of this window is written."""
        self.args: tuple[object, ...] = ()
        """The values of the last line that was not written, as text: an error object would keep its frames alive."""


_Kind = tuple[int, str, Hashable]
"""Level, template and ``like``: the same for all lines alike."""
_Line = tuple[Log, int, str, tuple[object, ...]]


class Repeats:
    """Counts lines alike and sums up the surplus of each window in one line."""

    def __init__(self) -> None:
        self._series: dict[_Kind, _Series] = {}
        self._oldest = 0
        """The start (µs) of the window that ends next."""
        # Reentrant: a garbage collection inside the lock may run a finaliser that logs.
        self._lock = threading.RLock()

    def let_go(self) -> None:
        """Take a new lock; in a forked child a thread that is gone may hold the old one."""
        self._lock = threading.RLock()

    def admit(
        self, log: Log, level: int, msg: str, args: tuple[object, ...], like: Hashable
    ) -> bool:
        """Count a line and return whether to write it."""
        now = now_us()
        self.flush(now)
        kind = (level, msg, like)
        with self._lock:
            series = self._series.get(kind)
            if series is None:
                if not self._series:
                    self._oldest = now
                elif len(self._series) >= MOST_KINDS:
                    self._series.pop(next(iter(self._series)), None)
                series = self._series[kind] = _Series(log, now)
            series.total += 1
            series.count += 1
            series.last = now
            if not series.floods and series.count <= WHOLE:
                return True
        # Outside the lock: the application's __str__ may be slow.
        shown = tuple(map(_shown, args))
        with self._lock:
            series.hidden += 1
            series.args = shown
        return False

    def flush(self, now: int) -> None:
        """Write the summaries of windows that are over and of floods that have ended."""
        # The 0 <=: after the clock was set back a line must not stay silent for hours.
        if not self._series or 0 <= now - self._oldest < WINDOW_US:
            return
        with self._lock:
            # First: a line that is logged while these are summed up must not begin to sum up again.
            self._oldest = now
            lines = [
                line
                for kind, one in list(self._series.items())
                if not 0 <= now - one.window < WINDOW_US
                for line in self._roll(kind, one, now)
            ]
            self._oldest = min((one.window for one in list(self._series.values())), default=now)
        _write(lines)

    def end(self) -> None:
        """Write all open summaries and forget all counts."""
        with self._lock:
            lines = [_summary(kind, one) for kind, one in list(self._series.items()) if one.hidden]
            self._series.clear()
        _write(lines)

    def _roll(self, kind: _Kind, one: _Series, now: int) -> list[_Line]:
        """Begin the next window of a series, or end the series; return the lines to write."""
        lines = [_summary(kind, one)] if one.hidden else []
        if one.count <= WHOLE:
            self._series.pop(kind, None)
            if one.floods:
                level, msg, _ = kind
                lasted_s = (one.last - one.began) / SECOND_US
                over = f"over: %d lines like this in %.0f s, of which the last was: {msg}"
                args = (one.total, lasted_s, *one.args)
                lines.append((one.log, min(level, logging.WARNING), over, args))
            return lines
        one.floods = True
        one.window = now
        one.count = one.hidden = 0
        return lines


def _summary(kind: _Kind, one: _Series) -> _Line:
    level, msg, _ = kind
    past_s = (one.last - one.window) / SECOND_US
    # The template stays part of the text: trackers group by it.
    text = f"%d more like this in the last %.0f s: {msg}"
    return one.log, level, text, (one.hidden, past_s, *one.args)


def _write(lines: Iterable[_Line]) -> None:
    for log, level, msg, args in lines:
        logger = log.logger
        logger.handle(logger.makeRecord(logger.name, level, __file__, 0, msg, args, None))


repeats: Final = Repeats()
"""The counts of this process."""
os.register_at_fork(after_in_child=repeats.let_go)


def log_of(name: str) -> Log:
    """Return the adapter for a logger of the standard library."""
    return Log(logging.getLogger(name), None)
