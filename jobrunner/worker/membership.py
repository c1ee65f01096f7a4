"""Keeps one worker's place on its store: its number, and whether the store can prove that it lives."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from jobrunner.core.clock import from_us, now_us
from jobrunner.core.errors import StoreError, StoreFailed
from jobrunner.core.logs import log_of
from jobrunner.core.model import WorkerRow
from jobrunner.store.protocol import Standing, Store

logger = log_of("jobrunner")

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0


class Membership:
    """A worker's place on a store.

    A worker that was found dead while it lives loses its number, since what ran under it belongs to others. It joins
    again under a new one.

    Args:
        store: The store.
        on_lost: Called with the former number, when others may have taken its jobs over.
        on_joined_again: Called after the worker has joined under its new number.
        on_fatal: Called with an error after which the worker must stop.
    """

    def __init__(
        self,
        store: Store,
        *,
        on_lost: Callable[[int], None],
        on_joined_again: Callable[[], Awaitable[None]],
        on_fatal: Callable[[StoreError], None],
    ) -> None:
        self.number = secrets.randbits(63)
        self.standing: Standing = "held"
        """The store's proof of its life; a worker claims nothing unless it is ``held``."""
        self.doubtful_since: int | None = None
        """The time (µs) since which it is not ``held``."""
        self._store = store
        self._on_lost = on_lost
        self._on_joined_again = on_joined_again
        self._on_fatal = on_fatal
        self._again: asyncio.Task[None] | None = None

    async def join(self, row: WorkerRow, on_notify: Callable[[], None]) -> None:
        """Register the worker; the row gets its number."""
        await self._store.workers.join(
            row._replace(worker=self.number),
            on_notify,
            partial(self._changed, row, on_notify, self.number),
        )

    async def leave(self) -> None:
        """Unregister the worker, unless it has lost its place."""
        if self._again is not None:
            self._again.cancel()
            await asyncio.wait([self._again])
        if self.standing != "lost":
            await self._store.workers.leave(self.number, now=now_us())

    def problem(self) -> str | None:
        """Return one sentence for health; None while all is well."""
        if self.doubtful_since is None:
            return None
        since = from_us(self.doubtful_since)
        if self.standing == "doubtful":
            return (
                f"the worker has lost its session with the database at {since}: it claims nothing until it is back, and"
                " its running attempts go on"
            )
        return (
            f"the worker was found dead while it was cut off from the database (since {since}): others may have taken"
            " its jobs over, and it joins again"
        )

    def _changed(
        self, row: WorkerRow, on_notify: Callable[[], None], number: int, standing: Standing
    ) -> None:
        """Called by the store when the standing of a number has changed."""
        if number != self.number:
            return
        self.standing = standing
        if standing == "held":
            self.doubtful_since = None
        elif self.doubtful_since is None:
            self.doubtful_since = now_us()
        if standing == "lost":
            # At once: no claim or report may carry the former number any more.
            self.number = secrets.randbits(63)
            self._on_lost(number)
            self._again = asyncio.create_task(
                self._join_again(row, on_notify), name="jobrunner-join-again"
            )

    async def _join_again(self, row: WorkerRow, on_notify: Callable[[], None]) -> None:
        pause_s = FIRST_PAUSE_S
        number = self.number
        while True:
            now = now_us()
            try:
                await self.join(row._replace(started_at=now, beat_at=now), on_notify)
                break
            except StoreFailed as error:
                self._on_fatal(error)
                return
            except StoreError as error:
                logger.warning("the worker cannot join again yet: %s", error, like=type(error))
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        if number != self.number:
            return  # Lost again meanwhile: another task joins under the next number.
        if self.standing == "lost":
            # Otherwise the new session is in doubt already, and the store says when it no longer is.
            self.standing, self.doubtful_since = "held", None
        logger.info("the worker has joined again as %d", self.number)
        await self._on_joined_again()
