"""Offers ``JobRunner``, which declares tasks and which an application opens.

The class only connects the other parts; it makes no decisions itself.
"""

import asyncio
import os
import sys
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
)
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, overload
from weakref import WeakSet

from jobrunner.core.batch import Batch
from jobrunner.core.counts import CancelCounts, RescheduleCounts
from jobrunner.core.dead_letter import DeadLetter
from jobrunner.core.errors import AlreadyRunning
from jobrunner.core.exports import exported
from jobrunner.core.forked import generation
from jobrunner.core.health import Health
from jobrunner.core.hints import answers_foreign_words
from jobrunner.core.job import CancelStatus, Job, Payload
from jobrunner.core.model import OnDead
from jobrunner.core.units import Seconds
from jobrunner.queue.audit import AuditLog
from jobrunner.queue.batches import Batches
from jobrunner.queue.dead_letters import DeadLetters
from jobrunner.queue.enqueuer import call_of
from jobrunner.queue.filters import DEFAULT_ROWS, CancelFilter, JobFilter, RescheduleFilter
from jobrunner.queue.limits import Limits
from jobrunner.queue.page import Page
from jobrunner.queue.queue import JobQueue, enqueuer_of
from jobrunner.queue.queues import Queues
from jobrunner.queue.schedules import Schedules
from jobrunner.queue.stats import Stats, StatsQuery
from jobrunner.queue.sync import SyncRunner
from jobrunner.runner import shutdown
from jobrunner.runner.asgi import App
from jobrunner.runner.routes import RunnerRoutes
from jobrunner.runner.standalone import orders, work_until_signal
from jobrunner.runner.startup import (
    StartupPlan,
    schedules_of,
    session_of_tasks,
    slots_of,
    started,
)
from jobrunner.runner.status_routes import NONE_MOUNTED
from jobrunner.store.open import check_durability, location_of
from jobrunner.tasks import current_queue
from jobrunner.tasks.call import Call
from jobrunner.tasks.options import check_options
from jobrunner.tasks.router import TaskRouter
from jobrunner.tasks.task import Task
from jobrunner.worker.around_attempt import H, read_around
from jobrunner.worker.dependencies import AttemptScope
from jobrunner.worker.events import Hooks
from jobrunner.worker.grace import Grace
from jobrunner.worker.settings import RUNNER_OPTIONS, RunnerOptions, Settings

if TYPE_CHECKING:
    # FastAPI takes half a second to import, and a worker or a script does not need it.
    from fastapi import params

P = ParamSpec("P")
R = TypeVar("R")
L = TypeVar("L", bound=Callable[[DeadLetter], Awaitable[None] | None])
J = TypeVar("J", bound=Callable[[Job[Any]], Awaitable[None] | None])

DEFAULT_STORE = "sqlite:///jobs.db"

made: "WeakSet[JobRunner]" = WeakSet()
"""The runners of this process. A command finds here the runner of the application that it has loaded."""


@exported
@answers_foreign_words("runner", "queue", name="jobs")
class JobRunner(TaskRouter, RunnerRoutes):
    """A durable job queue inside an application, in a SQLite file or in PostgreSQL.

    ::

        jobs = JobRunner("sqlite:///shop.db", queues={"default": 20, "mail": 50})

        @jobs.task(queue="mail")
        async def send_welcome_email(email: str) -> None: ...

        app = FastAPI(lifespan=jobs.lifespan)

        @app.post("/register")
        async def register(email: str, queue: Queue) -> str:
            job = await queue.enqueue(send_welcome_email, email)
            return job.id

    A runner must be open to store or run jobs. Outside requests it has the methods of ``JobQueue``:
    ``await jobs.enqueue(send_welcome_email, email)``.

    Args:
        store: The SQLite file: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or a path; or the PostgreSQL
            database: ``postgresql://user:password@host/database``. Default: ``sqlite:///jobs.db``.
        session: The dependency that yields the application's session, or ``Depends(get_session, scope="function")``.
            With it the queue of ``Depends(jobs.queue)`` stores jobs in the session's transaction. Default: none, and
            jobs are committed before ``enqueue`` returns.
        **options: The settings; see ``jobrunner.worker.settings.RunnerOptions``.

    Raises:
        ConfigurationError: An argument has an invalid value.
        TypeError: A keyword is not an option. If another job queue has such an option, the message names ours.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] = DEFAULT_STORE,
        *,
        session: "params.Depends | Callable[..., Any] | None" = None,
        **options: Unpack[RunnerOptions],
    ) -> None:
        check_options("JobRunner", options.keys(), RUNNER_OPTIONS, "session")
        TaskRouter.__init__(self)
        location_of(store)  # raises if it names no store
        settings = Settings.make(os.fspath(store), **options)
        check_durability(store, settings.durability)
        RunnerRoutes.__init__(self, settings, session)
        self._hooks = Hooks()
        self._opened_in: int | None = None
        """The process in which the runner is open or being opened; see ``forked.generation``."""
        made.add(self)

    # -- opening -----------------------------------------------------------------

    def lifespan(
        self, app: App, *, store: str | os.PathLike[str] | None = None, work: bool | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Keep the runner open while the application runs: ``FastAPI(lifespan=jobs.lifespan)``.

        An application that has its own lifespan writes ``async with jobs.running(app):`` in it.

        Args:
            app: The application whose requests use the runner.
            store: Another store than the runner's, such as a file for a test.
            work: False to enqueue and read without running jobs. Default: the runner's setting.

        Raises:
            AlreadyRunning: A runner is open on the application, or this one is open in this process.
            ConfigurationError: A route of the application would lose jobs; the message names it.
            UnknownQueue: A task or a schedule names a queue that the runner does not have.
            StoreError: The store cannot be used; the message says why.
        """
        return _lifespan(self, app, store, work)

    @asynccontextmanager
    async def running(
        self,
        app: App | None = None,
        *,
        store: str | os.PathLike[str] | None = None,
        work: bool | None = None,
        queues: Iterable[str] | Mapping[str, int | None] | None = None,
    ) -> AsyncIterator[Self]:
        """Open the runner inside the block, on the running event loop.

        ::

            @asynccontextmanager
            async def lifespan(app: FastAPI) -> AsyncIterator[None]:
                async with jobs.running(app):
                    yield

        At the end of the block, running attempts get the ``grace`` of the settings to finish.

        Args:
            app: The application whose requests use the runner. Default: none, as in a script.
            store: Another store than the runner's, such as a file for a test.
            work: False to enqueue and read without running jobs. Default: the runner's setting.
            queues: The queues that this process serves; a mapping also sets the slots of each, None for the runner's
                number. Default: all.

        Raises:
            AlreadyRunning: The runner, or another one on the same file or application, is open in this process.
            ConfigurationError: A route of the application would lose jobs, or a number of slots is invalid.
            InvalidSchedule: The code declares a schedule for a task that the runner does not have.
            UnknownQueue: A task, a schedule or ``queues`` names a queue that the runner does not have.
            StoreError: The store cannot be used; the message says why.
        """
        if self._opened_in == generation():
            raise AlreadyRunning(
                "this runner is open already; one `jobs.running()` or lifespan per process"
            )
        self._opened_in = generation()
        try:
            if app is not None and "jobrunner.fastapi" in sys.modules:
                from jobrunner.fastapi import route_checks  # noqa: PLC0415 - see the top

                route_checks.check_routes(app)
                self._status.place(app, route_checks.paths_of(app))
                if not self._status:
                    route_checks.refuse_respond(app, self, NONE_MOUNTED)
            if (ordered := orders.get()) is not None:
                work, queues = ordered
            tasks = self._resolved_tasks()
            plan = StartupPlan(
                settings=self.settings,
                store=self.settings.store if store is None else store,
                work=self.settings.work if work is None else work,
                grace=Grace(0 if shutdown.is_reloading() else self.settings.grace_s),
                slots=slots_of(self.settings.slots, tasks, queues),
                specs={name: task.spec for name, task in tasks.items()},
                schedules=schedules_of(self.settings, tasks, self.declarations),
                session=session_of_tasks(self._session),
                session_advice=self._session_advice,
                hooks=self._hooks,
                around=AttemptScope(self, app, self._hooks.around),
            )
            async with started(plan, app, self._named):
                yield self
        finally:
            self._opened_in = None
            self._status.place(None, {})

    @contextmanager
    def _named(self, queue: JobQueue) -> Iterator[None]:
        """Make the queue the runner's, and one of the open queues of the process."""
        self._open = queue
        enqueuer = enqueuer_of(queue)
        current_queue.opened.append(enqueuer)
        try:
            yield
        finally:
            current_queue.opened.remove(enqueuer)
            self._open = None

    def run(self, *, queues: Iterable[str] | Mapping[str, int | None] | None = None) -> None:
        """Run jobs in this process, without an application, until SIGINT or SIGTERM.

        Running attempts get the ``grace`` of the settings to finish. A second SIGINT ends the process at once.

        Args:
            queues: The queues that this process serves; see ``running``. Default: all.

        Raises:
            StoreFailed: The worker has stopped for good; the message says why.
        """
        asyncio.run(work_until_signal(self.running(work=True, queues=queues)))

    # -- the queue's methods, outside requests -------------------------------------------

    @property
    def sync(self) -> "SyncRunner[Self]":
        """The queue's methods for threads, scripts and ``def`` tasks; each call blocks.

        ::

            job = jobs.sync.enqueue(send_welcome_email, "ada@example.org")

        See ``SyncQueue``. In a script without an event loop, ``with jobs.sync.running():`` opens the runner; until it
        is open, the other methods raise ``NotRunning``.
        """
        return SyncRunner(partial(self._opened, "jobs.sync"), self.running)

    async def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a call of a task as a job; see ``JobQueue.enqueue``."""
        # Without the queue's own coroutine, which would take 2 % of the time.
        enqueuer = enqueuer_of(self._opened("jobs.enqueue(...)"))
        return await enqueuer.enqueue_call(call_of(task, args, kwargs))

    async def enqueue_many(self, calls: Iterable[Call[R]]) -> list[Job[R]]:
        """Store many calls in one transaction; see ``JobQueue.enqueue_many``."""
        return await self._opened("jobs.enqueue_many(...)").enqueue_many(calls)

    async def enqueue_chain(
        self, calls: Iterable[Call[R]], *, on_dead: OnDead = "continue"
    ) -> list[Job[R]]:
        """Store calls that run one after another; see ``JobQueue.enqueue_chain``."""
        queue = self._opened("jobs.enqueue_chain(...)")
        return await queue.enqueue_chain(calls, on_dead=on_dead)

    async def enqueue_batch(
        self,
        calls: Iterable[Call[R]],
        *,
        then: Call[Any] | None = None,
        otherwise: Call[Any] | None = None,
        at_end: Call[Any] | None = None,
        name: str | None = None,
    ) -> Batch[R]:
        """Store calls as a batch with callbacks; see ``JobQueue.enqueue_batch``."""
        return await self._opened("jobs.enqueue_batch(...)").enqueue_batch(
            calls, then=then, otherwise=otherwise, at_end=at_end, name=name
        )

    @overload
    async def get(self, id: str) -> Job[Any]: ...
    @overload
    async def get(self, id: str, task: Task[..., R]) -> Job[R]: ...
    async def get(self, id: str, task: Task[..., R] | None = None) -> Job[Any]:
        """Return a job with its arguments and its history; see ``JobQueue.get``."""
        queue = self._opened("jobs.get(...)")
        return await (queue.get(id) if task is None else queue.get(id, task))

    async def payload(self, id: str) -> Payload:
        """Return the stored arguments and result of a job; see ``JobQueue.payload``."""
        return await self._opened("jobs.payload(...)").payload(id)

    async def list(
        self,
        *,
        limit: int = DEFAULT_ROWS,
        cursor: str | None = None,
        **where: Unpack[JobFilter],
    ) -> Page[Job[Any]]:
        """Return a page of jobs; see ``JobQueue.list``."""
        return await self._opened("jobs.list(...)").list(limit=limit, cursor=cursor, **where)

    async def cancel(self, id: str) -> CancelStatus | None:
        """Cancel a waiting job, or ask a running one to stop; see ``JobQueue.cancel``."""
        return await self._opened("jobs.cancel(...)").cancel(id)

    async def cancel_all(
        self,
        *,
        dry_run: bool = False,
        on_slice: Callable[[int], None] | None = None,
        **where: Unpack[CancelFilter],
    ) -> CancelCounts:
        """Cancel all unfinished jobs that match the filters; see ``JobQueue.cancel_all``."""
        queue = self._opened("jobs.cancel_all(...)")
        return await queue.cancel_all(dry_run=dry_run, on_slice=on_slice, **where)

    async def reschedule(
        self, id: str, delay: Seconds | None = None, *, run_at: datetime | None = None
    ) -> Job[Any]:
        """Make a waiting job due at another time; see ``JobQueue.reschedule``."""
        return await self._opened("jobs.reschedule(...)").reschedule(id, delay, run_at=run_at)

    async def reschedule_all(
        self,
        delay: Seconds | None = None,
        *,
        run_at: datetime | None = None,
        dry_run: bool = False,
        on_slice: Callable[[int], None] | None = None,
        **where: Unpack[RescheduleFilter],
    ) -> RescheduleCounts:
        """Make all waiting jobs that match the filters due at another time; see ``JobQueue.reschedule_all``."""
        queue = self._opened("jobs.reschedule_all(...)")
        return await queue.reschedule_all(
            delay, run_at=run_at, dry_run=dry_run, on_slice=on_slice, **where
        )

    async def signal(self, id: str, name: str, value: object = None) -> bool:
        """Send a signal to a job that waits for it, now or later; see ``JobQueue.signal``."""
        return await self._opened("jobs.signal(...)").signal(id, name, value)

    @property
    def batches(self) -> Batches:
        """Lists, retries and cancels batches."""
        return self._opened("jobs.batches").batches

    @property
    def dead_letters(self) -> DeadLetters:
        """Lists, replays and deletes dead letters."""
        return self._opened("jobs.dead_letters").dead_letters

    @property
    def schedules(self) -> Schedules:
        """Lists, stores, pauses and removes schedules."""
        return self._opened("jobs.schedules").schedules

    @property
    def queues(self) -> Queues:
        """Lists, pauses and resumes queues."""
        return self._opened("jobs.queues").queues

    @property
    def limits(self) -> Limits:
        """Lists, sets and resets limits."""
        return self._opened("jobs.limits").limits

    @property
    def audit(self) -> AuditLog:
        """Lists what operators changed over HTTP and on the command line."""
        return self._opened("jobs.audit").audit

    async def health(self) -> Health:
        """Return the health of the runner and its store; see ``JobQueue.health``."""
        return await self._opened("jobs.health()").health()

    async def stats(self, **query: Unpack[StatsQuery]) -> Stats:
        """Return what ended in a window of time; see ``JobQueue.stats``."""
        return await self._opened("jobs.stats()").stats(**query)

    # -- hooks ---------------------------------------------------------------------------------

    def on_dead(self, hook: L) -> L:
        """Call ``hook(dead_letter)`` whenever this process makes a job a dead letter.

        ::

            @jobs.on_dead
            async def alert(letter: DeadLetter) -> None:
                logger.error("%s %s: %s", letter.task, letter.id, letter.error)

        Hooks are called after the commit, one at a time. A hook is an ``async def`` or a ``def`` function; both run on
        the event loop and must not block it. An exception in a hook is logged and affects no job. If the process dies,
        a call may be missed.
        """
        self._hooks.add("dead", hook)
        return hook

    def on_retry(self, hook: J) -> J:
        """Call ``hook(job)`` whenever an attempt failed and the job will run again.

        The error is in ``job.history``. See ``on_dead`` for the rules of hooks.
        """
        self._hooks.add("retry", hook)
        return hook

    def on_succeeded(self, hook: J) -> J:
        """Call ``hook(job)`` whenever a job has succeeded in this process.

        See ``on_dead`` for the rules of hooks.
        """
        self._hooks.add("succeeded", hook)
        return hook

    def around_attempt(self, hook: H) -> H:
        """Run a hook around each attempt: an ``async def`` function with one ``yield``.

        ::

            @jobs.around_attempt
            async def measured(job: JobContext) -> AsyncIterator[None]:
                with timer(job.task):
                    yield

        The task runs at the ``yield``. It sees the context variables that the hook sets, also in a thread; other
        attempts do not see them. Several hooks nest, and the first one registered is the outermost.

        An exception before the ``yield`` fails the attempt. The exception that ends the attempt is raised at the
        ``yield``, but the hook cannot change the outcome. An exception after the ``yield`` is only logged.

        Raises:
            ConfigurationError: The hook is not an ``async def`` function with one ``yield``.
        """
        self._hooks.around.append(read_around(hook))
        return hook


@asynccontextmanager
async def _lifespan(
    runner: JobRunner, app: App, store: str | os.PathLike[str] | None, work: bool | None
) -> AsyncIterator[None]:
    async with runner.running(app, store=store, work=work):
        yield
