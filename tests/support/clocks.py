"""The wall clock under a test's control: the one place that calls freezegun."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory

MOMENT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
"""The time of a frozen test, by default."""


@contextmanager
def freeze(moment: datetime = MOMENT) -> Iterator[FrozenDateTimeFactory]:
    """Hold the wall clock at ``moment``; ``tick(seconds)`` and ``move_to(moment)`` of what is yielded move it.

    The event loop's clock goes on, so timeouts and sleeps end (without ``real_asyncio`` a sleep never does).
    ``time.monotonic`` stands still all the same: a blocking wait with a timeout inside the block may never end.
    """
    with freeze_time(moment, real_asyncio=True) as clock:
        assert isinstance(clock, FrozenDateTimeFactory)
        yield clock
