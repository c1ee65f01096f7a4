"""Keeps outcomes that wait for another open transaction, and hands them back."""

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from jobrunner.core.logs import log_of
from jobrunner.core.model import Outcome

logger = log_of("jobrunner")

PAUSE_S: Final = 0.5
LAST_TRIES: Final = 10
"""Tries while the committer closes: requests have ended by then, and with them their sessions."""


class BusyOutcomes:
    """The outcomes that wait, and the timer that hands them back."""

    def __init__(self, hand_back: Callable[[Sequence[Outcome]], None]) -> None:
        self._hand_back = hand_back
        self._outcomes: list[Outcome] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tries_left = LAST_TRIES

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._outcomes)

    def __bool__(self) -> bool:
        return bool(self._outcomes)

    def keep(self, outcomes: Sequence[Outcome], *, closing: bool) -> None:
        """Hand outcomes back after a pause; give them up if this is the last try before the close."""
        if closing:
            self._tries_left -= 1
        if self._tries_left <= 0:
            logger.error(
                "%d attempt(s) ended, and an open transaction has kept that from being written until the close: their"
                " jobs run again",
                len(outcomes),
            )
            return
        logger.warning(
            "an open transaction delays the ends of %d attempt(s): it holds their batch, their lane or a row that they"
            " write",
            len(outcomes),
        )
        self._outcomes += outcomes
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE_S, self._put_back)

    def drop(self, workers: Collection[int]) -> None:
        """Forget the outcomes of these workers."""
        self._outcomes = [one for one in self._outcomes if one.job.worker not in workers]

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put_back(self) -> None:
        self._timer = None
        outcomes, self._outcomes = self._outcomes, []
        self._hand_back(outcomes)
