"""Offers what ``JobRunner`` gives to a FastAPI application: dependencies and routers."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from jobrunner.core.errors import NotRunning
from jobrunner.core.job import Job
from jobrunner.queue.background import DurableBackgroundTasks
from jobrunner.queue.queue import JobQueue
from jobrunner.queue.sync import SyncQueue
from jobrunner.runner.status_routes import StatusRoutes
from jobrunner.tasks.dependencies import supplied
from jobrunner.tasks.task import Task
from jobrunner.worker.settings import Settings

if TYPE_CHECKING:
    # FastAPI takes half a second to import, and a worker or a script does not need it.
    from fastapi import APIRouter, params
    from starlette.responses import Response

DEFAULT_WITHIN_S = 1.5


class RunnerRoutes:
    """The methods of ``JobRunner`` for a FastAPI application.

    The aliases of ``jobrunner.fastapi`` need no runner; these dependencies and routers belong to one.
    """

    def __init__(
        self, settings: Settings, session: "params.Depends | Callable[..., Any] | None"
    ) -> None:
        """Begin without an open queue.

        Args:
            settings: The runner's settings.
            session: The dependency that yields the application's session; None to commit jobs apart from it.

        Raises:
            ConfigurationError: The session is not a dependency, or has ``use_cache=False``.
        """
        self.settings = settings
        self._open: JobQueue | None = None
        self._status = StatusRoutes()
        self._session: params.Depends | None = None
        self._session_advice: str | None = None
        if session is not None:
            self._join(session)

    def _join(self, session: "params.Depends | Callable[..., Any]") -> None:
        """Make the queues of routes join the request's session."""
        from jobrunner.fastapi import sessions  # noqa: PLC0415 - see the top

        self._session = sessions.marker_of(session)
        self._session_advice = sessions.advice_for(session)
        queues = sessions.queues_of(self, session, partial(self._opened, "Depends(jobs.queue)"))
        # They replace the methods, because FastAPI reads a dependency's own dependencies from its signature.
        self.__dict__.update(queue=queues.queue, sync_queue=queues.sync_queue)

    def _opened(self, call: str) -> JobQueue:
        if self._open is None:
            raise NotRunning(
                f"{call}: the runner is not open. In an application write FastAPI(lifespan=jobs.lifespan), in a test"
                " `with TestClient(app) as client:`, in a script `async with jobs.running():`"
            )
        return self._open

    @supplied("queue")
    async def queue(self) -> JobQueue:
        """Return the open queue; a dependency for ``async def`` routes.

        ::

            Queue = Annotated[JobQueue, Depends(jobs.queue)]

        With ``JobRunner(session=...)`` its jobs are stored in the transaction of the request's session.

        Raises:
            NotRunning: The runner is not open.
        """
        return self._opened("Depends(jobs.queue)")

    async def sync_queue(self) -> SyncQueue:
        """Return the open queue in its blocking form; a dependency for ``def`` routes.

        ::

            Queue = Annotated[SyncQueue, Depends(jobs.sync_queue)]

        Raises:
            NotRunning: The runner is not open.
        """
        return SyncQueue(self._opened("Depends(jobs.sync_queue)"))

    @cached_property
    def background(self) -> Callable[..., Awaitable[DurableBackgroundTasks]]:
        """Collects the background tasks of a request; a dependency for routes.

        ::

            Background = Annotated[DurableBackgroundTasks, Depends(jobs.background)]

        The added tasks are stored as one chain before the response is sent, and not at all if the route raises. With
        ``JobRunner(session=...)`` they are committed or rolled back with the uncommitted rows of the session.
        """
        from jobrunner.fastapi import sessions  # noqa: PLC0415 - see the top

        find = partial(self._opened, "Depends(jobs.background)")
        return sessions.background_of(self, self._session, find)

    def _queue_of_routes(self) -> Callable[..., Awaitable[JobQueue]]:
        """Return the dependency of the runner's own routes, which open no session."""
        return self.queue if self._session_advice is None else self._own_queue

    async def _own_queue(self) -> JobQueue:
        return self._opened("jobs.router()")

    def router(
        self,
        *,
        read: "params.Depends | Callable[..., Any] | None" = None,
        act: "params.Depends | Callable[..., Any] | None" = None,
        arguments: "params.Depends | Callable[..., Any] | None" = None,
        signal: "params.Depends | Callable[..., Any] | None" = None,
        actor: "params.Depends | Callable[..., Any] | None" = None,
        insecure: bool = False,
    ) -> "APIRouter":
        """Return the HTTP routes that show and change jobs, queues, dead letters and schedules.

        ::

            app.include_router(jobs.router(read=bearer(TOKEN)), prefix="/jobs")

        Args:
            read: A dependency that raises unless the client may read, such as ``bearer(TOKEN)``.
            act: A dependency that raises unless the client may replay, cancel, delete, pause and schedule. Default:
                ``read``.
            arguments: A dependency that raises unless the client may read the arguments and the result of any job.
                Default: there is no such route.
            signal: A dependency that raises unless the client may send signals to jobs. Default: ``act``.
            actor: A dependency that returns the name of the client, for the audit log: a string such as an e-mail
                address. It is called after ``act`` has let the client pass. Default: ``"unknown"``.
            insecure: True to leave out ``read``, for an application that only this machine can reach. Then requests
                that name another host are refused: a web page may have sent them (DNS rebinding). Default: False.

        Raises:
            ConfigurationError: There is no ``read``, and ``insecure`` is False.
        """
        from jobrunner.fastapi.api.router import build_router  # noqa: PLC0415 - see the top

        queue = self._queue_of_routes()
        return build_router(
            queue,
            read=read,
            act=act,
            arguments=arguments,
            signal=signal,
            actor=actor,
            insecure=insecure,
            redaction=self.settings.redact,
        )

    def dashboard(
        self,
        *,
        read: "params.Depends | Callable[..., Any] | None" = None,
        act: "params.Depends | Callable[..., Any] | None" = None,
        arguments: "params.Depends | Callable[..., Any] | None" = None,
        actor: "params.Depends | Callable[..., Any] | None" = None,
        links: Mapping[str, str] | None = None,
        insecure: bool = False,
    ) -> "APIRouter":
        """Return the pages that show and change jobs, queues, dead letters and schedules.

        ::

            app.include_router(jobs.dashboard(read=bearer(TOKEN)), prefix="/jobs/ui")

        Args:
            read: A dependency that raises unless the viewer may read. With ``bearer(TOKEN)`` the pages have a sign-in
                form.
            act: A dependency that raises unless the viewer may replay, cancel, delete, pause and run. Default:
                ``read``.
            arguments: A dependency that raises unless the viewer may see arguments and results. Default: ``act``.
            actor: A dependency that returns the viewer's name, for the pages and the audit log. Default:
                ``"unknown"``, which the pages do not show.
            links: Addresses of logs and traces for the page of a job, by name:
                ``{"Logs": "https://logs.example/?q={id}"}``. An address is of http or https, or a path of this site. It
                may hold ``{id}``, ``{task}``, ``{queue}``, ``{attempt}``, ``{key}``, ``{tag}``, and the times
                ``{created_at}``, ``{started_at}`` (of the last attempt) and ``{finished_at}`` in ISO 8601. A job
                without one of its values does not show the link. Default: none.
            insecure: True to leave out ``read``, for an application that only this machine can reach. Then requests
                that name another host are refused. Default: False.

        Raises:
            ConfigurationError: There is no ``read``, and ``insecure`` is False; or a link is invalid.
        """
        from jobrunner.fastapi.dashboard.router import build_dashboard  # noqa: PLC0415 - see the top

        queue = self._queue_of_routes()
        return build_dashboard(
            queue,
            read=read,
            act=act,
            arguments=arguments,
            actor=actor,
            links=links or {},
            insecure=insecure,
            settings=self.settings,
        )

    def status_router(
        self,
        guard: "params.Depends | Callable[..., Any]",
        *,
        public: Iterable[Task[..., Any]],
    ) -> "APIRouter":
        """Return the HTTP routes by which the application's own users follow their jobs.

        ::

            app.include_router(jobs.status_router(signed_in, public=[make_report]), prefix="/status")

        ``GET /{id}`` answers with the state, the progress and the result of a job, and ``GET /{id}/events`` streams
        them for ``new EventSource(url)``. ``GET /batches/{id}`` answers with the numbers of a batch that has a job or a
        callback of these tasks. None shows arguments, errors or tracebacks. Jobs of other tasks are not found. Ids
        cannot be guessed, so an id that only its user was given is also a permission.

        Args:
            guard: A dependency that raises unless the client may follow the job. It may have the path parameter
                ``id``.
            public: The tasks whose jobs can be followed.

        Raises:
            ConfigurationError: ``guard`` is no dependency, or ``public`` has no tasks.
        """
        from jobrunner.fastapi.status.router import (  # noqa: PLC0415 - see the top
            build_status_router,
            names_of,
        )

        queue = self._queue_of_routes()
        tasks = names_of(public)
        router, route = build_status_router(queue, guard, tasks)
        self._status.add(route, tasks)
        return router

    async def respond(
        self, job: Job[Any], *, within: float | timedelta = DEFAULT_WITHIN_S
    ) -> "Response":
        """Wait a moment for a job, and return the response of a route.

        ::

            @app.post("/reports")
            async def start(month: str, queue: Queue) -> Response:
                return await jobs.respond(await queue.enqueue(make_report, month), within=1.5)

        The response is 200 with the result, if the job succeeds in time. Otherwise it is 202 with the job's status,
        ``Location`` (the first route of a ``status_router`` with the task) and ``Retry-After``. If the job ends without
        success in time, it is a 500 problem with the job's id.

        Args:
            job: A job that ``enqueue`` has stored.
            within: The longest wait, in seconds or as a timedelta.

        Raises:
            ConfigurationError: The application has no ``status_router``, or it does not list the job's task. If a
                route names this runner and calls ``respond``, the first is already an error at the start.
            NotCommitted: The job was stored through a session that is not committed.
            WouldDeadlock: The caller holds a transaction that keeps workers from writing the job's end.
            InvalidOptions: ``within`` is negative or not a number.
        """
        self._opened("jobs.respond(...)")
        path = self._status.path_of(job.task)
        from jobrunner.fastapi.status.respond import respond  # noqa: PLC0415 - see the top

        return await respond(job, within, path=path, app=self._status.app)

    def metrics(
        self,
        *,
        read: "params.Depends | Callable[..., Any] | None" = None,
        insecure: bool = False,
        max_tasks: int = 50,
        include_in_schema: bool = False,
    ) -> "APIRouter":
        """Return the route that Prometheus reads; needs the extra ``metrics``.

        ::

            app.include_router(jobs.metrics(read=bearer(TOKEN)), prefix="/metrics")

        Every process on the file answers with the same numbers: those of all processes together. To add them to the
        metrics of a registry, use ``jobrunner.prometheus.JobCollector`` instead.

        Args:
            read: A dependency that raises unless the client may read, such as ``bearer(TOKEN)``.
            insecure: True to leave out ``read``, for an application that only this machine can reach. Then requests
                that name another host are refused. Default: False.
            max_tasks: The most tasks with series of their own, and the same for queues and schedules; the rest is
                ``other``. Default: 50.
            include_in_schema: True to show the route in the OpenAPI document. Default: False.

        Raises:
            ConfigurationError: There is no ``read``, and ``insecure`` is False; or prometheus-client is not installed.
        """
        from jobrunner.prometheus import build_metrics  # noqa: PLC0415 - see the top

        queue = self._queue_of_routes()
        return build_metrics(
            queue,
            read=read,
            insecure=insecure,
            max_tasks=max_tasks,
            include_in_schema=include_in_schema,
        )
