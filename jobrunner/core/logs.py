"""The library's own log lines: one line each whatever their values hold, and summed up when too many are alike.

Values are escaped where they enter a record, so that no handler or formatter of the application has to know of it, and
the message's template stays as it is for those that group by it.
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
"""Lines alike that are written whole in a window; more are a flood."""
WINDOW_US: Final = 30 * SECOND_US
MOST_KINDS: Final = 1_000
"""Kinds of lines that are counted at once; the oldest gives way."""
MAX_TRACEBACK: Final = 32 * 1024

_AS_THEY_ARE: Final = (int, float, type(None))


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger of the standard library for our own lines; its ``%s`` may hold what others chose.

    Besides the words of ``logging`` a call takes ``like``, what the line has in common with others of its template (all
    of them by default), and ``trace``, the text of ``exc_info`` where there is one already.
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
        """Write a line, unless it is one of a flood."""
        if not self.isEnabledFor(level):
            return
        if level > logging.DEBUG and not repeats.admit(self, level, msg, args, like):
            return
        error = sys.exception() if exc_info is True else exc_info or None
        # Our own frame, then the caller's; those of `logging` between them do not count.
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
            # What the standard formatter prints: an error's own text could look like the next line of the log.
            record.exc_text = _indented(_trace_of(error) if trace is None else trace)
        self.logger.handle(record)


class LineFormatter(logging.Formatter):
    """Writes any logger's record as one line; only a traceback follows, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the parent's name
        """Return the line."""
        return escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as above
        """Return the traceback."""
        return _indented(escaped(super().formatException(ei), lines=True))


def _shown(value: object) -> object:
    if isinstance(value, _AS_THEY_ARE):
        return value
    try:
        return escaped(str(value))
    except Exception as wrong:  # noqa: BLE001 - the __str__ of somebody else's error may raise anything
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
    """Lines alike, in the present window."""

    __slots__ = ("args", "began", "count", "floods", "hidden", "last", "log", "total", "window")

    def __init__(self, log: Log, now: int) -> None:
        self.log = log
        self.began = self.last = self.window = now
        self.total = self.count = self.hidden = 0
        self.floods = False
        """Whether the window before had too many, so that this one shows none whole."""
        self.args: tuple[object, ...] = ()
        """Of the last line that was not written, as they are shown: an error itself would keep its frames alive."""


_Kind = tuple[int, str, Hashable]
"""What lines alike share: level, template, ``like``."""
_Line = tuple[Log, int, str, tuple[object, ...]]


class Repeats:
    """Counts lines alike; those past the first of a window are summed up in one."""

    def __init__(self) -> None:
        self._series: dict[_Kind, _Series] = {}
        self._oldest = 0
        """When the window began that ends next."""
        # Reentrant: a collection in the midst of it may destroy what logs when it goes.
        self._lock = threading.RLock()

    def let_go(self) -> None:
        """Take a new lock: in a forked child the old one may be that of a thread which is not there."""
        self._lock = threading.RLock()

    def admit(
        self, log: Log, level: int, msg: str, args: tuple[object, ...], like: Hashable
    ) -> bool:
        """Count a line; return whether it is to be written whole."""
        now = now_us()
        self.look(now)
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
        # Not inside: the __str__ of somebody else's error may take its time.
        shown = tuple(map(_shown, args))
        with self._lock:
            series.hidden += 1
            series.args = shown
        return False

    def look(self, now: int) -> None:
        """Sum up the lines of each window that is over; say so where a flood is."""
        # A clock that was set back must not silence a line for hours.
        if not self._series or 0 <= now - self._oldest < WINDOW_US:
            return
        with self._lock:
            lines = [
                line
                for kind, one in list(self._series.items())
                if not 0 <= now - one.window < WINDOW_US
                for line in self._roll(kind, one, now)
            ]
            self._oldest = min((one.window for one in list(self._series.values())), default=now)
        _write(lines)

    def end(self) -> None:
        """Sum up everything, and begin anew."""
        with self._lock:
            lines = [_summary(kind, one) for kind, one in list(self._series.items()) if one.hidden]
            self._series.clear()
        _write(lines)

    def _roll(self, kind: _Kind, one: _Series, now: int) -> list[_Line]:
        """Begin the next window of a series, or end it; return what is to be said."""
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
    # The template stays part of it: trackers group by it.
    text = f"%d more like this in the last %.0f s: {msg}"
    return one.log, level, text, (one.hidden, past_s, *one.args)


def _write(lines: Iterable[_Line]) -> None:
    for log, level, msg, args in lines:
        logger = log.logger
        logger.handle(logger.makeRecord(logger.name, level, __file__, 0, msg, args, None))


repeats: Final = Repeats()
"""Those of this process, as its log is one."""
os.register_at_fork(after_in_child=repeats.let_go)


def log_of(name: str) -> Log:
    """Return the way of our lines into a logger of the standard library."""
    return Log(logging.getLogger(name), None)
