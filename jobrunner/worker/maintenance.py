"""Defines the periodic chores of one process: recovery, heartbeat, retention and others."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.errors import StoreError
from jobrunner.core.logs import log_of, repeats
from jobrunner.core.model import Definition, WorkerRow
from jobrunner.store.protocol import Store
from jobrunner.store.statistics import HOURS_KEPT_US, MINUTE_US, MINUTES_KEPT_US
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.chores import Chore, ChoreRunner, Period
from jobrunner.worker.deadlock import Deadlocks
from jobrunner.worker.events import Events
from jobrunner.worker.health import first_of
from jobrunner.worker.producer import POLL_S, Producer
from jobrunner.worker.scheduler import declare_schedules
from jobrunner.worker.settings import Settings
from jobrunner.worker.supervisor import Supervisor

logger = log_of("jobrunner")

THOROUGH_S: Final = 5.0
PEERS_S: Final = 1.0
BEAT_S: Final = 10.0
UNKNOWN_S: Final = 10.0
PRUNE_S: Final = 60.0
ROWS_PER_SLICE: Final = 500
LETTERS_PER_SLICE: Final = 100
"""A row is written as a whole, and may have a megabyte of arguments."""
CLOCK_STEP_S: Final = 2.0
AUDIT_RETENTION_US: Final = 365 * 24 * 3600 * SECOND_US
"""A year."""


class ClockCheck:
    """Warns when the wall clock was set: scheduled jobs start that much earlier or later."""

    def __init__(self) -> None:
        self._before: tuple[int, float] | None = None

    async def run(self) -> None:
        """Compare the wall clock's progress since the last call with the loop's."""
        now, now_s = now_us(), asyncio.get_running_loop().time()
        if self._before is not None:
            step_s = (now - self._before[0]) / SECOND_US - (now_s - self._before[1])
            if abs(step_s) > CLOCK_STEP_S:
                way = "forward" if step_s > 0 else "back"
                logger.warning("the clock was set %s by %.1f s", way, abs(step_s))
        self._before = now, now_s


async def log_repeats() -> None:
    """Log the summaries of repeated lines that were left out."""
    repeats.flush(now_us())


class Recovery:
    """Releases the jobs of dead workers, so that they run again."""

    def __init__(self, store: Store, events: Events, wake: Callable[[], None]) -> None:
        self.thorough = Period(THOROUGH_S)
        self._store = store
        self._events = events
        self._wake = wake

    async def run(self) -> None:
        """Recover jobs, with the thorough search once per ``THOROUGH_S`` seconds."""
        await self.recover(thorough=self.thorough.begin())

    async def recover(self, *, thorough: bool) -> None:
        """Recover jobs, log their number and wake workers; see ``WorkerStore.recover``."""
        found = await self._store.workers.recover(now=now_us(), thorough=thorough)
        if not found.workers:
            return
        logger.warning(
            "%d dead worker(s) found: %d job(s) run again, %d dead letter(s)",
            len(found.workers),
            found.requeued,
            len(found.buried),
        )
        if found.buried:
            logger.error(
                "%d job(s) are dead letters (lost), since their processes died under them: %s",
                len(found.buried),
                first_of(found.buried),
            )
        for id in found.buried:
            self._events.notify("dead", id)
        self._wake()


class Upkeep:
    """Runs the chores of the store itself."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self) -> None:
        """Call ``Store.upkeep``."""
        await self._store.upkeep()


class Peers:
    """Keeps a list of the other workers of the store.

    Args:
        store: The store.
        worker: The id of this worker.
        on_missing: Called if this worker's row is missing; None for a process without a row.
    """

    def __init__(
        self, store: Store, worker: int, on_missing: Callable[[], Awaitable[None]] | None
    ) -> None:
        self.rows: Sequence[WorkerRow] = ()
        self._store = store
        self._worker = worker
        self._on_missing = on_missing

    @property
    def tasks(self) -> frozenset[str]:
        """The tasks that at least one other worker knows."""
        return frozenset[str]().union(*(row.tasks for row in self.rows))

    async def refresh(self) -> None:
        """Read the workers' rows."""
        rows = await self._store.workers.list()
        self.rows = [row for row in rows if row.worker != self._worker]
        if self._on_missing is not None and len(self.rows) == len(rows):
            await self._on_missing()


class Heartbeat:
    """Updates the worker's row, which shows that its event loop runs."""

    def __init__(
        self, store: Store, worker: int, on_restored: Callable[[], Awaitable[None]]
    ) -> None:
        self._store = store
        self._worker = worker
        self._on_restored = on_restored

    async def beat(self) -> None:
        """Update the row; call ``on_restored`` if it was missing and is stored again."""
        if await self._store.workers.beat(self._worker, now=now_us()):
            await self._on_restored()


class DeclaredSchedules:
    """Keeps the stored schedules equal to those declared in code."""

    def __init__(
        self,
        store: Store,
        peers: Peers,
        schedules: Mapping[str, Definition],
        *,
        specs: Mapping[str, TaskSpec],
        revision: int,
    ) -> None:
        self._store = store
        self._peers = peers
        self._schedules = schedules
        self._tasks = frozenset(specs)
        self._revision = revision

    async def declare(self) -> None:
        """Store the declared schedules, and disable those no longer declared."""
        changes = await declare_schedules(
            self._store,
            self._schedules,
            revision=self._revision,
            elsewhere=self._peers.tasks - self._tasks,
        )
        for _, row in changes:
            if row is not None and row.disabled:
                logger.warning("schedule %s is disabled: the code no longer declares it", row.id)
        if changes:
            self._store.workers.notify()


class Poll:
    """Finds due jobs after a lost wake-up, and attempts that ignore a cancellation."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def run(self) -> None:
        """Wake the producer, and free the slots of attempts that ignore their cancellation."""
        self._producer.wake(suspects=True)
        self._producer.supervisor.abandon_unresponsive()


class CancelRequests:
    """Stops attempts that were cancelled through another process."""

    def __init__(self, store: Store, worker: int, supervisor: Supervisor) -> None:
        self._store = store
        self._worker = worker
        self._supervisor = supervisor

    async def obey(self) -> None:
        """Stop the attempts whose cancellation was requested."""
        if self._supervisor.attempts:
            for seq, lease in await self._store.jobs.cancel_requests(self._worker):
                self._supervisor.stop(seq, lease, "cancel")


class UnknownTasks:
    """Reports waiting jobs whose task no live worker knows, and finally buries them."""

    def __init__(
        self,
        store: Store,
        peers: Peers,
        *,
        specs: Mapping[str, TaskSpec],
        bury_after_us: int,
        events: Events,
        wake: Callable[[], None],
    ) -> None:
        self.due_since: dict[str, int] = {}
        """The time (µs) at which the oldest job became due, by unknown task."""
        self._store = store
        self._peers = peers
        self._specs = specs
        self._bury_after_us = bury_after_us
        self._events = events
        self._wake = wake
        self._reported: set[str] = set()

    async def check(self) -> None:
        """Report newly found unknown tasks, and bury jobs that have waited too long."""
        waiting = await self._store.jobs.waiting_tasks()
        if not self._known().issuperset(task for _, task, _ in waiting):
            # Refresh first: a worker of a new version may have joined and enqueued since the last refresh.
            await self._peers.refresh()
        known = self._known()
        unknown: dict[str, int] = {}
        news: list[tuple[str, str]] = []
        now = now_us()
        too_old = now - self._bury_after_us
        for queue, task, due_since in waiting:
            if task in known:
                continue
            unknown[task] = min(due_since, unknown.get(task, due_since))
            if task not in self._reported:
                self._reported.add(task)
                news.append((task, queue))
            if due_since < too_old:
                await self._bury(queue, task, too_old, now)
        if news:
            self._report(news)
        self.due_since = unknown
        self._reported &= set(unknown)

    def _known(self) -> frozenset[str]:
        return self._peers.tasks.union(self._specs)

    def _report(self, news: Sequence[tuple[str, str]]) -> None:
        hours = self._bury_after_us / (3600 * SECOND_US)
        (task, queue), *others = news
        if not others:
            logger.warning(
                "jobs of task '%s' wait in queue '%s', and no worker knows it: register it, or keep its old name with"
                " @jobs.task(aliases=['%s']); after %.0f h they become dead letters",
                task,
                queue,
                task,
                hours,
            )
            return
        logger.warning(
            "jobs of %d tasks that no worker knows wait: %s: register them, or keep their old names with"
            " @jobs.task(aliases=[...]); after %.0f h they become dead letters",
            len(news),
            first_of([task for task, _ in news]),
            hours,
        )

    async def _bury(self, queue: str, task: str, due_before: int, now: int) -> None:
        while True:
            buried = await self._store.dead_letters.bury_waiting(
                queue,
                task,
                due_before=due_before,
                reason="unknown_task",
                error=f"no worker knows the task {task!r}",
                now=now,
                limit=ROWS_PER_SLICE,
            )
            for id in buried:
                self._events.notify("dead", id)
            if buried:
                logger.error(
                    "%d job(s) of task %s are dead letters (unknown_task), since no worker knows it: %s",
                    len(buried),
                    task,
                    first_of(buried),
                )
                # The jobs behind them in a chain are due now.
                self._wake()
            if len(buried) < ROWS_PER_SLICE:
                return


class Retention:
    """Deletes jobs, dead letters, ticks and audit entries past their retention."""

    def __init__(self, store: Store, specs: Mapping[str, TaskSpec], settings: Settings) -> None:
        self._store = store
        self._specs = specs
        self._settings = settings

    async def prune(self) -> int:
        """Delete in slices, and return the number of deleted jobs and dead letters."""
        now = now_us()
        settings = self._settings
        by_task = {
            name: now - spec.retention
            for name, spec in self._specs.items()
            if spec.retention is not None
        }
        total = 0
        while True:
            pruned = await self._store.jobs.prune(
                finished_before=now - settings.retention_us,
                by_task=by_task,
                died_before=now - settings.dead_letter_retention_us,
                keep_finished=settings.keep_finished,
                limit=ROWS_PER_SLICE,
            )
            total += pruned
            if pruned < ROWS_PER_SLICE:
                break
        ticks = ROWS_PER_SLICE
        while ticks == ROWS_PER_SLICE:
            ticks = await self._store.schedules.prune_ticks(
                before=now - settings.retention_us, limit=ROWS_PER_SLICE
            )
        entries = ROWS_PER_SLICE
        while entries == ROWS_PER_SLICE:
            entries = await self._store.audit.prune(
                before=now - AUDIT_RETENTION_US, limit=ROWS_PER_SLICE
            )
        return total


class Grouping:
    """Fills in the fingerprints of dead letters that an older version stored."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def fill(self) -> None:
        """Fill in slices until none is left; then this costs one index seek."""
        while await self._store.dead_letters.fill_groups(limit=LETTERS_PER_SLICE):
            pass


class StatisticsRetention:
    """Rolls minutes of statistics up into hours, and deletes old minutes and hours."""

    def __init__(self, store: Store) -> None:
        self._statistics = store.statistics

    async def run(self) -> None:
        """Roll up the minutes that are over, one by one, then delete in slices."""
        now = now_us()
        while await self._statistics.roll_up(before=now - now % MINUTE_US):
            pass
        deleted = ROWS_PER_SLICE
        while deleted == ROWS_PER_SLICE:
            deleted = await self._statistics.prune(
                minutes_before=now - MINUTES_KEPT_US,
                hours_before=now - HOURS_KEPT_US,
                limit=ROWS_PER_SLICE,
            )


class Maintenance:
    """Composes the chores of one worker, each with its period.

    Args:
        store: The store.
        worker: The id of the worker.
        producer: The worker's producer; None for a process that only enqueues, which has fewer chores.
        specs: The tasks by stored name.
        schedules: The declared schedules by id.
        settings: The runner's settings.
        events: The runner's events.
        wake: Called when jobs have become due.
        on_fatal: Called with an error after which the worker must stop.
    """

    def __init__(
        self,
        store: Store,
        worker: int,
        producer: Producer | None,
        *,
        specs: Mapping[str, TaskSpec],
        schedules: Mapping[str, Definition],
        settings: Settings,
        events: Events,
        wake: Callable[[], None],
        on_fatal: Callable[[StoreError], None],
    ) -> None:
        self._wake = wake
        self.recovery = Recovery(store, events, wake)
        self.heartbeat = Heartbeat(store, worker, self._restore_rest)
        self.peers = Peers(store, worker, None if producer is None else self.heartbeat.beat)
        self.schedules = DeclaredSchedules(
            store, self.peers, schedules, specs=specs, revision=settings.revision
        )
        self.unknown_tasks = UnknownTasks(
            store,
            self.peers,
            specs=specs,
            bury_after_us=settings.unknown_task_after_us,
            events=events,
            wake=wake,
        )
        self.retention = Retention(store, specs, settings)
        self.deadlocks: Deadlocks | None = None
        chores = [
            Chore("clock", Period(0), ClockCheck().run),
            Chore("repeats", Period(0), log_repeats),
            Chore("recover", Period(0), self.recovery.run),
            Chore("upkeep", Period(0), Upkeep(store).run),
            Chore("peers", Period(PEERS_S), self.peers.refresh),
        ]
        if producer is not None:
            supervisor = producer.supervisor
            self.deadlocks = Deadlocks(
                store,
                worker,
                slots=supervisor.slots,
                holders=supervisor.holders,
                peers=lambda: self.peers.rows,
                refresh_peers=self.peers.refresh,
            )
            cancels = CancelRequests(store, worker, supervisor)
            chores += [
                Chore("poll", Period(POLL_S), Poll(producer).run, on_ring=True),
                Chore("cancels", Period(POLL_S), cancels.obey, on_ring=True),
                Chore("deadlocks", Period(POLL_S), self.deadlocks.detect),
                Chore("beat", Period(BEAT_S), self.heartbeat.beat),
                Chore("unknown", Period(UNKNOWN_S), self.unknown_tasks.check),
                Chore("prune", Period(PRUNE_S), self.retention.prune),
                Chore("groups", Period(PRUNE_S), Grouping(store).fill),
                Chore("statistics", Period(PRUNE_S), StatisticsRetention(store).run),
            ]
        self.chores = ChoreRunner(chores, on_fatal)

    async def _restore_rest(self) -> None:
        """Store the declared schedules again, which were lost together with the worker's row."""
        await self.schedules.declare()
        self._wake()
