"""Keeps work that waits for another open transaction, for a while."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final

from jobrunner.core.logs import log_of
from jobrunner.core.model import Outcome
from jobrunner.store.gathered import Unit

logger = log_of("jobrunner")

PAUSE_S: Final = 0.25
LAST_TRIES: Final = 20
"""Tries while the committer closes: requests have ended by then, and with them their sessions."""


class Busy:
    """The outcomes and the calls that wait, and the timer that hands them back."""

    def __init__(self, hand_back: Callable[[Sequence[Outcome], Sequence[Unit]], None]) -> None:
        self._hand_back = hand_back
        self.outcomes: list[Outcome] = []
        self._units: list[Unit] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tries_left = LAST_TRIES

    def __bool__(self) -> bool:
        return bool(self.outcomes or self._units)

    def keep(self, outcomes: Sequence[Outcome], units: Sequence[Unit], *, closing: bool) -> None:
        """Hand work back after a pause; give outcomes up at the last try before the close."""
        self._units += units
        if closing:
            self._tries_left -= 1
        if outcomes and self._tries_left > 0:
            logger.warning(
                "an open transaction delays the ends of %d attempt(s): it holds their batch, their lane or a row that"
                " they write",
                len(outcomes),
            )
            self.outcomes += outcomes
        elif outcomes:
            logger.error(
                "%d attempt(s) ended, and an open transaction has kept that from being written until the close: their"
                " jobs run again",
                len(outcomes),
            )
        if self and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE_S, self._put_back)

    def drop(self, workers: Collection[int]) -> None:
        """Forget the outcomes of these workers."""
        self.outcomes = [one for one in self.outcomes if one.job.worker not in workers]

    def take_units(self) -> Sequence[Unit]:
        """Return the calls that wait, and forget them."""
        units, self._units = self._units, []
        return units

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put_back(self) -> None:
        self._timer = None
        outcomes, self.outcomes = self.outcomes, []
        self._hand_back(outcomes, self.take_units())
