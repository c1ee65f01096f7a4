"""The exceptions that a task raises to decide what happens to its own job."""

from datetime import datetime, timedelta

from jobrunner.core.exports import exported
from jobrunner.core.hints import answer_to


def _refuse_foreign_words(call: str, words: dict[str, object]) -> None:
    """Raise TypeError for an unknown keyword, with our word if one is known."""
    for word in words:
        line = answer_to("steering option", word, call)
        hint = f"; write {line}" if line else ""
        raise TypeError(f"{call}() has no option {word!r}{hint}")


class Steering(Exception):
    """The base class of ``Retry``, ``Snooze`` and ``Bury``, which a task raises."""


class _Postponed(Steering):
    def __init__(
        self,
        delay: float | timedelta | None = None,
        *,
        run_at: datetime | None = None,
        **foreign: object,
    ) -> None:
        _refuse_foreign_words(type(self).__name__, foreign)
        if delay is not None and run_at is not None:
            raise TypeError(f"{type(self).__name__}() takes a delay or a run_at, not both")
        super().__init__(delay if run_at is None else run_at)
        self.delay = delay
        self.run_at = run_at


@exported
class Retry(_Postponed):
    """Raised by a task: end the attempt as failed and run the job again.

    The given time overrides the task's ``wait``. ``max_attempts`` still applies: after the last attempt the job becomes
    a dead letter. Without a time the task's ``wait`` decides.

    ::

        response = await client.post(url)
        if response.status_code == 429:
            raise Retry(float(response.headers["Retry-After"]))

    Args:
        delay: Seconds, or a timedelta, from now.
        run_at: An aware datetime, instead of ``delay``.

    Raises:
        TypeError: Both a delay and a ``run_at`` are given, or an unknown option.
    """


@exported
class Snooze(_Postponed):
    """Raised by a task: run the job again later, without using an attempt.

    ::

        if not await report_is_ready(report_id):
            raise Snooze(60)

    Args:
        delay: Seconds, or a timedelta, from now.
        run_at: An aware datetime, instead of ``delay``.

    Raises:
        TypeError: Neither or both of the two are given, or an unknown option.
    """

    def __init__(
        self,
        delay: float | timedelta | None = None,
        *,
        run_at: datetime | None = None,
        **foreign: object,
    ) -> None:
        super().__init__(delay, run_at=run_at, **foreign)
        if delay is None and run_at is None:
            raise TypeError("Snooze() needs to know for how long: Snooze(60) or Snooze(run_at=...)")


@exported
class Bury(Steering):
    """Raised by a task: make the job a dead letter now.

    Attempts that are left are not used.

    ::

        if payment.is_refused:
            raise Bury("the card was refused")

    Args:
        why: Stored as the error of the dead letter.
    """

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why
