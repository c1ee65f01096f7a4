"""Refuses jobs that no row can hold, before the server ends the transaction."""

from collections.abc import Iterable
from typing import Final

from jobrunner.core.errors import InvalidOptions
from jobrunner.core.model import Enqueue

_INDEXED_BYTES: Final = 2_600
"""An index takes rows of 2,704 bytes, of which some are its own."""
_TEXTS: Final = (
    "task",
    "queue",
    "key",
    "tag",
    "schedule",
    "lane",
    "args",
    "trace",
    "handed",
)
_INDEXED: Final = (("task", "key"), ("key",), ("tag",), ("queue", "task", "lane"), ("schedule",))
"""The texts that one index has together."""


def refuse_unstorable(jobs: Iterable[Enqueue]) -> None:
    """Raise if PostgreSQL cannot store a job.

    Raises:
        InvalidOptions: A text has a NUL or half of a surrogate pair, or is too long for an index.
    """
    for job in jobs:
        for name in _TEXTS:
            text: str | None = getattr(job, name)
            if text is None or (text.isascii() and "\0" not in text):
                continue
            if "\0" in text:
                raise InvalidOptions(
                    f"{name} has a NUL, which PostgreSQL stores in no text: {text!r}"
                )
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InvalidOptions(
                    f"{name} has half of a surrogate pair, which no text in UTF-8 has: {text!r}"
                ) from None
        for names in _INDEXED:
            size = sum(len((getattr(job, name) or "").encode()) for name in names)
            if size > _INDEXED_BYTES:
                raise InvalidOptions(
                    f"{' and '.join(names)} of a job of {job.task[:80]} take {size:,} bytes, and an index of PostgreSQL"
                    f" takes {_INDEXED_BYTES:,}: use a shorter {names[-1]}"
                )
