"""Finds the queued jobs of lanes that a claim may start; the lanes take turns.

Runs inside an open transaction.  A claim visits open lanes only, in the order of their turns, and leaves each in the
state that the jobs require.  Before it counts what runs in a lane, it takes the lane's lock; a lane that another
transaction holds is left for the next round.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, Final

from jobrunner.core.limits import Limit, RateLimit, task_of_lane
from jobrunner.core.model import Claimed
from jobrunner.store.limits import NO_ROOM_LIMIT, Bucket, after_claim
from jobrunner.store.postgres.sql.limits import Limits, limit_of
from jobrunner.store.postgres.sql.states import EARLIER_IN_LANE, LANED
from jobrunner.store.postgres.sql.transaction import Transaction

VISITS: Final = 1_000
"""Maximum number of lanes that a claim visits in one queue; the next round visits others."""
_FEWEST: Final = 20
"""Lanes to read at once at least."""

_OPEN_TASKS: Final = """
SELECT queues.queue, tasks.task FROM unnest($1::text[]) AS queues (queue), unnest($2::text[]) AS tasks (task)
WHERE EXISTS (
    SELECT FROM jobrunner.lanes l WHERE l.state = 'open' AND l.queue = queues.queue AND l.task = tasks.task
)
ORDER BY 1, 2"""

# Ranked without locks, by a seek for each task.
_RANKED: Final = """
SELECT l.id FROM unnest($2::text[]) AS wanted (task), LATERAL (
    SELECT id, priority, turn FROM jobrunner.lanes
    WHERE state = 'open' AND queue = $1 AND task = wanted.task AND id <> ALL ($3::bigint[])
    ORDER BY priority DESC, turn, id LIMIT $4
) AS l
ORDER BY l.priority DESC, l.turn, l.id LIMIT $4"""
_LOCK: Final = """
SELECT l.id, l.lane, l.task, l.ordered, l.priority, l.turn
FROM jobrunner.lanes l JOIN jobrunner.lane_locks k ON k.lane = l.lane
WHERE l.id = ANY ($1::bigint[]) AND l.state = 'open'
ORDER BY l.priority DESC, l.turn, l.id FOR NO KEY UPDATE SKIP LOCKED"""
_MAKE_LOCK: Final = "INSERT INTO jobrunner.lane_locks VALUES ($1) ON CONFLICT (lane) DO NOTHING"
_LOCK_ONE: Final = """
SELECT FROM jobrunner.lane_locks WHERE lane = $1 FOR NO KEY UPDATE SKIP LOCKED"""

RUNNING: Final = (
    "SELECT count(*) FROM jobrunner.jobs WHERE lane = {} AND state = 'running' AND lane IS NOT NULL"
)
_WAITING: Final = f"""
    FROM jobrunner.jobs WHERE {LANED} AND queue = {{queue}} AND task = {{task}} AND lane = {{lane}}
    ORDER BY priority DESC, run_at, seq"""
_WAITING_HERE: Final = _WAITING.format(queue="l.queue", task="l.task", lane="l.lane")
OLDEST: Final = f"""
SELECT seq, queue, state = 'queued' AND NOT suspect, id FROM jobrunner.jobs
WHERE lane = {{}} AND {EARLIER_IN_LANE}
ORDER BY seq LIMIT 1"""
OWN: Final = """
SELECT set_concurrency, set_rate, set_per, set_burst FROM jobrunner.limits WHERE scope = 'lane' AND name = $1"""

# After the locks, in a statement of its own: it sees what their last holders have committed.
_VISIT: Final = f"""
SELECT l.id, ({RUNNING.format("l.lane")}), (SELECT seq {_WAITING_HERE} LIMIT 1),
    (SELECT priority {_WAITING_HERE} LIMIT 1 OFFSET 1), own.name IS NOT NULL,
    own.set_concurrency, own.set_rate, own.set_per, own.set_burst
FROM jobrunner.lanes l LEFT JOIN jobrunner.limits own ON own.scope = 'lane' AND own.name = l.lane
WHERE l.id = ANY ($1::bigint[])"""

_MORE: Final = f"SELECT seq, priority {_WAITING.format(queue='$1', task='$2', lane='$3')} LIMIT $4"

_MOVE: Final = """
UPDATE jobrunner.lanes SET state = $1, wake_at = $2, priority = $3, turn = $4 WHERE id = ANY ($5::bigint[])"""
_LAST_TURN: Final = """
SELECT max(turn) FROM jobrunner.lanes WHERE state = 'open' AND queue = $1 AND task = $2 AND priority = $3"""
_DROP: Final = "DELETE FROM jobrunner.lanes WHERE id = ANY ($1::bigint[])"


class Lane:
    """One open lane as a claim finds it."""

    __slots__ = (
        "blocked",
        "bucket",
        "id",
        "limit",
        "name",
        "next",
        "priority",
        "queue",
        "room",
        "running",
        "seqs",
        "taken",
        "task",
        "turn",
    )

    def __init__(
        self, id: int, name: str, queue: str, task: str, priority: int = 0, turn: int = 0
    ) -> None:
        self.id, self.name, self.queue, self.task = id, name, queue, task
        self.priority, self.turn = priority, turn
        self.limit = NO_ROOM_LIMIT
        self.running = 0
        self.bucket: Bucket | None = None
        self.blocked = False
        self.room = 0
        self.seqs: list[int] = []
        """Its jobs that may start, in order; empty if none waits."""
        self.next: list[int | None] = []
        """The priority of the job behind each of ``seqs``; None if none waits there."""
        self.taken = 0

    @property
    def offered(self) -> Sequence[int]:
        """The jobs that may start within the limits."""
        return self.seqs[: self.room]


class LaneSearch:
    """Finds jobs of lanes for one claim, and stores the lanes' states after it."""

    def __init__(self, tx: Transaction, limits: Limits, now: int) -> None:
        self._tx = tx
        self._limits = limits
        self._now = now
        self._visited: list[Lane] = []
        self._by_seq: dict[int, Lane] = {}
        self._turns: dict[tuple[str, str, int], int] = {}
        self.next_at: int | None = None
        """The time at which the first lane with an empty bucket has tokens again."""
        self.more = False
        """True if a queue has more open lanes than one claim visits, or others held some."""
        self.tasks: dict[str, list[str]] = {}
        """The tasks with open lanes, by queue."""

    @classmethod
    async def of(
        cls, tx: Transaction, limits: Limits, now: int, queues: Iterable[str], tasks: Iterable[str]
    ) -> "LaneSearch":
        """Find out which of a worker's tasks have open lanes in its queues."""
        self = cls(tx, limits, now)
        for queue, task in await tx.fetch(_OPEN_TASKS, list(queues), list(tasks)):
            self.tasks.setdefault(queue, []).append(task)
        return self

    async def first(self, queue: str, tasks: frozenset[str], free: int) -> list[int]:
        """Return ``seq`` of at most ``free`` jobs of a queue.

        They are the first job of each lane, then the second of each, and so on.
        """
        known = [task for task in self.tasks.get(queue, ()) if task in tasks]
        rooms = {task: self._limits.room("task", task) for task in known}
        lanes = await self._visit_until(queue, free, rooms)
        found = sum(bool(lane.room and lane.seqs) for lane in lanes)
        self._visited += lanes
        if found < free:
            await self._deepen(queue, lanes, free - found, rooms)
        offered = [lane.offered for lane in lanes]
        for lane, seqs in zip(lanes, offered, strict=True):
            for seq in seqs:
                self._by_seq[seq] = lane
        layers = zip_longest(*offered)
        return [seq for layer in layers for seq in layer if seq is not None][:free]

    async def _visit_until(self, queue: str, free: int, rooms: dict[str, int]) -> list[Lane]:
        """Visit lanes in turn until so many have a job that may start; count them in ``rooms``."""
        lanes: list[Lane] = []
        seen: list[int] = []
        found = 0
        while found < free and (tasks := [task for task, room in rooms.items() if room > 0]):
            if len(seen) >= VISITS:
                self.more = True
                break
            most = min(max(free - found, _FEWEST), VISITS - len(seen))
            ranked = [id for (id,) in await self._tx.fetch(_RANKED, queue, tasks, seen, most)]
            if not ranked:
                break
            seen += ranked
            for lane in await self._visit(queue, ranked):
                if found == free:
                    break
                if rooms[lane.task] > 0:
                    lanes.append(lane)
                    if lane.room and lane.seqs:
                        rooms[lane.task] -= 1
                        found += 1
        return lanes

    async def _visit(self, queue: str, ids: Sequence[int]) -> list[Lane]:
        """Lock lanes and count what runs and waits in them; return those that were free to lock."""
        rows = await self._tx.fetch(_LOCK, ids)
        if len(rows) < len(ids):
            self.more = True
        seen = {id: rest for id, *rest in await self._tx.fetch(_VISIT, [row["id"] for row in rows])}
        lanes: list[Lane] = []
        limits: list[Limit] = []
        for row in rows:
            running, seq, behind, has_own, *own = seen[row["id"]]
            lane = Lane(*(row["id"], row["lane"], queue, row["task"], row["priority"], row["turn"]))
            lane.running = running
            if seq is not None:
                lane.seqs, lane.next = [seq], [behind]
            limit = self._limits.lanes.get(lane.task, Limit())
            limits.append(limit.overridden(limit_of(*own)) if has_own else limit)
            lanes.append(lane)
        await self._limit(lanes, limits)
        for row, lane in zip(rows, lanes, strict=True):
            if row["ordered"]:
                await self._order(lane, queue)
        return lanes

    async def _limit(self, lanes: Sequence[Lane], limits: Sequence[Limit]) -> None:
        """Apply the limits of lanes."""
        rates: dict[str, RateLimit] = {
            lane.name: limit.rate
            for lane, limit in zip(lanes, limits, strict=True)
            if limit.rate is not None
        }
        await self._limits.buckets.load("lane", rates)
        for lane, limit in zip(lanes, limits, strict=True):
            if limit.concurrency is not None:
                lane.limit = limit.concurrency
            lane.room = max(lane.limit - lane.running, 0)
            if limit.rate is not None:
                lane.bucket = self._limits.buckets.of("lane", lane.name)
                lane.room = min(lane.room, lane.bucket.tokens)

    async def _order(self, lane: Lane, queue: str) -> None:
        """Offer only the oldest job of an ordered lane."""
        oldest = await self._tx.fetchrow(OLDEST.format("$1"), lane.name)
        if oldest is None:
            return  # the others were enqueued when their task was not ordered
        if lane.seqs and lane.seqs[0] < oldest[0]:
            lane.room = min(lane.room, 1)  # so was this one
        elif oldest[1] == queue and oldest[2]:
            lane.seqs = [oldest[0]]
            lane.next = lane.next or [None]
            lane.room = min(lane.room, 1)
        else:
            lane.blocked = True
            lane.room = 0

    async def _deepen(
        self, queue: str, lanes: Iterable[Lane], free: int, rooms: dict[str, int]
    ) -> None:
        """Find the second and later jobs of lanes, for the slots that are left."""
        deeper = [
            lane
            for lane in lanes
            if lane.room > 1 and lane.seqs and lane.next[0] is not None and rooms[lane.task]
        ]
        while deeper and free > 0:
            each = -(-free // len(deeper))
            left: list[Lane] = []
            for lane in deeper:
                have = len(lane.seqs)
                want = min(lane.room, have + each, have + rooms[lane.task])
                rows = await self._tx.fetch(_MORE, queue, lane.task, lane.name, want + 1)
                lane.seqs = [seq for seq, _ in rows[:want]]
                lane.next = [*(priority for _, priority in rows[1:]), None][:want]
                more = len(lane.seqs) - have
                free -= more
                rooms[lane.task] -= more
                if more and lane.next[-1] is not None and len(lane.seqs) < lane.room:
                    left.append(lane)
            deeper = [lane for lane in left if rooms[lane.task] > 0]

    async def may_start(self, seq: int, lane_name: str) -> bool:
        """Return whether a suspect may start within its lane; if so, take its token."""
        await self._tx.execute(_MAKE_LOCK, lane_name)
        if await self._tx.fetchrow(_LOCK_ONE, lane_name) is None:
            self.more = True
            return False
        task = task_of_lane(lane_name)
        lane = Lane(0, lane_name, "", task)
        lane.running = await self._tx.fetchval(RUNNING.format("$1"), lane_name)
        limit = self._limits.lanes.get(task, Limit())
        own = await self._tx.fetchrow(OWN, lane_name)
        await self._limit([lane], [limit if own is None else limit.overridden(limit_of(*own))])
        oldest = await self._tx.fetchrow(OLDEST.format("$1"), lane_name)
        starts = lane.room > 0 and (oldest is None or seq <= oldest[0])
        if starts:
            self._count(lane)
        return starts

    def take(self, jobs: Iterable[Claimed]) -> None:
        """Count jobs that the claim starts."""
        for job in jobs:
            lane = self._by_seq.get(job.seq)
            if lane is not None:
                self._count(lane)

    def _count(self, lane: Lane) -> None:
        lane.taken += 1
        if lane.bucket is not None:
            lane.bucket.take(1)

    async def store(self) -> None:
        """Write the state of each visited lane."""
        gone: list[int] = []
        alike: dict[tuple[Any, ...], list[int]] = {}
        for lane in self._visited:
            waits = bool(lane.seqs) and (lane.taken == 0 or lane.next[lane.taken - 1] is not None)
            if not waits:
                gone.append(lane.id)
                continue
            tokens = NO_ROOM_LIMIT if lane.bucket is None else lane.bucket.tokens
            state = after_claim(
                room=lane.limit - lane.running - lane.taken, tokens=tokens, blocked=lane.blocked
            )
            if state == "open" and not lane.taken:
                continue
            wake_at, turn, priority = None, lane.turn, lane.priority
            if state == "empty" and lane.bucket is not None:
                wake_at = lane.bucket.next_at
                turn = max(turn, self._now)  # a repair sees by the turn that the clock was set back
                self.next_at = wake_at if self.next_at is None else min(self.next_at, wake_at)
            if lane.taken:
                priority = lane.next[lane.taken - 1] or 0
                turn = await self._turn_after(lane, priority)
            alike.setdefault((state, wake_at, priority, turn), []).append(lane.id)
        if gone:
            await self._tx.execute(_DROP, gone)
        # Nearly all lanes move in the same way.
        for moved, ids in alike.items():
            await self._tx.execute(_MOVE, *moved, ids)

    async def _turn_after(self, lane: Lane, priority: int) -> int:
        """Return a turn behind all open lanes, whatever the clock says."""
        where = (lane.queue, lane.task, priority)
        turn = self._turns.get(where)
        if turn is None:
            last = await self._tx.fetchval(_LAST_TURN, *where)
            turn = self._turns[where] = max(self._now, 0 if last is None else last + 1)
        return turn
