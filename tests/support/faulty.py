"""A real store on which chosen rounds fail, and that can be held up in the middle of one."""

import asyncio
from pathlib import Path
from typing import Literal, NamedTuple

from jobrunner.core.errors import StoreBusy
from jobrunner.store import rules
from jobrunner.store.round import Round, Written
from jobrunner.store.sqlite import SqliteStore


class Fault(NamedTuple):
    """The fault of one round."""

    when: Literal["before", "after"]
    """``before``: nothing of it is written. ``after``: all of it is, and the reply is lost."""
    error: Exception


class FaultyStore(SqliteStore):
    """Everything is the SQLite store's own; ``write`` alone can be made to fail."""

    def __init__(self, path: Path) -> None:
        # The faults are put in by hand, so the disk's sync has nothing to add.
        super().__init__(path, durability="normal")
        self.rounds: list[Round] = []
        """Every round that was begun."""
        self.faults: dict[int, Fault] = {}
        """By the round's number, from 1."""
        self.always: Fault | None = None
        """For every round, from now on."""
        self.held: set[int] = set()
        """``seq`` of jobs whose outcomes are left out, as if another transaction held what they change."""
        self.held_ids: set[str] = set()
        """Ids of jobs that cannot be enqueued, as if another transaction held their keys."""
        self.gate = asyncio.Event()
        """Shut it (``clear``), and rounds wait before they are written."""
        self.gate.set()
        self.entered = asyncio.Event()
        """A round has begun."""

    async def write(self, request: Round) -> Written:
        self.rounds.append(request)
        self.entered.set()
        await self.gate.wait()
        fault = self.faults.get(len(self.rounds), self.always)
        if fault is not None and fault.when == "before":
            raise fault.error
        written = await self._write_free(request)
        if fault is not None:
            raise fault.error
        return written

    async def _write_free(self, request: Round) -> Written:
        """Write what is not held."""
        busy = [one for one in request.outcomes if one.job.seq in self.held]
        calls = list(rules.calls(request.enqueues, request.calls))
        free = [call for call in calls if self.held_ids.isdisjoint(job.id for job in call)]
        rest = [one for one in request.outcomes if one.job.seq not in self.held]
        written = await super().write(
            request._replace(
                outcomes=rest,
                enqueues=[job for call in free for job in call],
                calls=[len(call) for call in free],
            )
        )
        stored = iter(written.enqueued)
        answers = [
            next(stored) if call in free else StoreBusy("held") for call in calls for _ in call
        ]
        return written._replace(busy=busy, enqueued=answers)
