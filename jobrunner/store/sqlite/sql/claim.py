"""Finds the queued jobs that a worker may run, and starts them.

Runs inside an open write transaction.  A claim reads the first rows of each queue in claim order and starts those that
the worker knows, so its cost depends neither on the number of tasks nor on the rows behind.  If too many of the first
rows have tasks that the worker does not know, the claim reads the first rows of each waiting task instead.  A task
without room under its limit counts as unknown.  Jobs in lanes are found by ``laned.py`` and merged with the others.
"""

import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from heapq import nsmallest
from itertools import chain
from typing import Any, Final, NamedTuple

from jobrunner.core.model import Claim, Claimed, Enqueue, Outcome
from jobrunner.store.limits import NO_ROOM_LIMIT
from jobrunner.store.rules import Rank, claim_order
from jobrunner.store.sqlite.sql.laned import LaneSearch
from jobrunner.store.sqlite.sql.limits import Limits
from jobrunner.store.sqlite.sql.statements import (
    EXCEPTIONS,
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
from jobrunner.store.sqlite.sql.turns import Turns

PASSED_OVER: Final = 64
"""Rows of unknown tasks to read before searching task by task, which costs 50 µs and 4 µs per task."""
CHARACTERS_PER_ROW: Final = 4096
"""Arguments are read with their row; each this many characters count as one more row."""

_BEHIND_ALL: Final[Rank] = (2**63 - 1, 2**63 - 1, 2**63 - 1)

_TASK: Final = Claimed._fields.index("task")
_ARGS: Final = Claimed._fields.index("args")


class Heads:
    """Caches the position of the first runnable job per queue.

    Only queues with many other jobs before that position have one.  Finding it costs one seek per waiting task.  It is
    kept from round to round and dropped by any write that could put a job before it: a commit of another connection,
    any other write on this connection (such as the worker's own beat), and a round that promotes or releases jobs.
    """

    def __init__(self) -> None:
        self.ranks: dict[str, Rank] = {}
        self._tasks: frozenset[str] | None = None
        self._written: tuple[int, int] | None = None

    def check(self, conn: sqlite3.Connection) -> None:
        """Drop all positions if anything was written since ``keep``; call before a round writes."""
        if self.ranks and self._written != _written(conn):
            self.ranks.clear()

    def added(self, jobs: Iterable[Enqueue]) -> None:
        """Drop the positions that one of these jobs comes before."""
        for job in jobs if self.ranks else ():
            rank = self.ranks.get(job.queue)
            if rank is not None and (-job.priority, job.run_at) < rank[:2]:
                del self.ranks[job.queue]

    def of(self, tasks: frozenset[str]) -> dict[str, Rank]:
        """Return the positions for a worker with these tasks, by queue."""
        if self._tasks != tasks:
            self.ranks.clear()
            self._tasks = tasks
        return self.ranks

    def keep(self, conn: sqlite3.Connection) -> None:
        """Record the current state of the file; call at the end of a round."""
        if self.ranks:
            self._written = _written(conn)


def _written(conn: sqlite3.Connection) -> tuple[int, int]:
    """Return a value that changes with each commit elsewhere and each row changed here."""
    (others,) = conn.execute("PRAGMA data_version").fetchone()
    return others, conn.total_changes


class Result(NamedTuple):
    """The result of a claim."""

    jobs: Sequence[Claimed]
    """The jobs, in claim order."""
    next_at: int | None = None
    """The time at which an empty bucket has tokens again; None if none is empty."""
    more: bool = False
    """True if there were more lanes than one claim visits: the next round claims again."""
    freed: Callable[[Sequence[Outcome]], int] = lambda _: 0
    """Returns how many of these outcomes have freed a place under the limit of a queue or a task."""


NOTHING: Final = Result([])


def claim(conn: sqlite3.Connection, claim: Claim, now: int, heads: Heads, turns: Turns) -> Result:
    """Start at most as many jobs as the worker has free slots."""
    is_paused, is_limited = conn.execute(EXCEPTIONS).fetchone()
    paused = {queue for (queue,) in conn.execute(PAUSED)} if is_paused else frozenset()
    limits = Limits(conn, now) if is_limited else None
    lanes = None if limits is None else LaneSearch(conn, limits, turns, claim.worker, now)
    tasks = claim.tasks if limits is None else limits.with_room(claim.tasks)
    search = _Search(conn, claim.worker, tasks, now, heads.of(tasks), limits, lanes)
    slots, suspects = claim.slots, claim.suspects
    held: list[Claimed] = []
    if claim.held is not None:
        held = _claimed_before(conn, claim.worker, claim.held)
        slots = {
            queue: free - sum(job.queue == queue for job in held) for queue, free in slots.items()
        }
        suspects = suspects and not any(job.suspect for job in held)
    found: list[list[Claimed]] = []
    for queue, slots_left in slots.items():
        free = slots_left if limits is None else min(slots_left, limits.room("queue", queue))
        if queue in paused or free <= 0:
            continue
        if suspects and (suspect := search.first_suspect(queue)):
            found.append(suspect)
            suspects = False
            free -= 1
        if free and (jobs := search.first(queue, free)):
            found.append(jobs)
    if found:
        started = _json_ints([job.seq for jobs in found for job in jobs])
        conn.execute(START, (claim.worker, now, now, started))
    if held:
        found.append(held)
    # The jobs of each queue are already in claim order.
    claimed = found[0] if len(found) == 1 else sorted(chain.from_iterable(found), key=claim_order)
    if limits is None or lanes is None:
        return Result(claimed)
    lanes.store()
    limits.buckets.store()
    waits = [at for at in (lanes.next_at, limits.next_token_at()) if at is not None]
    return Result(claimed, min(waits, default=None), lanes.more, limits.freed)


def _claimed_before(
    conn: sqlite3.Connection, worker: int, held: frozenset[tuple[int, int]]
) -> list[Claimed]:
    """Return the jobs that the worker claimed in rounds whose answer was lost."""
    running = map(Claimed._make, conn.execute(RUNNING, (worker,)))
    return sorted((job for job in running if (job.seq, job.lease) not in held), key=claim_order)


class _Search(NamedTuple):
    """Finds jobs that one worker may run; returns them as they will be once started."""

    conn: sqlite3.Connection
    worker: int
    tasks: frozenset[str]
    now: int
    heads: dict[str, Rank]
    limits: Limits | None
    lanes: LaneSearch | None
    """None if no queue, task or lane has a limit, and no lane has a job."""

    def first(self, queue: str, free: int) -> list[Claimed]:
        """Return the first ``free`` jobs of a queue that may start, in claim order."""
        chosen = self.plain(queue, free)
        if self.limits is None or self.lanes is None:
            return chosen
        if queue in self.lanes.tasks:
            laned = self.lanes.first(queue, self.tasks, free)
            if laned:
                merged = self.merged(chosen, laned, free) if chosen else laned
                chosen = sorted(merged, key=claim_order)
            self.lanes.take(chosen)
        self.limits.take(chosen)
        return chosen

    def merged(self, plain: list[Claimed], laned: list[Claimed], free: int) -> list[Claimed]:
        """Merge jobs in claim order; those in lanes keep the order of their turns."""
        chosen: list[Claimed] = []
        rooms = {} if self.limits is None else self.limits.rooms(self.tasks)
        # The first job of each is the last, to be taken by pop().
        sources = [plain[::-1], laned[::-1]]
        while len(chosen) < free and (ready := [source for source in sources if source]):
            job = min(ready, key=lambda source: claim_order(source[-1])).pop()
            if _takes(rooms, job.task):
                chosen.append(job)
        return chosen

    def in_order(self, queue: str) -> Generator[tuple[Any, ...], None, None]:
        """Yield the rows of a queue in claim order, from the cached position on."""
        values = (self.worker, self.now, self.now, self.now, queue)
        head = self.heads.get(queue)
        if head is None:
            yield from self.conn.execute(FIRST_IN_ORDER, values)
        else:
            priority, run_at, seq = -head[0], *head[1:]
            yield from self.conn.execute(REST_OF_PRIORITY, (*values, priority, run_at, seq))
            yield from self.conn.execute(LOWER_PRIORITIES, (*values, priority))

    def plain(self, queue: str, free: int) -> list[Claimed]:
        """Return the first ``free`` runnable jobs outside lanes, in claim order."""
        found: list[Claimed] = []
        passed_over = 0
        rooms = None if self.limits is None else self.limits.rooms(self.tasks)
        # Row by row, so that nothing is read after the last free slot is filled.
        with closing(self.in_order(queue)) as rows:
            for row in rows:
                if row[_TASK] in self.tasks and (rooms is None or _takes(rooms, row[_TASK])):
                    found.append(Claimed._make(row))
                    if len(found) == free:
                        break
                else:
                    passed_over += 1 + len(row[_ARGS]) // CHARACTERS_PER_ROW
                    if passed_over >= PASSED_OVER:
                        return self.first_of_tasks(queue, free)
        return found

    def first_of_tasks(self, queue: str, free: int) -> list[Claimed]:
        """Return the same jobs as ``plain``, but search the first jobs of each task."""
        values = {"queue": queue, "now": self.now, "limit": free}
        waiting = self.conn.execute(FIRST_OF_TASKS, values)
        firsts = nsmallest(free, (first for first in waiting if first[-1] in self.tasks))
        # No job after the last of ``firsts`` can be needed: each of the ``free`` tasks has a job before it.
        last = firsts[-1][:-1] if len(firsts) == free else None
        ranks: list[Rank] = []
        for *_, task in firsts:
            if self.limits is not None:
                values["limit"] = min(free, self.limits.room("task", task))
            for rank in self.conn.execute(RANK, values | {"task": task}):
                if last is not None and rank > last:
                    break
                ranks.append(rank)
        first = sorted(ranks)[:free]
        self.heads[queue] = first[0] if first else _BEHIND_ALL
        return self.listed([seq for _, _, seq in first])

    def first_suspect(self, queue: str) -> list[Claimed]:
        """Return the first runnable suspect of a queue as a list; empty if there is none."""
        for seq, task, lane in self.conn.execute(SUSPECTS, (queue, self.now)):
            if task not in self.tasks:
                continue
            if self.limits is not None and self.limits.room("task", task) <= 0:
                continue  # the jobs of a queue before this one have taken it
            if lane is not None and (self.lanes is None or not self.lanes.may_start(seq, lane)):
                continue
            found = self.listed([seq])
            if self.limits is not None:
                self.limits.take(found)
            return found
        return []

    def listed(self, seqs: Sequence[int]) -> list[Claimed]:
        """Return jobs by ``seq``, in the given order."""
        rows = self.conn.execute(LISTED, (self.worker, self.now, self.now, _json_ints(seqs)))
        by_seq = {row[0]: Claimed._make(row) for row in rows}
        return [by_seq[seq] for seq in seqs]


def _json_ints(numbers: Sequence[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"


def _takes(rooms: dict[str, int], task: str) -> bool:
    """Return whether one more job of a task may start; if so, count it."""
    room = rooms.get(task, NO_ROOM_LIMIT)
    rooms[task] = room - 1
    return room > 0
