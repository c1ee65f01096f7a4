"""Runs one process on a store: joins, starts its parts, stops them in order, and leaves.

A process that only enqueues (``work=False``) has a worker too: it runs no jobs, but recovers those of dead workers.
"""

import asyncio
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from jobrunner.core.clock import now_us
from jobrunner.core.errors import InvalidTask, StoreError, WouldDeadlock
from jobrunner.core.health import Health
from jobrunner.core.logs import log_of, repeats
from jobrunner.core.model import WorkerRow
from jobrunner.core.schedule import Definition
from jobrunner.store.committer import Committer
from jobrunner.store.protocol import Store
from jobrunner.store.session_writer import call_on
from jobrunner.tasks.dependencies import Dependency
from jobrunner.tasks.spec import TaskSpec
from jobrunner.worker.dependencies import AttemptScope
from jobrunner.worker.events import Events
from jobrunner.worker.grace import Grace
from jobrunner.worker.health import HealthInputs, first_of, health_of
from jobrunner.worker.maintenance import Maintenance
from jobrunner.worker.membership import Membership
from jobrunner.worker.producer import Producer
from jobrunner.worker.progress import ProgressReports
from jobrunner.worker.scheduler import Scheduler
from jobrunner.worker.settings import Settings
from jobrunner.worker.statistics import Statistics
from jobrunner.worker.steps import StepRuntime
from jobrunner.worker.supervisor import Supervisor
from jobrunner.worker.transactions import Transactions

logger = log_of("jobrunner")

READY_S: Final = 2.0
"""The largest age of a ready process's last written round: four times its polling interval."""


class Worker:
    """The background parts of one open runner: maintenance and, if it runs jobs, a supervisor."""

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
        driven: bool = False,
    ) -> None:
        """Make the parts; see ``start``.

        Args:
            store: The open store.
            committer: Runs this worker's rounds; ``start`` starts it.
            specs: The tasks by stored name and by alias.
            slots: The slots by queue.
            schedules: The schedules that the code declares.
            settings: The runner's settings.
            events: Notifies the runner's waiters and hooks.
            work: False for a worker that runs no jobs.
            grace: The time that attempts get at the end.
            around: The objects that all attempts share.
            session: The dependency that yields the application's session, or the error why a task cannot use it.
            driven: True if a test calls ``scheduler`` itself; no chore runs then.
        """
        self.failed: StoreError | None = None
        """The error that stopped this worker for good; None while there is none."""
        self.has_failed = asyncio.Event()
        """Set at the same time as ``failed``."""
        self._store = store
        self._committer = committer
        self._specs = specs
        self._grace = grace
        self._revision = settings.revision
        self._driven = driven
        self.scheduler = Scheduler(store, committer, specs)
        self.membership = Membership(
            store,
            on_lost=self._lost,
            on_joined_again=self._joined_again,
            on_fatal=self._fail,
        )
        self._supervisor: Supervisor | None = None
        self.producer: Producer | None = None
        """Claims jobs; None if this worker runs none."""
        if work:
            notify = call_on(asyncio.get_running_loop(), self.wake)
            statistics, progress = Statistics(), ProgressReports()
            self._supervisor = Supervisor(
                committer,
                specs=specs,
                slots=slots,
                events=events,
                statistics=statistics,
                progress=progress,
                around=around,
                transactions=Transactions(store, session, notify),
                steps=StepRuntime(store, committer, specs, around, asyncio.get_running_loop()),
            )
            self.producer = Producer(
                self.membership,
                committer,
                self._supervisor,
                events=events,
                statistics=statistics,
                progress=progress,
                notify_others=store.workers.notify,
                on_next_tick=self.scheduler.set_next_tick,
            )
        self.maintenance = Maintenance(
            store,
            self.membership,
            self.producer,
            specs=specs,
            schedules=schedules,
            settings=settings,
            events=events,
            wake=self.wake,
            on_fatal=self._fail,
        )
        self.deadlocks = self.maintenance.deadlocks
        self._stopping: asyncio.Task[None] | None = None

    @property
    def id(self) -> int:
        """The worker's number, which changes if it was found dead while it lives."""
        return self.membership.number

    # -- start and stop ----------------------------------------------------------

    async def start(self) -> None:
        """Recover the jobs of dead workers, join the store and start the parts."""
        with self._store.detached():
            await self._start()

    async def _start(self) -> None:
        await self.maintenance.recovery.run()
        if self._supervisor is not None:
            now = now_us()
            await self.membership.join(
                WorkerRow(
                    worker=self.membership.number,
                    pid=os.getpid(),
                    host=socket.gethostname(),
                    started_at=now,
                    beat_at=now,
                    doorbell=None,
                    queues=self._supervisor.slots,
                    tasks={
                        task: spec.options.policy.max_attempts for task, spec in self._specs.items()
                    },
                    revision=self._revision,
                ),
                self._on_ring,
            )
            self._committer.participant = self.producer
            slots = ", ".join(f"{name}={count}" for name, count in self._supervisor.slots.items())
            logger.info("worker %d starts: slots %s; %d task(s)", self.id, slots, len(self._specs))
        await self.maintenance.peers.refresh()
        await self.maintenance.limits.declare()
        if self._supervisor is not None:
            await self.maintenance.schedules.declare()
            if not self._driven:
                self.scheduler.start()
        self._committer.on_fatal = self._fail
        self._committer.start()
        self._committer.wake()
        if not self._driven:
            self.maintenance.chores.start()

    def begin_stop(self) -> None:
        """Stop claiming, and end attempts within the grace; enqueueing still works."""
        if self._stopping is None and self.producer is not None:
            self.scheduler.begin_stop()
            self.producer.begin_stop()
            self._stopping = asyncio.create_task(
                self.producer.supervisor.stop_all(self._grace), name="jobrunner-stop"
            )

    async def stop(self) -> None:
        """End the attempts, write their outcomes, and leave the store."""
        self.begin_stop()
        if self._stopping is not None:
            await asyncio.wait([self._stopping])
        await self.scheduler.stop()
        await self.maintenance.chores.stop()
        await self._committer.close()
        if self._supervisor is not None:
            self._supervisor.close()
        try:
            await self.maintenance.watches.leave()
            if self._supervisor is not None:
                await self.membership.leave()
        except (StoreError, WouldDeadlock) as error:
            # As after a kill, the kernel frees the lock with the process, and other workers recover the jobs.
            logger.error("the worker could not sign off: %s", error)
        repeats.end()

    def _fail(self, error: StoreError) -> None:
        """Stop for good, because a person must check the file."""
        if self.failed is None:
            self.failed = error
            self.has_failed.set()
            logger.critical("this worker has stopped: %s", error)
            self._committer.fail(error)
            self.begin_stop()

    # -- a worker that was found dead while it lives -----------------------------------

    def _lost(self, number: int) -> None:
        """Give up what runs under a number: others may have taken it over."""
        self._committer.drop(number)
        jobs = [] if self._supervisor is None else self._supervisor.lose_all()
        logger.error(
            "worker %d was found dead while it was cut off: %s",
            number,
            f"its {len(jobs)} attempt(s) are cancelled, since their jobs run again elsewhere: "
            + first_of([f"{job.task} {job.id}" for job in jobs])
            if jobs
            else "it had nothing to do",
        )

    async def _joined_again(self) -> None:
        await self.maintenance.restore_rest()

    # -- wake-ups --------------------------------------------------------------------

    def wake(self) -> None:
        """Let this and other processes find due jobs at once."""
        if self.producer is not None:
            self.producer.wake(suspects=True)
        self._store.workers.notify()

    def _on_ring(self) -> None:
        if self.producer is not None:
            self.producer.wake(suspects=True)
        self.maintenance.chores.ring()

    def cancel_requested(self, seqs: Sequence[int]) -> None:
        """Stop the attempts of these jobs that run here; notify the other workers of the rest."""
        supervisor = self._supervisor
        elsewhere = [
            seq for seq in seqs if supervisor is None or not supervisor.stop(seq, None, "cancel")
        ]
        if elsewhere:
            self._store.workers.notify()

    async def do_chores(self) -> None:
        """Run the due chores, and return when all of them have ended."""
        await self.maintenance.chores.run_due()

    # -- health -------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Return whether this process should receive work now.

        The time of the last written round decides. A worker whose loop is blocked, or whose rounds do not reach the
        disk, is not ready, even if it still answers.
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
        """Return the health of this process and its store."""
        supervisor = self._supervisor
        stuck = () if supervisor is None else supervisor.stuck
        return await health_of(
            self._store,
            HealthInputs(
                failed=self.failed,
                error=self._committer.error,
                doubt=self.membership.problem(),
                ready=self.is_ready(),
                works=supervisor is not None,
                stopping=supervisor is not None and supervisor.stopping,
                running=0 if supervisor is None else len(supervisor.attempts),
                stuck=[
                    f"{attempt.job.task} {attempt.job.id}"
                    for attempt in stuck
                    if attempt.stopped != "lost"
                ],
                unknown=self.maintenance.unknown_tasks.due_since,
                failing=frozenset(self.maintenance.chores.failing),
                schedules=self.scheduler.problems,
                deadlocks=() if self.deadlocks is None else self.deadlocks.problems(),
            ),
        )
