"""Finds and starts queued jobs that a worker may run, inside an open transaction.

A job that another transaction holds is passed over.  Each known task is one index seek, so the cost depends neither on
the rows behind nor on tasks that the worker does not know.  Jobs in lanes are found by ``laned.py`` and merged with the
others.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from jobrunner.core.model import Claim, Claimed, Outcome
from jobrunner.store.limits import NO_ROOM_LIMIT
from jobrunner.store.postgres.sql.laned import LaneSearch
from jobrunner.store.postgres.sql.limits import Limits
from jobrunner.store.postgres.sql.states import LANED_ROW, PLAIN, PLAIN_ROW, SUSPECT
from jobrunner.store.postgres.sql.transaction import Transaction
from jobrunner.store.rules import claim_order

_DEEPER: Final = 20
"""Jobs to rank beyond the free slots, since others may hold the first ones."""
_DEEPEST: Final = 5_000
_FEW: Final = 2
"""Jobs of each of many tasks to read first; in all at least twice as many as are ranked."""

_COLUMNS: Final = ", ".join(Claimed._fields)
_LIVE: Final = "(expires_at IS NULL OR expires_at > $2)"

_EXCEPTIONS: Final = f"""
SELECT ARRAY(SELECT queue FROM jobrunner.paused_queues),
    EXISTS (SELECT FROM jobrunner.limits WHERE scope > 'lane')
    OR EXISTS (SELECT FROM jobrunner.lanes WHERE state = 'open')
    OR EXISTS (SELECT FROM jobrunner.jobs WHERE {SUSPECT} AND lane IS NOT NULL),
    EXISTS (SELECT FROM jobrunner.limits WHERE scope = 'queue' AND coalesce(set_max_waiting, max_waiting) IS NOT NULL),
    EXISTS (SELECT FROM jobrunner.followups),
    (SELECT true FROM jobrunner.workers WHERE worker = $1 FOR KEY SHARE) IS NOT NULL"""

# One task: the index has its jobs in order, and rows are locked as the limit pulls them.
_OF_TASK: Final = f"""
SELECT seq FROM jobrunner.jobs
WHERE {PLAIN} AND queue = $1 AND task = $3 AND {_LIVE}
ORDER BY priority DESC, run_at, seq LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED"""

# Several: ranked without locks, by a seek for each, then locked as the limit pulls. A few jobs of each task are read
# first; a task of which all these are ranked may have more that belong there.
_SEEK: Final = f"""
        SELECT seq, priority, run_at FROM jobrunner.jobs job
        WHERE {PLAIN} AND job.queue = $1 AND job.task = wanted.task AND {_LIVE}
        ORDER BY priority DESC, run_at, seq LIMIT least(wanted.depth, wanted.room)"""
# No join: of a table that was nearly empty at the last ANALYZE the planner would read all rows for each of ours.
_OF_TASKS: Final = f"""
WITH few AS MATERIALIZED (
    SELECT wanted.task, wanted.room FROM (
        SELECT task, room, $7::bigint AS depth FROM unnest($3::text[], $5::bigint[]) AS known (task, room)
    ) AS wanted, LATERAL ({_SEEK}
    ) AS first
    WHERE EXISTS (SELECT FROM jobrunner.jobs WHERE {PLAIN} AND queue = $1) -- one seek in an idle queue
    ORDER BY first.priority DESC, first.run_at, first.seq LIMIT $6
),
ranked AS MATERIALIZED (
    SELECT first.seq FROM (
        SELECT task, room, CASE WHEN count(*) < $7 THEN $7 ELSE $6 END AS depth FROM few GROUP BY task, room
    ) AS wanted, LATERAL ({_SEEK}
    ) AS first
    ORDER BY first.priority DESC, first.run_at, first.seq LIMIT $6
)
SELECT (SELECT count(*) FROM ranked), ARRAY(
    SELECT seq FROM jobrunner.jobs WHERE seq = ANY (ARRAY(SELECT seq FROM ranked)) AND {PLAIN_ROW}
    ORDER BY priority DESC, run_at, seq LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED
)"""

_SUSPECTS: Final = f"""
SELECT seq, lane FROM jobrunner.jobs
WHERE {SUSPECT} AND queue = $1 AND {_LIVE} AND task = ANY ($3::text[])
ORDER BY priority DESC, run_at, seq LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED"""
_MOST_SUSPECTS: Final = 100

_LOCK: Final = f"""
SELECT seq FROM jobrunner.jobs WHERE seq = ANY ($1::bigint[]) AND {LANED_ROW} AND {_LIVE}
FOR NO KEY UPDATE SKIP LOCKED"""

# The attempt is counted here, before any code of the task runs, so that it also counts if the job kills its process.
_START: Final = f"""
UPDATE jobrunner.jobs SET state = 'running', worker = $1, attempt = attempt + 1, lease = lease + 1, started_at = $2,
    first_started_at = coalesce(first_started_at, $2)
WHERE seq = ANY ($3::bigint[])
RETURNING {_COLUMNS}"""

# The same without limits, in one statement with the search.
_START_OF_TASK: Final = _START.replace("$1", "$5").replace("$3::bigint[]", f"ARRAY({_OF_TASK})")

_RUNNING: Final = f"SELECT {_COLUMNS} FROM jobrunner.jobs WHERE state = 'running' AND worker = $1"


class Exceptions(NamedTuple):
    """The things that nearly never exist, read once for a round."""

    paused: frozenset[str]
    """The paused queues."""
    is_limited: bool
    """True if a queue, a task or a lane may have a limit that counts."""
    has_max_waiting: bool
    has_followups: bool
    """True if earlier transactions have left something over."""
    stands: bool
    """True if the worker has a row, which stays until the commit."""

    @classmethod
    async def read(cls, tx: Transaction, worker: int | None) -> "Exceptions":
        """Read them; the worker is None in a round without a claim."""
        paused, *rest = await tx.fetchrow(_EXCEPTIONS, worker)
        return cls(frozenset(paused), *rest)


class Result(NamedTuple):
    """The result of a claim."""

    jobs: Sequence[Claimed]
    """The jobs, in claim order."""
    next_at: int | None = None
    """The time at which an empty bucket has tokens again; None if none is empty."""
    more: bool = False
    """True if the next round should claim again: there were more lanes, or another transaction held some."""
    freed: Callable[[Sequence[Outcome]], int] = lambda _: 0
    """Returns how many of these outcomes have freed a place under the limit of a queue or a task."""


NOTHING: Final = Result([])


async def claim(tx: Transaction, claim: Claim, now: int, exceptions: Exceptions) -> Result:
    """Start at most as many jobs as the worker has free slots."""
    search = _Search(tx, claim, now, exceptions.paused)
    if exceptions.is_limited:
        await search.limit()
    return await search.run()


class _Search:
    """Finds jobs that one worker may run, and starts them."""

    def __init__(self, tx: Transaction, claim: Claim, now: int, paused: frozenset[str]) -> None:
        self.tx = tx
        self.claim = claim
        self.now = now
        self.paused = paused
        self.tasks = claim.tasks
        self.limits: Limits | None = None
        self.lanes: LaneSearch | None = None
        """None if no queue, task or lane has a limit, and no lane has a job."""

    async def limit(self) -> None:
        """Apply limits: those of the worker's queues and tasks are locked, then counted."""
        queues = [queue for queue, free in self.claim.slots.items() if free > 0]
        self.limits = await Limits.locked(self.tx, self.now, queues, self.claim.tasks)
        self.lanes = await LaneSearch.of(self.tx, self.limits, self.now, queues, self.claim.tasks)
        self.tasks = self.limits.with_room(self.claim.tasks)

    async def run(self) -> Result:
        claim = self.claim
        slots, suspects = claim.slots, claim.suspects
        held: list[Claimed] = []
        if claim.held is not None:
            held = await _claimed_before(self.tx, claim.worker, claim.held)
            slots = {
                queue: free - sum(job.queue == queue for job in held)
                for queue, free in slots.items()
            }
            suspects = suspects and not any(job.suspect for job in held)
        found: list[list[Claimed]] = [held] if held else []
        for queue, slots_left in slots.items():
            free = self.room(queue, slots_left)
            if queue in self.paused or free <= 0:
                continue
            if suspects and (suspect := await self.first_suspect(queue)):
                found.append(suspect)
                suspects = False
                free -= 1
            if free and (jobs := await self.first(queue, free)):
                found.append(jobs)
        claimed = sorted(chain.from_iterable(found), key=claim_order)
        if self.limits is None or self.lanes is None:
            return Result(claimed)
        await self.lanes.store()
        await self.limits.buckets.store()
        waits = [at for at in (self.lanes.next_at, self.limits.next_token_at()) if at is not None]
        return Result(claimed, min(waits, default=None), self.lanes.more, self.limits.freed)

    def room(self, queue: str, slots: int) -> int:
        if self.limits is None or slots <= 0:
            return slots
        return min(slots, self.limits.room("queue", queue))

    async def first(self, queue: str, free: int) -> list[Claimed]:
        """Start the first ``free`` jobs of a queue that may start."""
        if self.limits is None or self.lanes is None:
            if len(self.tasks) == 1:
                (task,) = self.tasks
                values = (queue, self.now, task, free, self.claim.worker)
                return _in_order(await self.tx.fetch(_START_OF_TASK, *values))
            return await self.start(await self.plain(queue, free))
        chosen = await self.plain(queue, free)
        if queue in self.lanes.tasks:
            laned = await self.live(await self.lanes.first(queue, self.tasks, free))
            if laned:
                chosen = await self.merged(chosen, laned, free)
        started = await self.start(chosen)
        self.lanes.take(started)
        self.limits.take(started)
        return started

    async def plain(self, queue: str, free: int) -> list[int]:
        """Lock the first ``free`` runnable jobs outside lanes; return their ``seq`` in claim order."""
        rooms: Mapping[str, int] = {} if self.limits is None else self.limits.rooms(self.tasks)
        tasks = sorted(self.tasks)
        if not tasks:
            return []
        if len(tasks) == 1:
            most = min(free, rooms.get(tasks[0], free))
            rows = await self.tx.fetch(_OF_TASK, queue, self.now, tasks[0], most)
            return [seq for (seq,) in rows]
        room = [rooms.get(task, NO_ROOM_LIMIT) for task in tasks]
        deep = free + _DEEPER
        while True:
            few = min(deep, max(_FEW, _FEW * deep // len(tasks)))
            values = (queue, self.now, tasks, free, room, deep, few)
            ranked, seqs = await self.tx.fetchrow(_OF_TASKS, *values)
            # Fewer than asked for: others hold what was ranked first, or there is no more.
            if len(seqs) == free or ranked < deep or deep >= _DEEPEST:
                return list(seqs)
            deep *= 4

    async def live(self, seqs: Sequence[int]) -> list[int]:
        """Lock jobs of lanes; return those that have not expired, in the given order."""
        if not seqs:
            return []
        found = {seq for (seq,) in await self.tx.fetch(_LOCK, seqs, self.now)}
        return [seq for seq in seqs if seq in found]

    async def merged(self, plain: list[int], laned: list[int], free: int) -> list[int]:
        """Merge jobs in claim order; those in lanes keep the order of their turns."""
        rows = await self.tx.fetch(
            "SELECT seq, priority, run_at, task FROM jobrunner.jobs WHERE seq = ANY ($1::bigint[])",
            plain + laned,
        )
        ranks = {seq: (-priority, run_at, seq) for seq, priority, run_at, _ in rows}
        tasks = {seq: task for seq, _, _, task in rows}
        rooms = {} if self.limits is None else dict(self.limits.rooms(self.tasks))
        chosen: list[int] = []
        # The first job of each is the last, to be taken by pop().
        sources = [plain[::-1], laned[::-1]]
        while len(chosen) < free and (ready := [source for source in sources if source]):
            seq = min(ready, key=lambda source: ranks[source[-1]]).pop()
            room = rooms.get(tasks[seq], NO_ROOM_LIMIT)
            if room > 0:
                rooms[tasks[seq]] = room - 1
                chosen.append(seq)
        return chosen

    async def first_suspect(self, queue: str) -> list[Claimed]:
        """Start the first runnable suspect of a queue; return it as a list, empty if there is none."""
        most = 1 if self.lanes is None else _MOST_SUSPECTS
        # Jobs of a queue before this one may have taken the room of a task.
        tasks = self.tasks if self.limits is None else self.limits.with_room(self.tasks)
        rows = await self.tx.fetch(_SUSPECTS, queue, self.now, sorted(tasks), most)
        for seq, lane in rows:
            if lane is not None and not (
                self.lanes is not None and await self.lanes.may_start(seq, lane)
            ):
                continue
            found = await self.start([seq])
            if self.limits is not None:
                self.limits.take(found)
            return found
        return []

    async def start(self, seqs: Sequence[int]) -> list[Claimed]:
        """Start jobs that are locked; return them in claim order."""
        if not seqs:
            return []
        rows = await self.tx.fetch(_START, self.claim.worker, self.now, seqs)
        return _in_order(rows)


def _in_order(rows: Sequence[Any]) -> list[Claimed]:
    return sorted(map(Claimed._make, rows), key=claim_order)


async def _claimed_before(
    tx: Transaction, worker: int, held: frozenset[tuple[int, int]]
) -> list[Claimed]:
    """Return the jobs that the worker claimed in rounds whose answer was lost."""
    running = map(Claimed._make, await tx.fetch(_RUNNING, worker))
    return sorted((job for job in running if (job.seq, job.lease) not in held), key=claim_order)
