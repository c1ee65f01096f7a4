"""Counts the finished items of an iteration, and decides when its position is stored."""

import asyncio

from jobrunner.tasks.step_codec import StepCodec


class Cursor:
    """The position of one iteration."""

    __slots__ = (
        "_count",
        "_every",
        "_loop",
        "_saved_s",
        "_seconds",
        "codec",
        "is_new",
        "name",
        "position",
    )

    def __init__(
        self,
        name: str,
        codec: StepCodec,
        every: int,
        seconds: float,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.name = name
        self.codec = codec
        self.position: object = None
        """The cursor of the last finished item."""
        self.is_new = False
        """True if the position is not stored."""
        self._every = every
        self._seconds = seconds
        self._loop = loop
        self._count = 0
        self._saved_s = loop.time()

    def is_due(self, position: object) -> bool:
        """Note that an item is finished; return whether the position should be stored now."""
        self.position = position
        self.is_new = True
        self._count += 1
        return self._count >= self._every or self._loop.time() - self._saved_s >= self._seconds

    def stored(self) -> None:
        """Note that the position is being stored."""
        self.is_new = False
        self._count = 0
        self._saved_s = self._loop.time()
