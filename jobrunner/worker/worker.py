"""One process's part in a store: it joins, does the chores on time, answers the doorbell, and leaves.

A process that only enqueues (``work=False``) has a worker too: it runs no jobs, but recovers those of the dead.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from jobrunner.core.clock import SECOND_US, now_us
from jobrunner.core.errors import InvalidTask, StoreError, StoreFailed, WouldDeadlock
from jobrunner.core.job import Health
from jobrunner.core.logs import log_of, repeats
from jobrunner.core.model import Definition, WorkerRow
from jobrunner.store.committer import Committer
from jobrunner.store.protocol import Store
from jobrunner.store.session_writer import call_on
from jobrunner.tasks.dependencies import Dependency
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.deadlock import Deadlocks
from jobrunner.worker.dependencies import AttemptScope
from jobrunner.worker.events import Events
from jobrunner.worker.grace import Grace
from jobrunner.worker.health import HealthInputs, first_of, health_of
from jobrunner.worker.scheduler import Scheduler, declare_schedules
from jobrunner.worker.settings import Settings
from jobrunner.worker.supervisor import POLL_S, Supervisor
from jobrunner.worker.transactions import Transactions

logger = log_of("jobrunner")

TICK_S: Final = 0.2
"""How often the locks of other workers are tried: a dead process's jobs wait that long."""
THOROUGH_S: Final = 5.0
PEERS_S: Final = 1.0
BEAT_S: Final = 10.0
UNKNOWN_S: Final = 10.0
PRUNE_S: Final = 60.0
ROWS_PER_SLICE: Final = 500
CLOCK_STEP_S: Final = 2.0
READY_S: Final = 2.0
"""How old the last written round of a working process may be: it polls four times as often."""


class Worker:
    """The chores of one open runner, and its supervisor if it runs jobs."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        *,
        specs: Mapping[str, TaskSpec],
        slots: Mapping[str, int],
        schedules: Mapping[str, Definition],
        settings: Settings,
        events: Events,
        work: bool,
        grace: Grace,
        around: AttemptScope,
        session: Dependency | InvalidTask | None = None,
    ) -> None:
        self.id = secrets.randbits(63)
        self.failed: StoreError | None = None
        """What stopped this worker for good."""
        self.has_failed = asyncio.Event()
        """Set together with ``failed``."""
        self._store = store
        self._committer = committer
        self._specs = specs
        self._settings = settings
        self._grace = grace
        self._events = events
        self._schedules = schedules
        self._scheduler = Scheduler(store, committer, specs)
        self._supervisor = (
            Supervisor(
                self.id,
                committer,
                specs=specs,
                slots=slots,
                events=events,
                notify_others=store.workers.notify,
                on_next_tick=self._scheduler.set_next_tick,
                around=around,
                transactions=Transactions(
                    store, session, call_on(asyncio.get_running_loop(), self.wake)
                ),
            )
            if work
            else None
        )
        self._peers: Sequence[WorkerRow] = ()
        self.deadlocks = (
            None
            if self._supervisor is None
            else Deadlocks(
                store,
                self.id,
                slots=slots,
                holders=self._supervisor.holders,
                peers=lambda: self._peers,
                refresh_peers=self.refresh_peers,
            )
        )
        self._stopping: asyncio.Task[None] | None = None
        self._chores: asyncio.Task[None] | None = None
        self._rung = asyncio.Event()
        self._failing: set[str] = set()
        self._unknown: dict[str, int] = {}
        self._reported_unknown: set[str] = set()
        self._last: dict[str, float] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}
        """Chores under way."""
        self._clocks: tuple[int, float] | None = None

    # -- life --------------------------------------------------------------------

    async def start(self) -> None:
        """Take over what dead workers left, join, and begin to work."""
        with self._store.detached():
            await self._start()

    async def _start(self) -> None:
        await self.recover(thorough=True)
        if self._supervisor is not None:
            now = now_us()
            await self._store.workers.join(
                WorkerRow(
                    worker=self.id,
                    pid=os.getpid(),
                    host=socket.gethostname(),
                    started_at=now,
                    beat_at=now,
                    doorbell=None,
                    queues=self._supervisor.slots,
                    tasks={name: spec.policy.max_attempts for name, spec in self._specs.items()},
                ),
                self._on_ring,
            )
            self._committer.participant = self._supervisor
            slots = ", ".join(f"{name}={count}" for name, count in self._supervisor.slots.items())
            logger.info("worker %d starts: slots %s; %d tasks", self.id, slots, len(self._specs))
        await self.refresh_peers()
        if self._supervisor is not None:
            await self.declare_schedules()
            self._scheduler.start()
        self._committer.on_fatal = self._fail
        self._committer.start()
        self._committer.wake()
        self._chores = asyncio.create_task(self._run_chores(), name="jobrunner-chores")

    def begin_stop(self) -> None:
        """Start no more attempts, and end those under way within the grace; enqueueing goes on."""
        if self._stopping is None and self._supervisor is not None:
            self._scheduler.begin_stop()
            self._supervisor.begin_stop()
            self._stopping = asyncio.create_task(
                self._supervisor.stop_all(self._grace), name="jobrunner-stop"
            )

    async def stop(self) -> None:
        """End the attempts, write what is left to write, and leave the store."""
        self.begin_stop()
        if self._stopping is not None:
            await asyncio.wait([self._stopping])
        await self._scheduler.stop()
        if self._chores is not None:
            chores = [self._chores, *self._busy.values()]
            for chore in chores:
                chore.cancel()
            await asyncio.wait(chores)
        await self._committer.close()
        if self._supervisor is not None:
            self._supervisor.close()
            try:
                await self._store.workers.leave(self.id, now=now_us())
            except (StoreError, WouldDeadlock) as error:
                # As after a kill: the lock goes with the process, and others find the jobs.
                logger.error("the worker could not sign off: %s", error)
        repeats.end()

    def _fail(self, error: StoreError) -> None:
        """Stop for good: the file must be looked at by a person."""
        if self.failed is None:
            self.failed = error
            self.has_failed.set()
            logger.critical("this worker has stopped: %s", error)
            self._committer.fail(error)
            self.begin_stop()

    # -- wake-ups --------------------------------------------------------------------

    def wake(self) -> None:
        """Let due jobs be found at once, here and in other processes."""
        if self._supervisor is not None:
            self._supervisor.wake(suspects=True)
        self._store.workers.notify()

    def _on_ring(self) -> None:
        if self._supervisor is not None:
            self._supervisor.wake(suspects=True)
        self._rung.set()

    async def cancel_requested(self, seq: int) -> None:
        """Pass on that a running job is to be cancelled: to our own attempt, else to whoever runs it."""
        if self._supervisor is None or not self._supervisor.stop(seq, None, "cancel"):
            self._store.workers.notify()

    # -- chores ---------------------------------------------------------------------------

    async def _run_chores(self) -> None:
        while True:
            rung = self._rung.is_set()
            self._rung.clear()
            self._begin_chores(rung=rung)
            try:
                async with asyncio.timeout(TICK_S):
                    await self._rung.wait()
            except TimeoutError:
                pass

    async def do_chores(self) -> None:
        """Do the chores whose time has come, and return when all of them are through."""
        await self._end_of_chores()
        self._begin_chores()
        await self._end_of_chores()

    async def _end_of_chores(self) -> None:
        if self._busy:
            await asyncio.wait(self._busy.values())

    def _begin_chores(self, *, rung: bool = False) -> None:
        """Begin the chores whose time has come, side by side: one that waits or is long keeps no other from its turn.

        Args:
            rung: somebody has rung the bell.
        """
        self._check_clock()
        repeats.look(now_us())
        self._begin("recover", 0, self._recover)
        self._begin("upkeep", 0, self._store.upkeep)
        self._begin("peers", PEERS_S, self.refresh_peers)
        if self._supervisor is None:
            return
        if rung:
            self._last.pop("cancels", None)
        if self._is_time("poll", POLL_S) or rung:
            self._supervisor.wake(suspects=True)
            self._supervisor.abandon_unresponsive()
        self._begin("cancels", POLL_S, self.obey_cancels)
        if self.deadlocks is not None:
            self._begin("deadlocks", POLL_S, self.deadlocks.detect)
        self._begin("beat", BEAT_S, self._beat)
        self._begin("unknown", UNKNOWN_S, self.look_for_unknown)
        self._begin("prune", PRUNE_S, self.prune)

    def _begin(self, chore: str, every_s: float, do: Callable[[], Awaitable[object]]) -> None:
        """Begin a chore if it is time and it is not at it already; then its time is when it is through."""
        if chore not in self._busy and self._is_time(chore, every_s):
            task = asyncio.create_task(self._try(chore, do), name=f"jobrunner-{chore}")
            self._busy[chore] = task
            task.add_done_callback(lambda _: self._busy.pop(chore))

    def _is_time(self, chore: str, every_s: float) -> bool:
        now_s = asyncio.get_running_loop().time()
        # A twentieth early rather than a whole tick late.
        if now_s - self._last.get(chore, -every_s) < every_s * 0.95:
            return False
        self._last[chore] = now_s
        return True

    async def _try(self, chore: str, do: Callable[[], Awaitable[object]]) -> None:
        try:
            await do()
        except StoreFailed as error:
            self._fail(error)
        except Exception as error:
            if chore not in self._failing:
                self._failing.add(chore)
                expected = isinstance(error, StoreError)
                logger.error(
                    "%s failed and is tried again: %s",
                    chore,
                    error,
                    exc_info=not expected,
                    like=chore,
                )
        else:
            if chore in self._failing:
                self._failing.discard(chore)
                logger.info("%s works again", chore, like=chore)

    def _check_clock(self) -> None:
        """Say so when the clock is set: what waits for its time comes earlier or later by as much."""
        now, now_s = now_us(), asyncio.get_running_loop().time()
        if self._clocks is not None:
            step_s = (now - self._clocks[0]) / SECOND_US - (now_s - self._clocks[1])
            if abs(step_s) > CLOCK_STEP_S:
                way = "forward" if step_s > 0 else "back"
                logger.warning("the clock was set %s by %.1f s", way, abs(step_s))
        self._clocks = now, now_s

    async def _recover(self) -> None:
        await self.recover(thorough=self._is_time("thorough", THOROUGH_S))

    async def recover(self, *, thorough: bool) -> None:
        """Take the jobs of dead workers away from them, so that they run again."""
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
        self.wake()

    async def refresh_peers(self) -> None:
        """Learn which other workers there are."""
        rows = await self._store.workers.list()
        self._peers = [row for row in rows if row.worker != self.id]
        if self._supervisor is not None and len(self._peers) == len(rows):
            await self._beat()

    async def _beat(self) -> None:
        if await self._store.workers.beat(self.id, now=now_us()):
            # The schedules of the code went with the row.
            await self.declare_schedules()
            self.wake()

    async def declare_schedules(self) -> None:
        """Store the schedules that stand in the code, and disable those that stand there no more."""
        elsewhere = frozenset[str]().union(*(peer.tasks for peer in self._peers))
        changes = await declare_schedules(
            self._store,
            self._schedules,
            revision=self._settings.revision,
            elsewhere=elsewhere - frozenset(self._specs),
        )
        for _, row in changes:
            if row is not None and row.disabled:
                logger.warning("schedule %s is disabled: the code declares it no more", row.id)
        if changes:
            self._store.workers.notify()

    async def obey_cancels(self) -> None:
        """Stop attempts of ours that somebody cancelled through another process."""
        if self._supervisor is not None and self._supervisor.attempts:
            for seq, lease in await self._store.jobs.cancel_requests(self.id):
                self._supervisor.stop(seq, lease, "cancel")

    async def look_for_unknown(self) -> None:
        """Report waiting jobs whose task no live worker knows; bury those that have waited too long."""
        waiting = await self._store.jobs.waiting_tasks()
        if not self._known().issuperset(task for _, task, _ in waiting):
            # Only now: a worker of a new version may have joined and enqueued since the last look.
            await self.refresh_peers()
        known = self._known()
        unknown: dict[str, int] = {}
        news: list[tuple[str, str]] = []
        now = now_us()
        too_old = now - self._settings.unknown_task_after_us
        for queue, task, due_since in waiting:
            if task in known:
                continue
            unknown[task] = min(due_since, unknown.get(task, due_since))
            if task not in self._reported_unknown:
                self._reported_unknown.add(task)
                news.append((task, queue))
            if due_since < too_old:
                await self._bury_unknown(queue, task, too_old, now)
        if news:
            self._report_unknown(news)
        self._unknown = unknown
        self._reported_unknown &= set(unknown)

    def _known(self) -> set[str]:
        return set(self._specs).union(*(peer.tasks for peer in self._peers))

    def _report_unknown(self, news: Sequence[tuple[str, str]]) -> None:
        hours = self._settings.unknown_task_after_us / (3600 * SECOND_US)
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

    async def _bury_unknown(self, queue: str, task: str, due_before: int, now: int) -> None:
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
                # What waited behind them in a chain is due now.
                self.wake()
            if len(buried) < ROWS_PER_SLICE:
                return

    async def prune(self) -> int:
        """Delete what is past its retention, slice by slice; return how many jobs and dead letters went."""
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
        return total

    # -- how it stands ------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Return whether what is promised to whoever sends work now can be kept.

        Not what the last look said, but what the last write did: a supervisor that stands still, or whose rounds do not
        reach the disk, is not ready, whatever else answers.
        """
        if self.failed is not None or self._committer.error is not None:
            return False
        if self._supervisor is None:
            return True
        written_at_s = self._committer.written_at_s
        return (
            not self._supervisor.stopping
            and written_at_s is not None
            and asyncio.get_running_loop().time() - written_at_s <= READY_S
        )

    async def health(self) -> Health:
        """Return whether the promises are being kept just now."""
        supervisor = self._supervisor
        stuck = () if supervisor is None else supervisor.stuck
        return await health_of(
            self._store,
            HealthInputs(
                failed=self.failed,
                error=self._committer.error,
                ready=self.is_ready(),
                works=supervisor is not None,
                stopping=supervisor is not None and supervisor.stopping,
                running=0 if supervisor is None else len(supervisor.attempts),
                stuck=[f"{attempt.job.task} {attempt.job.id}" for attempt in stuck],
                unknown=self._unknown,
                failing=frozenset(self._failing),
                problems=[
                    *self._scheduler.problems,
                    *(() if self.deadlocks is None else self.deadlocks.problems()),
                ],
            ),
        )
