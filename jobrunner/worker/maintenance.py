"""Defines the periodic chores of one process: recovery, heartbeat, retention and others."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.errors import StoreError
from jobrunner.core.logs import log_of, repeats
from jobrunner.core.schedule import Definition
from jobrunner.store.protocol import Store
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.chores import Chore, ChoreRunner, Period
from jobrunner.worker.deadlock import Deadlocks
from jobrunner.worker.events import Events
from jobrunner.worker.health import first_of
from jobrunner.worker.limits import BucketRetention, DeclaredLimits, LaneRepair
from jobrunner.worker.membership import Membership
from jobrunner.worker.peers import Heartbeat, Peers
from jobrunner.worker.producer import POLL_S, Producer
from jobrunner.worker.retention import Retention, StatisticsRetention
from jobrunner.worker.scheduler import declare_schedules
from jobrunner.worker.settings import Settings
from jobrunner.worker.supervisor import Supervisor
from jobrunner.worker.unknown_tasks import UnknownTasks
from jobrunner.worker.watches import WatchExchange

logger = log_of("jobrunner")

THOROUGH_S: Final = 5.0
PEERS_S: Final = 1.0
BEAT_S: Final = 10.0
UNKNOWN_S: Final = 10.0
LANES_S: Final = 10.0
PRUNE_S: Final = 60.0
LETTERS_PER_SLICE: Final = 100
"""A row is written as a whole, and may have a megabyte of arguments."""
CLOCK_STEP_S: Final = 2.0


class ClockCheck:
    """Warns when the wall clock was set: scheduled jobs start that much earlier or later."""

    def __init__(self, on_set_back: Callable[[], Awaitable[None]]) -> None:
        self._on_set_back = on_set_back
        self._before: tuple[int, float] | None = None

    async def run(self) -> None:
        """Compare the wall clock's progress since the last call with the loop's."""
        now, now_s = now_us(), asyncio.get_running_loop().time()
        if self._before is not None:
            step_s = (now - self._before[0]) / SECOND_US - (now_s - self._before[1])
            if abs(step_s) > CLOCK_STEP_S:
                way = "forward" if step_s > 0 else "back"
                logger.warning("the clock was set %s by %.1f s", way, abs(step_s))
                if step_s < 0:
                    await self._on_set_back()
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

    def __init__(self, store: Store, number: Callable[[], int], supervisor: Supervisor) -> None:
        self._store = store
        self._number = number
        self._supervisor = supervisor

    async def obey(self) -> None:
        """Stop the attempts whose cancellation was requested."""
        if self._supervisor.attempts:
            for seq, lease in await self._store.jobs.cancel_requests(self._number()):
                self._supervisor.stop(seq, lease, "cancel")


class Grouping:
    """Fills in the fingerprints of dead letters that an older version stored."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def fill(self) -> None:
        """Fill in slices until none is left; then this costs one index seek."""
        while await self._store.dead_letters.fill_groups(limit=LETTERS_PER_SLICE):
            pass


class Maintenance:
    """Composes the chores of one worker, each with its period.

    Args:
        store: The store.
        membership: The worker's place on the store.
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
        membership: Membership,
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

        def number() -> int:
            return membership.number

        self.recovery = Recovery(store, events, wake)
        self.heartbeat = Heartbeat(store, number, self.restore_rest)
        self.peers = Peers(store, number, None if producer is None else self.heartbeat.beat)
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
        self.limits = DeclaredLimits(store, specs=specs, settings=settings)
        self.lanes = LaneRepair(store, wake)
        self.deadlocks: Deadlocks | None = None
        self.watches = WatchExchange(store, membership.number, events.watches)
        # A start itself looks for peers, beats (as it joins) and wakes the producer.
        chores = [
            Chore("clock", Period(0), ClockCheck(self.lanes.run).run),
            Chore("repeats", Period(0), log_repeats),
            Chore("recover", Period(0), self.recovery.run),
            Chore("upkeep", Period(0), Upkeep(store).run),
            Chore("peers", Period(PEERS_S, begun=True), self.peers.refresh),
            Chore("watches", Period(0), self.watches.publish),
        ]
        if producer is not None:
            supervisor = producer.supervisor
            self.deadlocks = Deadlocks(
                store,
                number,
                slots=supervisor.slots,
                holders=supervisor.holders,
                peers=lambda: self.peers.rows,
                refresh_peers=self.peers.refresh,
            )
            cancels = CancelRequests(store, number, supervisor)
            chores += [
                Chore("poll", Period(POLL_S, begun=True), Poll(producer).run, on_ring=True),
                Chore("cancels", Period(POLL_S), cancels.obey, on_ring=True),
                Chore("watched", Period(PEERS_S), self.watches.read, on_ring=True),
                Chore("deadlocks", Period(POLL_S), self.deadlocks.detect),
                Chore("beat", Period(BEAT_S, begun=True), self.heartbeat.beat),
                Chore("unknown", Period(UNKNOWN_S), self.unknown_tasks.check),
                Chore("lanes", Period(LANES_S), self.lanes.run),
                Chore("prune", Period(PRUNE_S), self.retention.prune),
                Chore("buckets", Period(PRUNE_S), BucketRetention(store).run),
                Chore("groups", Period(PRUNE_S), Grouping(store).fill),
                Chore("statistics", Period(PRUNE_S), StatisticsRetention(store).run),
            ]

        def count_lag(lag_s: float) -> None:
            if producer is not None:
                producer.count_lag(lag_s)
                self.heartbeat.count_lag(lag_s)

        self.chores = ChoreRunner(chores, on_fatal, count_lag)

    async def restore_rest(self) -> None:
        """Store declared schedules and limits again; they may be lost with the worker's row."""
        await self.schedules.declare()
        await self.limits.declare()
        self._wake()
