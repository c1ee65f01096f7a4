"""Finds the queued jobs of lanes that a claim may start; the lanes take turns.

Runs inside an open write transaction.  A claim visits open lanes only, from the one behind that was served last, and
leaves each in the state that the jobs require: a lane without room is not visited again until a job of it ends or its
bucket has tokens.  A lane that stays open is not written to.
"""

import json
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from heapq import merge
from typing import Any, Final

from jobrunner.core.limits import NO_LIMIT, Limit, task_of_lane
from jobrunner.core.model import Claimed
from jobrunner.store.limits import NO_ROOM_LIMIT, Bucket, after_claim
from jobrunner.store.sqlite.sql.limits import Limits, limit_of
from jobrunner.store.sqlite.sql.statements import LANED, UNEXPIRED
from jobrunner.store.sqlite.sql.turns import Position, Turns

VISITS: Final = 1_000
"""Maximum number of lanes that a claim visits in one queue; the next round visits others."""

# From each task to the next one of its queue, else to the first one of the next queue. Two seeks: for a comparison of
# both columns at once, SQLite reads all rows of the first pair.
_OPEN_TASKS: Final = """
WITH RECURSIVE first (id) AS (
    SELECT (SELECT id FROM jobrunner_lanes WHERE state = 'open' ORDER BY queue, task, priority DESC LIMIT 1)
    UNION ALL
    SELECT coalesce(
        (SELECT id FROM jobrunner_lanes WHERE state = 'open' AND queue = lane.queue AND task > lane.task
            ORDER BY task, priority DESC LIMIT 1),
        (SELECT id FROM jobrunner_lanes WHERE state = 'open' AND queue > lane.queue
            ORDER BY queue, task, priority DESC LIMIT 1)
    )
    FROM first JOIN jobrunner_lanes lane ON lane.id = first.id
)
SELECT queue, task, priority FROM first JOIN jobrunner_lanes lane ON lane.id = first.id"""
_FIRST_SLICE: Final = 2
_GROWTH: Final = 4
"""Lanes of one of several tasks are read in slices of two, eight, and so on."""
_NEXT_PRIORITY: Final = """
SELECT priority FROM jobrunner_lanes
WHERE state = 'open' AND queue = ? AND task = ? AND priority < ? ORDER BY priority DESC LIMIT 1"""

RUNNING: Final = (
    "SELECT count(*) FROM jobrunner_jobs WHERE lane = {} AND state = 'running' AND lane IS NOT NULL"
)
_WAITING: Final = f"""
    FROM jobrunner_jobs job INDEXED BY jobrunner_jobs_laned
    WHERE {LANED} AND job.queue = {{queue}} AND job.lane = {{lane}}
    ORDER BY job.priority DESC, job.run_at, job.seq"""
_WAITING_HERE: Final = _WAITING.format(queue="l.queue", lane="l.lane")
_OLDEST: Final = """
SELECT seq, queue, state = 'queued' AND suspect = 0 FROM jobrunner_jobs INDEXED BY jobrunner_jobs_ordered
WHERE lane = ? AND ordered = 1 AND (state = 'scheduled' OR state = 'queued' OR state = 'running')
ORDER BY seq LIMIT 1"""

_ANY_OWN: Final = "SELECT EXISTS (SELECT 1 FROM jobrunner_limits WHERE scope = 'lane')"
OWN: Final = """
SELECT set_concurrency, set_rate, set_per, set_burst FROM jobrunner_limits WHERE scope = 'lane' AND name = ?"""

# Read row by row, so that no lane is visited after the last free slot is filled. The outer join keeps a lane without
# queued jobs, which must go from the list.
_VISIT: Final = f"""
SELECT l.turn, l.id, l.lane, l.ordered,
    {{}},
    (SELECT job.priority {_WAITING_HERE} LIMIT 1 OFFSET 1),
    {UNEXPIRED}
FROM jobrunner_lanes l INDEXED BY jobrunner_lanes_open
LEFT JOIN jobrunner_jobs job ON job.seq = (SELECT job.seq {_WAITING_HERE} LIMIT 1)
WHERE l.state = 'open' AND l.queue = ? AND l.task = ? AND l.priority = ? AND {{}}
ORDER BY l.turn, l.id LIMIT ? OFFSET ?"""
# The lanes that still have their turn in this round of turns, and those of the next one. The former are two seeks: for
# a comparison of both columns at once, SQLite reads all lanes of that turn.
_PARTS: Final = (
    "l.turn = ? AND l.id > ? AND l.id <= ?",
    "l.turn > ? AND l.id <= ?",
    "NOT ((l.turn, l.id) > (?, ?) AND l.id <= ?)",
)
_ORDERED, _RUNS, _SEQ = 3, 4, 6
_VISIT_COUNTING: Final = [_VISIT.format(f"({RUNNING.format('l.lane')})", part) for part in _PARTS]
_VISIT_UNCOUNTED: Final = [_VISIT.format("0", part) for part in _PARTS]

_MORE: Final = f"SELECT {UNEXPIRED} {_WAITING.format(queue='?', lane='?')} LIMIT ?"
_ONE: Final = f"SELECT {UNEXPIRED} FROM jobrunner_jobs job WHERE seq = ?"

_MOVE: Final = """
UPDATE jobrunner_lanes SET state = ?, wake_at = ?, priority = ?, turn = max(turn, ?)
WHERE id IN (SELECT value FROM json_each(?))"""
_NEWEST: Final = "SELECT coalesce(max(id), 0) FROM jobrunner_lanes"
_DROP: Final = "DELETE FROM jobrunner_lanes WHERE id IN (SELECT value FROM json_each(?))"


class Lane:
    """One open lane as a claim finds it."""

    __slots__ = (
        "behind",
        "blocked",
        "bucket",
        "id",
        "in_next_round",
        "jobs",
        "name",
        "places",
        "priority",
        "queue",
        "room",
        "taken",
        "task",
        "turn",
    )

    # A claim makes a hundred lanes, so they hold as few objects as possible.
    def __init__(
        self, queue: str, task: str, priority: int, in_next_round: bool, row: Sequence[Any]
    ) -> None:
        self.queue = queue
        self.task = task
        self.priority = priority
        self.in_next_round = in_next_round
        """True if its turn comes in the next round of turns: it was served in this one, or is newer."""
        self.turn, self.id, self.name, _, _, self.behind, seq = row[: _SEQ + 1]
        self.jobs: Sequence[Claimed] = () if seq is None else (Claimed._make(row[_SEQ:]),)
        """Its first jobs, in order; empty if none waits. The priority of the job behind them is ``behind``."""
        self.bucket: Bucket | None = None
        self.blocked = False
        """True if the oldest job of an ordered lane cannot start."""
        self.places = self.room = NO_ROOM_LIMIT
        """The number of jobs that may run beside those that do, and of those that may start now."""
        self.taken = 0
        """The number of jobs that the claim starts."""

    def priority_after_claim(self) -> int | None:
        """Return the priority of its next job once the claim has started its own; None if none waits."""
        return self.jobs[self.taken].priority if self.taken < len(self.jobs) else self.behind


class LaneSearch:
    """Finds jobs of lanes for one claim, and stores the lanes' states after it."""

    def __init__(
        self, conn: sqlite3.Connection, limits: Limits, turns: Turns, worker: int, now: int
    ) -> None:
        self._conn = conn
        self._limits = limits
        self._turns = turns
        self._now = now
        self._as_started = (worker, now, now, now)
        self._visited: list[Lane] = []
        self._offered: dict[int, Lane] = {}
        """The lanes of the jobs offered for one queue, by ``seq``, in the order of the turns."""
        self._started: dict[str, int] = {}
        """The number of jobs that this claim starts, by lane: a lane may have jobs in several queues."""
        self._own: bool | None = None
        self.next_at: int | None = None
        """The time at which the first lane with an empty bucket has tokens again."""
        self.more = False
        """True if a queue has more open lanes than one claim visits."""
        self.tasks: dict[str, dict[str, int]] = {}
        """The highest priority in an open lane, by queue and task."""
        for queue, task, priority in conn.execute(_OPEN_TASKS):
            self.tasks.setdefault(queue, {})[task] = priority
        self._newest = 0
        if self.tasks:
            (self._newest,) = conn.execute(_NEWEST).fetchone()

    def first(self, queue: str, tasks: frozenset[str], free: int) -> list[Claimed]:
        """Return at most ``free`` jobs of a queue that may start.

        They are the first job of each lane, then the second of each, and so on.
        """
        self._offered = {}
        offered: list[Claimed] = []
        known = [task for task in self.tasks.get(queue, ()) if task in tasks]
        lanes: list[Lane] = []
        rooms = {task: self._limits.room("task", task) for task in known}
        with ExitStack() as stack:
            size = 0 if len(known) == 1 else _FIRST_SLICE
            rows = [
                stack.enter_context(closing(self._rows(queue, task, rooms, size))) for task in known
            ]
            in_turn = rows[0] if len(rows) == 1 else merge(*rows, key=_turn)
            for visits, lane in enumerate(in_turn, 1):
                if rooms[lane.task]:
                    lanes.append(lane)
                    if lane.room and lane.jobs:
                        rooms[lane.task] -= 1
                        self._offer(lane, 0, offered)
                if len(offered) == free:
                    break
                if visits == VISITS:
                    self.more = True
                    break
        self._visited += lanes
        if len(offered) < free:
            self._deepen(lanes, free - len(offered), rooms)
        layer = 1
        while len(offered) < free and (
            lanes := [lane for lane in lanes if lane.room > layer < len(lane.jobs)]
        ):
            for lane in lanes[: free - len(offered)]:
                self._offer(lane, layer, offered)
            layer += 1
        # Expired jobs have no task.
        return [job for job in offered if job.task]

    def _offer(self, lane: Lane, layer: int, offered: list[Claimed]) -> None:
        job = lane.jobs[layer]
        self._offered[job.seq] = lane
        offered.append(job)

    def _rows(
        self, queue: str, task: str, rooms: Mapping[str, int], size: int
    ) -> Generator[Lane, None, None]:
        """Yield the open lanes of a task in turn, while it has room.

        Args:
            queue: The queue.
            task: The task.
            rooms: How many jobs of each task may still start.
            size: The number of lanes to read at first; 0 to read them one by one.
        """
        if rooms[task] <= 0:
            return
        limit = self._limits.lanes.get(task, NO_LIMIT)
        has_own = self._has_own()
        counts = has_own or limit.concurrency is not None
        visits = _VISIT_COUNTING if counts else _VISIT_UNCOUNTED
        priority: int | None = self.tasks[queue][task]
        while priority is not None:
            position = self._turns.position(queue, priority, self._newest)
            where = (*self._as_started, queue, task, priority)
            of_parts = (position, (position.turn, position.last), position)
            for visit, values in zip(visits, of_parts, strict=True):
                in_next_round = visit is visits[-1]
                for row in self._read(visit, (*where, *values), size):
                    lane = Lane(queue, task, priority, in_next_round, row)
                    own = self._limit_of(lane.name, limit) if has_own else limit
                    self._limit(lane, own, row[_RUNS])
                    if row[_ORDERED]:
                        self._order(lane)
                    yield lane
                    if rooms[task] <= 0:
                        return
            lower = self._conn.execute(_NEXT_PRIORITY, (queue, task, priority)).fetchone()
            priority = None if lower is None else lower[0]

    def _read(self, visit: str, values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
        if not size:
            yield from self._conn.execute(visit, (*values, -1, 0))
            return
        # A statement that is still read cannot be run for another task: the driver would compile it again.
        offset = 0
        while rows := self._conn.execute(visit, (*values, size, offset)).fetchall():
            yield from rows
            if len(rows) < size:
                return
            offset += size
            size *= _GROWTH

    def _has_own(self) -> bool:
        """Return whether a limit is set for any single lane."""
        if self._own is None:
            (found,) = self._conn.execute(_ANY_OWN).fetchone()
            self._own = bool(found)
        return self._own

    def _limit_of(self, name: str, limit: Limit) -> Limit:
        """Return the limit of a lane: that of its task, unless one is set for it."""
        row = self._conn.execute(OWN, (name,)).fetchone()
        return limit if row is None else limit.overridden(limit_of(*row))

    def _limit(self, lane: Lane, limit: Limit, running: int) -> None:
        """Apply the limits of a lane."""
        if self._started:
            running += self._started.get(lane.name, 0)
        concurrency, rate, _ = limit
        room = lane.places = (NO_ROOM_LIMIT if concurrency is None else concurrency) - running
        if rate is not None:
            lane.bucket = self._limits.buckets.of("lane", lane.name, rate)
            room = min(room, lane.bucket.tokens)
        lane.room = max(0, room)

    def _order(self, lane: Lane) -> None:
        """Offer only the oldest job of an ordered lane."""
        oldest = self._conn.execute(_OLDEST, (lane.name,)).fetchone()
        if oldest is None:
            return  # the others were enqueued when their task was not ordered
        if lane.jobs and lane.jobs[0].seq < oldest[0]:
            lane.room = min(lane.room, 1)  # so was this one
            return
        if oldest[1:] != (lane.queue, 1):
            lane.blocked = True
            lane.room = 0
            return
        lane.room = min(lane.room, 1)
        if lane.jobs[0].seq != oldest[0]:
            row = self._conn.execute(_ONE, (*self._as_started, oldest[0])).fetchone()
            lane.jobs = (Claimed._make(row),)

    def _deepen(self, lanes: Iterable[Lane], free: int, rooms: dict[str, int]) -> None:
        """Find the second and later jobs of lanes, for the slots that are left."""
        deeper = [
            lane
            for lane in lanes
            if lane.room > 1 and lane.jobs and lane.behind is not None and rooms[lane.task]
        ]
        while deeper and free > 0:
            each = -(-free // len(deeper))
            left: list[Lane] = []
            for lane in deeper:
                have = len(lane.jobs)
                want = min(lane.room, have + each, have + rooms[lane.task])
                where = (lane.queue, lane.name, want + 1)
                rows = self._conn.execute(_MORE, (*self._as_started, *where)).fetchall()
                jobs = [*map(Claimed._make, rows)]
                lane.jobs = jobs[:want]
                lane.behind = jobs[want].priority if len(jobs) > want else None
                more = len(lane.jobs) - have
                free -= more
                rooms[lane.task] -= more
                if more and lane.behind is not None and want < lane.room:
                    left.append(lane)
            deeper = [lane for lane in left if rooms[lane.task] > 0]

    def may_start(self, seq: int, lane_name: str) -> bool:
        """Return whether a suspect may start within its lane; if so, count it."""
        task = task_of_lane(lane_name)
        lane = Lane("", task, 0, False, (0, 0, lane_name, 0, 0, None, None))
        (running,) = self._conn.execute(RUNNING.format("?"), (lane_name,)).fetchone()
        limit = self._limit_of(lane_name, self._limits.lanes.get(task, NO_LIMIT))
        self._limit(lane, limit, running)
        oldest = self._conn.execute(_OLDEST, (lane_name,)).fetchone()
        starts = lane.room > 0 and (oldest is None or seq <= oldest[0])
        if starts:
            self._count(lane)
        return starts

    def take(self, jobs: Iterable[Claimed]) -> None:
        """Count the jobs that the claim starts, of those that ``first`` has returned."""
        seqs = {job.seq for job in jobs if job.lane is not None}
        last: dict[int, Lane] = {}
        for seq, lane in self._offered.items():
            if seq in seqs:
                self._count(lane)
                last[lane.priority] = lane
        for priority, lane in last.items():
            newest = self._newest
            if not lane.in_next_round:
                newest = self._turns.position(lane.queue, priority, newest).last
            self._turns.served(lane.queue, priority, Position(lane.turn, lane.id, newest))

    def _count(self, lane: Lane) -> None:
        lane.taken += 1
        self._started[lane.name] = self._started.get(lane.name, 0) + 1
        if lane.bucket is not None:
            lane.bucket.take(1)

    def store(self) -> None:
        """Write the state of each visited lane that does not stay as it is."""
        gone: list[int] = []
        alike: dict[tuple[Any, ...], list[int]] = {}
        for lane in self._visited:
            taken, bucket = lane.taken, lane.bucket
            behind = lane.priority_after_claim()
            if behind == lane.priority and bucket is None and lane.room > taken:
                continue  # stays open: nearly all lanes with more than one place
            if behind is None:
                gone.append(lane.id)
                continue
            state = after_claim(
                room=lane.places - taken,
                tokens=NO_ROOM_LIMIT if bucket is None else bucket.tokens,
                blocked=lane.blocked,
            )
            if state == "open" and behind == lane.priority:
                continue
            wake_at, turn = None, 0
            if state == "empty" and bucket is not None:
                wake_at = bucket.next_at
                turn = self._now  # a repair sees by the turn that the clock was set back
                self.next_at = wake_at if self.next_at is None else min(self.next_at, wake_at)
            alike.setdefault((state, wake_at, behind, turn), []).append(lane.id)
        if gone:
            self._conn.execute(_DROP, (json.dumps(gone),))
        for moved, ids in alike.items():
            self._conn.execute(_MOVE, (*moved, json.dumps(ids)))


def _turn(lane: Lane) -> tuple[int, bool, int, int]:
    return -lane.priority, lane.in_next_round, lane.turn, lane.id
