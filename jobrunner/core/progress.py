"""Defines the progress of a job: checked, as stored, and public."""

import json
import sys
from dataclasses import dataclass, field
from typing import Any, Final

from jobrunner.core.errors import InvalidOptions
from jobrunner.core.exports import exported
from jobrunner.core.response_models import doc

MAX_MESSAGE: Final = 200
"""The most characters of a message; the rest is cut off."""
MAX_TOTAL: Final = sys.float_info.max
"""The largest total; JSON numbers and fractions end there, ints do not."""


@exported
@dataclass(frozen=True, slots=True)
class Progress:
    """The last report of a job's last attempt, as ``job.progress()`` made it."""

    done: float = field(metadata=doc("From 0 to `total`.", 1240))
    total: float = field(metadata=doc("Above 0; 1 if the task reports a fraction.", 5000))
    message: str | None = field(default=None, metadata=doc(example="rendering"))

    @property
    def fraction(self) -> float:
        """``done`` of ``total``, from 0 to 1."""
        return self.done / self.total

    @property
    def percent(self) -> int:
        """``fraction`` in per cent, rounded; 100 only if everything is done."""
        return 100 if self.done == self.total else min(round(self.fraction * 100), 99)

    def __str__(self) -> str:
        """Return it in words, as ``24 % (1,240 of 5,000): rendering``."""
        parts = "" if self.total == 1 else f" ({self.done:,} of {self.total:,})"
        message = "" if self.message is None else f": {self.message}"
        return f"{self.percent} %{parts}{message}"


Report = tuple[float, float, str | None]
"""``done``, ``total`` and the message of a call of ``job.progress()``."""


def report_of(done: Any, total: Any, message: Any) -> Report:
    """Check the arguments of ``job.progress()`` and return its report; a text in place of ``total`` is the message.

    Raises:
        InvalidOptions: The numbers are no progress.
        TypeError: ``done`` or ``total`` is no number, or the message no text.
    """
    if total is None or isinstance(total, str):
        message, total = total, 1
    done, total = _number(done, "done"), _number(total, "total")
    if not 0 <= done <= total <= MAX_TOTAL or total == 0:
        raise InvalidOptions(
            f"job.progress({_shown(done)}, {_shown(total)}): the first number is from 0 to the second one, which is"
            " above 0 and at most 1.79e308; write job.progress(0.4) for a fraction, or job.progress(1240, 5000)"
        )
    if message is not None and not isinstance(message, str):
        raise TypeError(f"job.progress() takes a text as its message, not {message!r}")
    return done, total, message


def _number(value: Any, what: str) -> float:
    """Return an int as it is, and any other number as a float.

    Raises:
        TypeError: It is no number.
    """
    if isinstance(value, (str, bytes)):
        raise TypeError(f"job.progress() takes numbers, not {what}={value!r}")
    return value if type(value) is int else float(value)


def _shown(value: float) -> str:
    # Python does not write ints of more than 4,300 digits.
    huge = isinstance(value, int) and abs(value) > MAX_TOTAL
    return "an int of more than 308 digits" if huge else repr(value)


def stored_progress(done: float, total: float, message: str | None) -> str:
    """Return progress as it is stored; lone surrogates in the message are escaped, since no answer could have them."""
    if message is not None:
        message = message[:MAX_MESSAGE].encode("utf-8", "backslashreplace").decode()[:MAX_MESSAGE]
    return json.dumps([done, total, message])


def progress_of(stored: str | None) -> Progress | None:
    """Return stored progress in its public form; None if there is none."""
    return None if stored is None else Progress(*json.loads(stored))
