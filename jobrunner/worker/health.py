"""Reports the health of a process, and the queues and workers of its store."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from jobrunner.core.clock import SECOND_US, from_us, now_us
from jobrunner.core.errors import StoreError
from jobrunner.core.health import Health, QueueInfo, WorkerInfo
from jobrunner.core.model import QueueStats, WorkerRow
from jobrunner.core.version import __version__
from jobrunner.store.protocol import Store

STALLED_US: Final = 30 * SECOND_US
"""The age of a live worker's last beat after which it counts as stalled."""


COUNT_CAP: Final = 10_000
"""The count of lanes stops at this number."""
MOST_NAMED: Final = 10
"""The most names in one sentence, and the most sentences of one kind."""


class HealthInputs(NamedTuple):
    """The state of a process that is known without reading the store."""

    failed: StoreError | None
    """The error that stopped its worker for good."""
    error: StoreError | None
    """The error of its last round, if that failed."""
    doubt: str | None
    """One sentence if the store cannot prove that its worker lives."""
    ready: bool
    works: bool
    """True if the process runs jobs (``work=True``)."""
    stopping: bool
    running: int
    stuck: Sequence[str]
    """The failed attempts whose thread goes on."""
    unknown: dict[str, int]
    """The time (µs) at which the oldest job became due, by task that no live worker knows."""
    failing: frozenset[str]
    """The chores whose last run failed."""
    schedules: Sequence[str]
    """Sentences about schedules that cannot be fired."""
    deadlocks: Sequence[str]
    """Sentences about jobs that wait for each other's slots."""


def first_of(names: Collection[str]) -> str:
    """Return a text with the first names and the number of further ones."""
    some = ", ".join(islice(names, MOST_NAMED))
    more = len(names) - MOST_NAMED
    return f"{some} and {more} more" if more > 0 else some


def _few(sentences: Sequence[str]) -> Sequence[str]:
    """Return the first sentences of one kind and the number of further ones."""
    more = len(sentences) - MOST_NAMED
    return [*sentences[:MOST_NAMED], f"and {more} more like this one"] if more > 0 else sentences


async def queues_in(store: Store, known: Iterable[str]) -> list[QueueInfo]:
    """Return every queue that is known, served, paused or has jobs, ordered by name."""
    slots: dict[str, int] = dict.fromkeys(known, 0)
    for row in await store.workers.list():
        for name, count in row.queues.items():
            slots[name] = slots.get(name, 0) + count
    stats = {one.name: one for one in await store.jobs.queues()}
    # If counting stopped early, it may have stopped before the jobs of a queue that has no statistics.
    counted = all(one.complete for one in stats.values())
    empty = {name: QueueStats(name, False, 0, 0, 0, 0, None, counted) for name in slots}
    return [
        QueueInfo(
            name=name,
            slots=slots.get(name, 0),
            paused=one.paused,
            queued=one.queued,
            scheduled=one.scheduled,
            blocked=one.blocked,
            running=one.running,
            oldest_due_at=None if one.oldest_due_at is None else from_us(one.oldest_due_at),
            complete=one.complete,
            paused_at=None if one.paused_at is None else from_us(one.paused_at),
        )
        for name, one in sorted((empty | stats).items())
    ]


async def health_of(store: Store, own: HealthInputs) -> Health:
    """Return the health of this process and its store, with the problems found."""
    problems = [] if own.doubt is None else [own.doubt]
    rows: Sequence[WorkerRow] = ()
    busy: Mapping[int, int] = {}
    lanes: Mapping[str, int] = {}
    error = own.failed or own.error
    if error is not None:
        problems.append(str(error))
    try:
        rows = await store.workers.list()
        busy = await store.workers.busy()
        lanes = (await store.limits.lanes(cap=COUNT_CAP))._asdict()
        problems += _few(
            [
                f"queue {one.name} has waiting jobs and no worker serves it"
                for one in await queues_in(store, ())
                if one.queued and not one.slots and not one.paused
            ]
        )
    except StoreError as unreadable:
        problems.append(str(unreadable))
    now = now_us()
    workers = tuple(_worker_info(row, busy.get(row.worker, 0), now) for row in rows)
    problems += [
        f"worker {one.id} (pid {one.pid}) is alive, but its loop has not turned since {one.beat_at}"
        for one in workers
        if one.stalled
    ]
    if own.unknown:
        what = "task" if len(own.unknown) == 1 else f"{len(own.unknown)} tasks:"
        problems.append(f"no worker knows {what} {first_of(own.unknown)}")
    problems += [f"{chore} fails" for chore in sorted(own.failing)]
    problems += _few([*own.schedules, *own.deadlocks])
    problems += _few([f"the thread of {name} goes on after its time-out" for name in own.stuck])
    return Health(
        status=(
            "failed"
            if own.failed
            else "stopping"
            if own.stopping
            else "degraded"
            if problems
            else "ok"
        ),
        problems=tuple(problems),
        ready=own.ready,
        working=own.works and not own.stopping,
        running=own.running,
        stuck_threads=tuple(own.stuck),
        unknown_tasks={task: from_us(due) for task, due in own.unknown.items()},
        workers=workers,
        version=__version__,
        error=None if error is None else str(error),
        failing_chores=tuple(sorted(own.failing)),
        failing_schedules=tuple(own.schedules),
        deadlocks=tuple(own.deadlocks),
        lanes=dict(lanes),
    )


def _worker_info(row: WorkerRow, running: int, now: int) -> WorkerInfo:
    return WorkerInfo(
        id=row.worker,
        pid=row.pid,
        host=row.host,
        started_at=from_us(row.started_at),
        beat_at=from_us(row.beat_at),
        stalled=now - row.beat_at > STALLED_US,
        queues=dict(row.queues),
        revision=row.revision,
        running=running,
    )
