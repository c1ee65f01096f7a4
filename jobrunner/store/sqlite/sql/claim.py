"""Finds the waiting jobs that a worker may run, and starts them, inside an open write transaction.

A claim reads the first rows of each queue in claim order and starts those that it may run, so that what it costs
depends neither on the number of tasks nor on the rows behind.  Where too many rows at the head are of tasks that the
worker does not know, it asks for the first rows of each task that waits.
"""

import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from heapq import nsmallest
from itertools import chain
from typing import Any, Final, NamedTuple

from jobrunner.core.model import Claim, Claimed, Enqueue
from jobrunner.store.rules import Rank, claim_order
from jobrunner.store.sqlite.sql.statements import (
    FIRST_IN_ORDER,
    FIRST_OF_TASKS,
    LISTED,
    LOWER_PRIORITIES,
    PAUSED,
    RANK,
    REST_OF_PRIORITY,
    RUNNING,
    START,
    SUSPECTS,
)

PASSED_OVER: Final = 64
"""So many rows that cannot run are read before the tasks are asked one by one: 50 µs, and 4 µs for each task."""
CHARACTERS_PER_ROW: Final = 4096
"""Arguments are read with their row; so long ones count as one row more."""

_BEHIND_ALL: Final[Rank] = (2**63 - 1, 2**63 - 1, 2**63 - 1)

_TASK: Final = Claimed._fields.index("task")
_ARGS: Final = Claimed._fields.index("args")


class Heads:
    """The places of the first rows that a worker can run, in queues with many before them that it cannot.

    To find that place costs a seek for each task that waits.  It is kept from round to round while nothing has been
    written but what this sees, so that it is forgotten by whatever might put a job before it: another connection's
    commit, anything else on this one, such as the worker's own beat, and a round that promotes or releases.
    """

    def __init__(self) -> None:
        self.ranks: dict[str, Rank] = {}
        self._tasks: frozenset[str] | None = None
        self._written: tuple[int, int] | None = None

    def check(self, conn: sqlite3.Connection) -> None:
        """Forget all if anything has been written since ``keep``; before a round writes."""
        if self.ranks and self._written != _written(conn):
            self.ranks.clear()

    def added(self, jobs: Iterable[Enqueue]) -> None:
        """Forget the queues in which one of these jobs comes first."""
        for job in jobs if self.ranks else ():
            rank = self.ranks.get(job.queue)
            if rank is not None and (-job.priority, job.run_at) < rank[:2]:
                del self.ranks[job.queue]

    def of(self, tasks: frozenset[str]) -> dict[str, Rank]:
        """Return the places for a worker with these tasks, by queue."""
        if self._tasks != tasks:
            self.ranks.clear()
            self._tasks = tasks
        return self.ranks

    def keep(self, conn: sqlite3.Connection) -> None:
        """Note the present state of the file; at the end of a round."""
        if self.ranks:
            self._written = _written(conn)


def _written(conn: sqlite3.Connection) -> tuple[int, int]:
    """Return a mark that changes with each commit of another connection and each row of this one."""
    (others,) = conn.execute("PRAGMA data_version").fetchone()
    return others, conn.total_changes


def claim(conn: sqlite3.Connection, claim: Claim, now: int, heads: Heads) -> list[Claimed]:
    """Start as many jobs as the worker has free slots; return them in claim order."""
    search = _Search(conn, claim.worker, claim.tasks, now, heads.of(claim.tasks))
    slots, suspects = claim.slots, claim.suspects
    held: list[Claimed] = []
    if claim.held is not None:
        held = _claimed_before(conn, claim.worker, claim.held)
        slots = {
            queue: free - sum(job.queue == queue for job in held) for queue, free in slots.items()
        }
        suspects = suspects and not any(job.suspect for job in held)
    paused = {queue for (queue,) in conn.execute(PAUSED)}
    found: list[list[Claimed]] = []
    for queue, free in slots.items():
        if queue in paused or free <= 0:
            continue
        if suspects and (suspect := search.first_suspect(queue)):
            found.append(suspect)
            suspects = False
            free -= 1  # noqa: PLW2901 - the suspect took one of the queue's slots
        if free and (jobs := search.first(queue, free)):
            found.append(jobs)
    if found:
        started = _json_ints([job.seq for jobs in found for job in jobs])
        conn.execute(START, (claim.worker, now, now, started))
    if held:
        found.append(held)
    # Each queue's are in order.
    return found[0] if len(found) == 1 else sorted(chain.from_iterable(found), key=claim_order)


def _claimed_before(
    conn: sqlite3.Connection, worker: int, held: frozenset[tuple[int, int]]
) -> list[Claimed]:
    """Return the jobs that the worker has claimed in rounds whose answer was lost."""
    running = map(Claimed._make, conn.execute(RUNNING, (worker,)))
    return sorted((job for job in running if (job.seq, job.lease) not in held), key=claim_order)


class _Search(NamedTuple):
    """Finds jobs that one worker may run, and returns them as they will be once they are started."""

    conn: sqlite3.Connection
    worker: int
    tasks: frozenset[str]
    now: int
    heads: dict[str, Rank]

    def in_order(self, queue: str) -> Generator[tuple[Any, ...], None, None]:
        """Return the rows of a queue in claim order, without those before the place that is known."""
        values = (self.worker, self.now, self.now, self.now, queue)
        head = self.heads.get(queue)
        if head is None:
            yield from self.conn.execute(FIRST_IN_ORDER, values)
        else:
            priority, run_at, seq = -head[0], *head[1:]
            yield from self.conn.execute(REST_OF_PRIORITY, (*values, priority, run_at, seq))
            yield from self.conn.execute(LOWER_PRIORITIES, (*values, priority))

    def first(self, queue: str, free: int) -> list[Claimed]:
        """Return the first jobs of a queue in claim order."""
        found: list[Claimed] = []
        passed_over = 0
        # Row by row: nothing is read behind the last free slot.
        with closing(self.in_order(queue)) as rows:
            for row in rows:
                if row[_TASK] in self.tasks:
                    found.append(Claimed._make(row))
                    if len(found) == free:
                        break
                else:
                    passed_over += 1 + len(row[_ARGS]) // CHARACTERS_PER_ROW
                    if passed_over >= PASSED_OVER:
                        return self.first_of_tasks(queue, free)
        return found

    def first_of_tasks(self, queue: str, free: int) -> list[Claimed]:
        """Return the same from the first jobs of each task, whatever stands before them."""
        values = {"queue": queue, "now": self.now, "limit": free}
        waiting = self.conn.execute(FIRST_OF_TASKS, values)
        firsts = nsmallest(free, (first for first in waiting if first[-1] in self.tasks))
        # None that comes later is among the first: each of these tasks has one that comes before it.
        last = firsts[-1][:-1] if len(firsts) == free else None
        ranks: list[Rank] = []
        for *_, task in firsts:
            for rank in self.conn.execute(RANK, values | {"task": task}):
                if last is not None and rank > last:
                    break
                ranks.append(rank)
        first = sorted(ranks)[:free]
        self.heads[queue] = first[0] if first else _BEHIND_ALL
        return self.listed([seq for _, _, seq in first])

    def first_suspect(self, queue: str) -> list[Claimed]:
        """Return the first suspect of a queue, if there is one."""
        for seq, task in self.conn.execute(SUSPECTS, (queue, self.now)):
            if task in self.tasks:
                return self.listed([seq])
        return []

    def listed(self, seqs: Sequence[int]) -> list[Claimed]:
        """Return jobs by their numbers, in that order."""
        rows = self.conn.execute(LISTED, (self.worker, self.now, self.now, _json_ints(seqs)))
        by_seq = {row[0]: Claimed._make(row) for row in rows}
        return [by_seq[seq] for seq in seqs]


def _json_ints(numbers: Sequence[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"
