"""Configures the application's log: a line per event on standard error, as text or JSON.

Each line names the job that it belongs to. The library configures no logging: that is up to the application.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from app.settings import LogFormat
from jobrunner import JobLogFilter

_JOB_FIELDS = ("job_id", "task", "attempt")


def configure(log_format: LogFormat, level: str) -> None:
    """Send the log of the process to standard error; replaces an earlier configuration."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, _Stderr):
            root.removeHandler(handler)
    handler = _Stderr()
    handler.addFilter(JobLogFilter())
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root.addHandler(handler)
    root.setLevel(level)
    # Uvicorn's command brings its own handlers; one process has one format.
    for name in ("uvicorn", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to the present ``sys.stderr``, also after it was replaced."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _job_of(record: logging.LogRecord) -> dict[str, object]:
    found = {name: getattr(record, name, None) for name in _JOB_FIELDS}
    return {name: value for name, value in found.items() if value is not None}


_CONTROLS = dict.fromkeys(
    (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029), "\N{REPLACEMENT CHARACTER}"
)


class TextFormatter(logging.Formatter):
    """Formats a record as one line for people; a traceback follows on indented lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        job = "".join(f" {name}={value}" for name, value in _job_of(record).items())
        said = record.getMessage().translate(_CONTROLS)
        line = f"{_moment(record)} {record.levelname:<7} {record.name}{job}: {said}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n  ".join([line, *(part.translate(_CONTROLS) for part in trace)])
        return line


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object per line, with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON."""
        fields: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_job_of(record),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)
