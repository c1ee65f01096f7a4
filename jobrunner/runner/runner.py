"""Offers ``JobRunner``: tasks are declared on it, and an application opens it. It composes, and decides nothing."""

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
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, overload
from weakref import WeakSet

from jobrunner.core.errors import AlreadyRunning, NotRunning
from jobrunner.core.exports import exported
from jobrunner.core.forked import generation
from jobrunner.core.hints import answers_foreign_words
from jobrunner.core.job import CancelStatus, DeadLetter, Health, Job, Payload
from jobrunner.queue.background import DurableBackgroundTasks
from jobrunner.queue.dead_letters import DeadLetters
from jobrunner.queue.filters import DEFAULT_ROWS, JobFilter
from jobrunner.queue.page import Page
from jobrunner.queue.queue import JobQueue, enqueuer_of
from jobrunner.queue.queues import Queues
from jobrunner.queue.schedules import Schedules
from jobrunner.queue.sync import SyncQueue, SyncRunner
from jobrunner.runner import shutdown
from jobrunner.runner.asgi import App
from jobrunner.runner.standalone import orders, work_until_signal
from jobrunner.runner.startup import (
    StartupPlan,
    schedules_of,
    session_of_tasks,
    slots_of,
    started,
)
from jobrunner.store.open import location_of
from jobrunner.tasks import current_queue
from jobrunner.tasks.call import Call
from jobrunner.tasks.dependencies import supplied
from jobrunner.tasks.options import check_options
from jobrunner.tasks.router import TaskRouter
from jobrunner.tasks.task import Task
from jobrunner.worker.around_attempt import H, read_around
from jobrunner.worker.dependencies import AttemptScope
from jobrunner.worker.events import Hooks
from jobrunner.worker.grace import Grace
from jobrunner.worker.settings import RUNNER_OPTIONS, RunnerOptions, Settings

if TYPE_CHECKING:
    # FastAPI takes half a second to import, and a worker or a script needs nothing of it.
    from fastapi import APIRouter, params

P = ParamSpec("P")
R = TypeVar("R")
L = TypeVar("L", bound=Callable[[DeadLetter], Awaitable[None] | None])
J = TypeVar("J", bound=Callable[[Job[Any]], Awaitable[None] | None])

DEFAULT_STORE = "sqlite:///jobs.db"

made: "WeakSet[JobRunner]" = WeakSet()
"""The runners of this process: how a command finds the one of an application that it has loaded."""


@exported
@answers_foreign_words("runner", "queue", name="jobs")
class JobRunner(TaskRouter):
    """A durable job queue: tasks are declared on it, and it runs while an application does.

    ::

        jobs = JobRunner("sqlite:///shop.db", queues={"default": 20, "mail": 50})

        @jobs.task(queue="mail")
        async def send_welcome_email(email: str) -> None: ...

        app = FastAPI(lifespan=jobs.lifespan)

    Args:
        store: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or a path.
        session: the dependency that yields the application's session, or ``Depends(get_session, scope="function")``:
            the queue of ``Depends(jobs.queue)`` stores jobs in its transaction.
        **options: see ``jobrunner.worker.settings.RunnerOptions``; other queues' words are answered with ours.

    Raises:
        ConfigurationError: a value that cannot be.
        TypeError: a word that is no option.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] = DEFAULT_STORE,
        *,
        session: "params.Depends | Callable[..., Any] | None" = None,
        **options: Unpack[RunnerOptions],
    ) -> None:
        check_options("JobRunner", options.keys(), RUNNER_OPTIONS, "session")
        super().__init__()
        location_of(store)  # refuses what names no store
        self.settings = Settings.make(os.fspath(store), **options)
        self._hooks = Hooks()
        self._open: JobQueue | None = None
        self._opened_in: int | None = None
        """The process in which it is open, or just being opened; see ``forked.generation``."""
        self._session: params.Depends | None = None
        self._session_advice: str | None = None
        if session is not None:
            self._join(session)
        made.add(self)

    def _join(self, session: "params.Depends | Callable[..., Any]") -> None:
        """Let the queues of routes depend on the request's session."""
        from jobrunner.fastapi import sessions  # noqa: PLC0415 - see the top

        self._session = sessions.marker_of(session)
        self._session_advice = sessions.advice_for(session)
        queues = sessions.queues_of(self, session, partial(self._opened, "Depends(jobs.queue)"))
        # In place of the methods: FastAPI reads from a function's signature what it depends on.
        self.__dict__.update(queue=queues.queue, sync_queue=queues.sync_queue)

    # -- opening -----------------------------------------------------------------

    def lifespan(self, app: App) -> AbstractAsyncContextManager[None]:
        """Be open while the application runs: ``FastAPI(lifespan=jobs.lifespan)``."""
        return _lifespan(self, app)

    @asynccontextmanager
    async def running(
        self,
        app: App | None = None,
        *,
        store: str | os.PathLike[str] | None = None,
        work: bool | None = None,
        queues: Iterable[str] | Mapping[str, int | None] | None = None,
    ) -> AsyncIterator[Self]:
        """Be open inside the block, on the running loop.

        Args:
            app: the application whose requests are to find the queue.
            store: in place of the runner's own.
            work: in place of the runner's own.
            queues: the queues that this process serves, all if left out; a mapping also says with how many slots.

        Raises:
            AlreadyRunning: the runner, or another one on the same file, is open in this process.
            UnknownQueue: a task names a queue that the runner does not have.
            StoreError: the store cannot be used; the message says why.
        """
        if self._opened_in == generation():
            raise AlreadyRunning(
                "this runner is open already; one `jobs.running()` or lifespan per process"
            )
        self._opened_in = generation()
        try:
            if app is not None and "jobrunner.fastapi" in sys.modules:
                from jobrunner.fastapi.route_checks import check_routes  # noqa: PLC0415 - see the top

                check_routes(app)
            if (ordered := orders.get()) is not None:
                work, queues = ordered
            tasks = self._resolved_tasks()
            plan = StartupPlan(
                settings=self.settings,
                store=self.settings.store if store is None else store,
                work=self.settings.work if work is None else work,
                grace=Grace(0 if shutdown.is_reloading() else self.settings.grace_s),
                slots=slots_of(self.settings.queues, tasks, queues),
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

    @contextmanager
    def _named(self, queue: JobQueue) -> Iterator[None]:
        """Make the queue the runner's, and one of the process's open ones."""
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

        Args:
            queues: see ``running``.

        Raises:
            StoreFailed: the worker has stopped for good; the message says why.
        """
        asyncio.run(work_until_signal(self.running(work=True, queues=queues)))

    # -- FastAPI -----------------------------------------------------------------------

    @supplied("queue")
    async def queue(self) -> JobQueue:
        """Give the open queue to a route: ``queue: Annotated[JobQueue, Depends(jobs.queue)]``.

        With ``JobRunner(session=...)`` its jobs are stored in the transaction of the request's session.

        Raises:
            NotRunning: the runner is not open.
        """
        return self._opened("Depends(jobs.queue)")

    async def sync_queue(self) -> SyncQueue:
        """Give the same queue to a ``def`` route: ``queue: Annotated[SyncQueue, Depends(jobs.sync_queue)]``."""
        return SyncQueue(self._opened("Depends(jobs.sync_queue)"))

    @cached_property
    def background(self) -> Callable[..., Awaitable[DurableBackgroundTasks]]:
        """Give a route its tasks for afterwards: ``Annotated[DurableBackgroundTasks, Depends(jobs.background)]``.

        What is added is stored as one chain before the response leaves, and not at all if the route raises. With
        ``JobRunner(session=...)`` it is committed or rolled back with the rows that the session then holds.
        """
        from jobrunner.fastapi import sessions  # noqa: PLC0415 - see the top

        find = partial(self._opened, "Depends(jobs.background)")
        return sessions.background_of(self, self._session, find)

    async def _own_queue(self) -> JobQueue:
        """Give the queue without a session to the routes that show and steer jobs."""
        return self._opened("jobs.router()")

    def router(
        self,
        *,
        read: "params.Depends | Callable[..., Any] | None" = None,
        act: "params.Depends | Callable[..., Any] | None" = None,
        arguments: "params.Depends | Callable[..., Any] | None" = None,
        insecure: bool = False,
    ) -> "APIRouter":
        """Return the routes that show and steer jobs: ``app.include_router(jobs.router(...), prefix="/jobs")``.

        Args:
            read: a dependency that lets those pass who may look, such as ``bearer(TOKEN)``.
            act: lets those pass who may replay, cancel, delete and pause; by default the same as ``read``.
            arguments: lets those pass who may see the arguments and result of any job; nobody may without it.
            insecure: do without the first two, for an app that only this machine can reach: requests that name another
                host are refused, since they may be a web page's (DNS rebinding).

        Raises:
            ConfigurationError: nothing guards the routes, and ``insecure`` does not say that this is meant.
        """
        from jobrunner.fastapi.api.router import build_router  # noqa: PLC0415 - see the top

        # Its routes steer the queue and open no session.
        queue = self.queue if self._session_advice is None else self._own_queue
        return build_router(queue, read=read, act=act, arguments=arguments, insecure=insecure)

    # -- the queue's verbs, outside requests ---------------------------------------------

    def _opened(self, call: str) -> JobQueue:
        if self._open is None:
            raise NotRunning(
                f"{call}: the runner is not open. In an application write FastAPI(lifespan=jobs.lifespan), in a test"
                " `with TestClient(app) as client:`, in a script `async with jobs.running():`"
            )
        return self._open

    @property
    def sync(self) -> "SyncRunner[Self]":
        """The verbs for threads, scripts and ``def`` tasks; each blocks until it is answered."""
        return SyncRunner(partial(self._opened, "jobs.sync"), self.running)

    async def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a call of the task; see ``JobQueue.enqueue``."""
        return await self._opened("jobs.enqueue(...)").enqueue(task, *args, **kwargs)

    async def enqueue_many(self, calls: Iterable[Call[R]]) -> list[Job[R]]:
        """Store many calls in one transaction; see ``JobQueue.enqueue_many``."""
        return await self._opened("jobs.enqueue_many(...)").enqueue_many(calls)

    async def enqueue_chain(self, calls: Iterable[Call[R]]) -> list[Job[R]]:
        """Store calls that run one after another; see ``JobQueue.enqueue_chain``."""
        return await self._opened("jobs.enqueue_chain(...)").enqueue_chain(calls)

    @overload
    async def get(self, id: str) -> Job[Any]: ...
    @overload
    async def get(self, id: str, task: Task[..., R]) -> Job[R]: ...
    async def get(self, id: str, task: Task[..., R] | None = None) -> Job[Any]:
        """Return a job with its history; see ``JobQueue.get``."""
        queue = self._opened("jobs.get(...)")
        return await (queue.get(id) if task is None else queue.get(id, task))

    async def payload(self, id: str) -> Payload:
        """Return the arguments and the result of a job; see ``JobQueue.payload``."""
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
        """Cancel a job; see ``JobQueue.cancel``."""
        return await self._opened("jobs.cancel(...)").cancel(id)

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters: list, get, replay, delete."""
        return self._opened("jobs.dead_letters").dead_letters

    @property
    def schedules(self) -> Schedules:
        """The schedules: list, upsert, pause, resume, run_now, remove."""
        return self._opened("jobs.schedules").schedules

    @property
    def queues(self) -> Queues:
        """The queues: list, pause, resume."""
        return self._opened("jobs.queues").queues

    async def health(self) -> Health:
        """Return whether the promises are being kept just now; see ``JobQueue.health``."""
        return await self._opened("jobs.health()").health()

    # -- hooks ---------------------------------------------------------------------------------

    def on_dead(self, hook: L) -> L:
        """Call ``hook(dead_letter)`` whenever this process makes a job a dead letter.

        As the other hooks: after the commit, one at a time, ``async def`` or ``def`` (on the loop, so it must not
        block); what it raises is logged and harms no job; it may be missed when the process dies.
        """
        self._hooks.add("dead", hook)
        return hook

    def on_retry(self, hook: J) -> J:
        """Call ``hook(job)`` whenever an attempt failed and the job will run again; its history holds the error."""
        self._hooks.add("retry", hook)
        return hook

    def on_succeeded(self, hook: J) -> J:
        """Call ``hook(job)`` whenever a job has succeeded in this process."""
        self._hooks.add("succeeded", hook)
        return hook

    def around_attempt(self, hook: H) -> H:
        """Run ``hook`` around every attempt: an ``async def`` with one ``yield``, handed the ``JobContext``.

        ::

            @jobs.around_attempt
            async def measured(job: JobContext) -> AsyncIterator[None]:
                with timer(job.task):
                    yield

        Context variables that it sets are seen by the task, in a thread too, and by no other attempt. Several nest, the
        first one registered outermost. What ends the attempt is raised at the ``yield``, to be looked at: the outcome
        is decided by then, and an error behind the ``yield`` is only logged. One before it fails the attempt.

        Raises:
            ConfigurationError: it is no such function.
        """
        self._hooks.around.append(read_around(hook))
        return hook


@asynccontextmanager
async def _lifespan(runner: JobRunner, app: App) -> AsyncIterator[None]:
    async with runner.running(app):
        yield
