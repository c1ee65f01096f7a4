"""Finds the queued jobs of lanes that a claim may start; the lanes take turns.

Runs inside an open write transaction.  A claim visits open lanes only, in the order of their turns, and leaves each
in the state that the jobs require: a lane without room is not visited again until a job of it ends or its bucket has
tokens.
"""

import json
import sqlite3
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, closing
from heapq import merge
from typing import Any, Final

from jobrunner.core.limits import NO_LIMIT, Limit, task_of_lane
from jobrunner.core.model import Claimed
from jobrunner.store.limits import NO_ROOM_LIMIT, Bucket, after_claim
from jobrunner.store.sqlite.sql.limits import Limits, limit_of
from jobrunner.store.sqlite.sql.statements import LANED, UNEXPIRED

VISITS: Final = 1_000
"""Maximum number of lanes that a claim visits in one queue; the next round visits others."""

# The next task of a queue, else the first one of the next queue. Two seeks: for a comparison of both columns at once,
# SQLite reads all rows of the first pair.
_OPEN_TASKS: Final = """
SELECT * FROM (
    SELECT queue, task FROM jobrunner_lanes
    WHERE state = 'open' AND queue = :queue AND task > :task ORDER BY task LIMIT 1
)
UNION ALL SELECT * FROM (
    SELECT queue, task FROM jobrunner_lanes WHERE state = 'open' AND queue > :queue ORDER BY queue, task LIMIT 1
)
LIMIT 1"""

RUNNING: Final = (
    "SELECT count(*) FROM jobrunner_jobs WHERE lane = {} AND state = 'running' AND lane IS NOT NULL"
)
_WAITING: Final = f"""
    FROM jobrunner_jobs job INDEXED BY jobrunner_jobs_laned
    WHERE {LANED} AND job.queue = {{queue}} AND job.task = {{task}} AND job.lane = {{lane}}
    ORDER BY job.priority DESC, job.run_at, job.seq"""
_WAITING_HERE: Final = _WAITING.format(queue="l.queue", task="l.task", lane="l.lane")
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
SELECT l.priority, l.turn, l.id, l.lane, l.ordered,
    {{}},
    (SELECT job.priority {_WAITING_HERE} LIMIT 1 OFFSET 1),
    {UNEXPIRED}
FROM jobrunner_lanes l INDEXED BY jobrunner_lanes_open
LEFT JOIN jobrunner_jobs job ON job.seq = (SELECT job.seq {_WAITING_HERE} LIMIT 1)
WHERE l.state = 'open' AND l.queue = ? AND l.task = ?
ORDER BY l.priority DESC, l.turn"""
_VISIT_COUNTING: Final = _VISIT.format(f"({RUNNING.format('l.lane')})")
_VISIT_UNCOUNTED: Final = _VISIT.format("0")

_MORE: Final = f"SELECT {UNEXPIRED} {_WAITING.format(queue='?', task='?', lane='?')} LIMIT ?"
_ONE: Final = f"SELECT {UNEXPIRED} FROM jobrunner_jobs job WHERE seq = ?"

_MOVE: Final = """
UPDATE jobrunner_lanes SET state = ?, wake_at = ?, priority = ?, turn = ?
WHERE id IN (SELECT value FROM json_each(?))"""
_LAST_TURN: Final = """
SELECT max(turn) FROM jobrunner_lanes WHERE state = 'open' AND queue = ? AND task = ? AND priority = ?"""
_DROP: Final = "DELETE FROM jobrunner_lanes WHERE id IN (SELECT value FROM json_each(?))"


class Lane:
    """One open lane as a claim finds it."""

    __slots__ = (
        "blocked",
        "bucket",
        "id",
        "jobs",
        "limit",
        "name",
        "next",
        "priority",
        "queue",
        "room",
        "running",
        "taken",
        "task",
        "turn",
    )

    def __init__(
        self, id: int, name: str, queue: str, task: str, priority: int = 0, turn: int = 0
    ) -> None:
        self.id = id
        self.name = name
        self.queue = queue
        self.task = task
        self.priority = priority
        self.turn = turn
        self.limit = NO_ROOM_LIMIT
        self.running = self.room = self.taken = 0
        self.bucket: Bucket | None = None
        self.blocked = False
        self.jobs: list[Claimed] = []
        """Its first jobs, in order; empty if none waits."""
        self.next: list[int | None] = []
        """The priority of the job behind each of ``jobs``; None if none waits there."""


class LaneSearch:
    """Finds jobs of lanes for one claim, and stores the lanes' states after it."""

    def __init__(self, conn: sqlite3.Connection, limits: Limits, worker: int, now: int) -> None:
        self._conn = conn
        self._limits = limits
        self._now = now
        self._as_started = (worker, now, now, now)
        self._visited: list[Lane] = []
        self._by_seq: dict[int, Lane] = {}
        self._started: dict[str, int] = {}
        """The number of jobs that this claim starts, by lane: a lane may have jobs in several queues."""
        self._turns: dict[tuple[str, str, int], int] = {}
        self._own: bool | None = None
        self.next_at: int | None = None
        """The time at which the first lane with an empty bucket has tokens again."""
        self.more = False
        """True if a queue has more open lanes than one claim visits."""
        self.tasks: dict[str, list[str]] = {}
        """The tasks with open lanes, by queue."""
        after = {"queue": "", "task": ""}
        while (row := conn.execute(_OPEN_TASKS, after).fetchone()) is not None:
            queue, task = row
            after = {"queue": queue, "task": task}
            self.tasks.setdefault(queue, []).append(task)

    def first(self, queue: str, tasks: frozenset[str], free: int) -> list[Claimed]:
        """Return at most ``free`` jobs of a queue that may start.

        They are the first job of each lane, then the second of each, and so on.
        """
        known = [task for task in self.tasks.get(queue, ()) if task in tasks]
        lanes: list[Lane] = []
        found = 0
        rooms = {task: self._limits.room("task", task) for task in known}
        with ExitStack() as stack:
            rows = [stack.enter_context(closing(self._rows(queue, task, rooms))) for task in known]
            in_turn = rows[0] if len(rows) == 1 else merge(*rows, key=_turn)
            for visits, lane in enumerate(in_turn, 1):
                if rooms[lane.task]:
                    lanes.append(lane)
                    if lane.room and lane.jobs:
                        rooms[lane.task] -= 1
                        found += 1
                if found == free:
                    break
                if visits == VISITS:
                    self.more = True
                    break
        self._visited += lanes
        if found < free:
            self._deepen(lanes, free - found, rooms)
        offered: list[Claimed] = []
        layer = 0
        while len(offered) < free and (
            lanes := [lane for lane in lanes if lane.room > layer < len(lane.jobs)]
        ):
            for lane in lanes[: free - len(offered)]:
                job = lane.jobs[layer]
                self._by_seq[job.seq] = lane
                offered.append(job)
            layer += 1
        # Expired jobs have no task.
        return [job for job in offered if job.task]

    def _rows(self, queue: str, task: str, rooms: Mapping[str, int]) -> Generator[Lane, None, None]:
        if rooms[task] <= 0:
            return
        limit = self._limits.lanes.get(task, NO_LIMIT)
        has_own = self._has_own()
        counts = has_own or limit.concurrency is not None
        visit = _VISIT_COUNTING if counts else _VISIT_UNCOUNTED
        for priority, turn, id, name, ordered, running, behind, *job in self._conn.execute(
            visit, (*self._as_started, queue, task)
        ):
            lane = Lane(id, name, queue, task, priority, turn)
            if job[0] is not None:
                lane.jobs.append(Claimed._make(job))
                lane.next.append(behind)
            self._limit(lane, self._limit_of(name, limit) if has_own else limit, running)
            if ordered:
                self._order(lane)
            yield lane
            if rooms[task] <= 0:
                return

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
        lane.running = running
        concurrency, rate, _ = limit
        if concurrency is not None:
            lane.limit = concurrency
        room = lane.limit - running
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
            lane.jobs = [Claimed._make(row)]

    def _deepen(self, lanes: Iterable[Lane], free: int, rooms: dict[str, int]) -> None:
        """Find the second and later jobs of lanes, for the slots that are left."""
        deeper = [
            lane
            for lane in lanes
            if lane.room > 1 and lane.jobs and lane.next[0] is not None and rooms[lane.task]
        ]
        while deeper and free > 0:
            each = -(-free // len(deeper))
            left: list[Lane] = []
            for lane in deeper:
                have = len(lane.jobs)
                want = min(lane.room, have + each, have + rooms[lane.task])
                where = (lane.queue, lane.task, lane.name, want + 1)
                rows = self._conn.execute(_MORE, (*self._as_started, *where)).fetchall()
                jobs = [*map(Claimed._make, rows)]
                lane.jobs = jobs[:want]
                lane.next = [*(job.priority for job in jobs[1:]), None][:want]
                more = len(lane.jobs) - have
                free -= more
                rooms[lane.task] -= more
                if more and lane.next[-1] is not None and want < lane.room:
                    left.append(lane)
            deeper = [lane for lane in left if rooms[lane.task] > 0]

    def may_start(self, seq: int, lane_name: str) -> bool:
        """Return whether a suspect may start within its lane; if so, count it."""
        task = task_of_lane(lane_name)
        lane = Lane(0, lane_name, "", task)
        (running,) = self._conn.execute(RUNNING.format("?"), (lane_name,)).fetchone()
        limit = self._limit_of(lane_name, self._limits.lanes.get(task, NO_LIMIT))
        self._limit(lane, limit, running)
        oldest = self._conn.execute(_OLDEST, (lane_name,)).fetchone()
        starts = lane.room > 0 and (oldest is None or seq <= oldest[0])
        if starts:
            self._count(lane)
        return starts

    def take(self, jobs: Iterable[Claimed]) -> None:
        """Count jobs that the claim starts."""
        by_seq = self._by_seq
        for job in jobs:
            if job.lane is not None and job.seq in by_seq:
                self._count(by_seq[job.seq])

    def _count(self, lane: Lane) -> None:
        lane.taken += 1
        self._started[lane.name] = self._started.get(lane.name, 0) + 1
        if lane.bucket is not None:
            lane.bucket.take(1)

    def store(self) -> None:
        """Write the state of each visited lane."""
        gone: list[int] = []
        alike: dict[tuple[Any, ...], list[int]] = {}
        for lane in self._visited:
            taken, bucket = lane.taken, lane.bucket
            priority, turn = lane.priority, lane.turn
            behind = lane.next[taken - 1] if taken else priority if lane.jobs else None
            if behind is None:
                gone.append(lane.id)
                continue
            state = after_claim(
                room=lane.limit - lane.running - taken,
                tokens=NO_ROOM_LIMIT if bucket is None else bucket.tokens,
                blocked=lane.blocked,
            )
            if state == "open" and not taken:
                continue
            wake_at = None
            if state == "empty" and bucket is not None:
                wake_at = bucket.next_at
                turn = max(turn, self._now)  # a repair sees by the turn that the clock was set back
                self.next_at = wake_at if self.next_at is None else min(self.next_at, wake_at)
            if taken:
                priority = behind
                turn = self._turn_after(lane, priority)
            alike.setdefault((state, wake_at, priority, turn), []).append(lane.id)
        if gone:
            self._conn.execute(_DROP, (json.dumps(gone),))
        # Nearly all lanes move in the same way.
        for moved, ids in alike.items():
            self._conn.execute(_MOVE, (*moved, json.dumps(ids)))

    def _turn_after(self, lane: Lane, priority: int) -> int:
        """Return a turn behind all open lanes, whatever the clock says."""
        where = (lane.queue, lane.task, priority)
        turn = self._turns.get(where)
        if turn is None:
            (last,) = self._conn.execute(_LAST_TURN, where).fetchone()
            turn = self._turns[where] = max(self._now, 0 if last is None else last + 1)
        return turn


def _turn(lane: Lane) -> tuple[int, int]:
    return -lane.priority, lane.turn
