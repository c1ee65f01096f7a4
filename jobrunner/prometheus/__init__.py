"""Shows the jobs of a runner to Prometheus; needs the extra ``metrics``.

Every number is read from the store, where the workers add them up.  So each process on a file answers the same: the
work of all processes, also of those that have ended.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from jobrunner.core.clock import now_us
from jobrunner.core.errors import ConfigurationError
from jobrunner.fastapi.api.exposition import encode
from jobrunner.fastapi.api.hosts import only_local
from jobrunner.fastapi.api.route import ProblemRoute
from jobrunner.fastapi.api.router import Guard, marker
from jobrunner.queue.queue import JobQueue, enqueuer_of

try:
    from prometheus_client.core import Metric
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.utils import floatToGoString
except ImportError as missing:
    raise ConfigurationError(
        "metrics need prometheus-client: write pip install 'fastapi-jobrunner[metrics]'"
    ) from missing

from jobrunner.prometheus.families import families_of
from jobrunner.prometheus.labels import NOTHING, LabelledMeasurements

__all__ = ["JobCollector"]

MAX_TASKS: Final = 50

_OPEN_TO_ALL: Final = (
    "jobs.metrics() has no guard, so everyone could read the names and numbers of tasks: write"
    " jobs.metrics(read=bearer(TOKEN)) with `from jobrunner.fastapi import bearer` (or a dependency of your"
    " own), or jobs.metrics(insecure=True) for an app that only localhost can reach"
)


class _Runner(Protocol):
    """A ``JobRunner``, as this module uses it."""

    _open: JobQueue | None


class JobCollector:
    """Adds the jobs of a runner to a registry of prometheus-client.

    ::

        REGISTRY.register(JobCollector(jobs))

    It may be called in any thread, and then reads the store there, for some milliseconds. While the runner is not open,
    it has no metrics.

    Args:
        jobs: The ``JobRunner``.
        max_tasks: The most tasks with series of their own, and the same for queues and schedules; the rest is
            ``other``. Default: 50.

    Raises:
        ConfigurationError: ``max_tasks`` is not a number of at least 1.
    """

    def __init__(self, jobs: _Runner, *, max_tasks: int = MAX_TASKS) -> None:
        _check(max_tasks)
        self._jobs = jobs
        self._max_tasks = max_tasks

    def describe(self) -> Iterable[Metric]:
        """Return the families without samples, so that a registry can refuse their names twice."""
        return families_of(LabelledMeasurements(NOTHING, {}, self._max_tasks, 0))

    def collect(self) -> Iterable[Metric]:
        """Return all metrics.

        Raises:
            StoreError: The store cannot be read.
        """
        queue = self._jobs._open  # noqa: SLF001 - this module is a part of the runner
        return () if queue is None else _collected(queue, self._max_tasks)


def build_metrics(
    queue: Callable[..., object],
    *,
    read: Guard | None,
    insecure: bool,
    max_tasks: int,
    include_in_schema: bool,
) -> APIRouter:
    """Return the router with the one route; see ``JobRunner.metrics``.

    Args:
        queue: the dependency that provides the ``JobQueue``; also its key in ``app.dependency_overrides``.
        read: the guard of the route.
        insecure: without ``read``, answer every request that names a local host.
        max_tasks: see ``JobCollector``.
        include_in_schema: show the route in the OpenAPI document.

    Raises:
        ConfigurationError: There is no ``read``, and ``insecure`` is not set; or an argument is invalid.
    """
    _check(max_tasks)
    if read is None and not insecure:
        raise ConfigurationError(_OPEN_TO_ALL)
    guard = only_local("jobs.metrics") if read is None else marker("read", read, "jobs.metrics")
    router = APIRouter(
        tags=["metrics"], route_class=ProblemRoute, include_in_schema=include_in_schema
    )
    provided: Any = Depends(queue)

    # A `def`, so that FastAPI calls it in a thread, where it may wait for the store.
    @router.get(
        "",
        summary="Get metrics",
        response_class=Response,
        responses={200: {"description": "The metrics as Prometheus reads them."}},
        dependencies=[guard],
    )
    def get_metrics(request: Request, queue: JobQueue = provided) -> Response:
        """Get the metrics of all processes, as text or as OpenMetrics."""
        _, media_type = choose_encoder(request.headers.get("accept", ""))
        text = encode(
            _collected(queue, max_tasks),
            open_metrics=media_type.startswith("application/openmetrics-text"),
            number=floatToGoString,
        )
        return Response(text, media_type=media_type)

    return router


def _check(max_tasks: object) -> None:
    if not isinstance(max_tasks, int) or isinstance(max_tasks, bool) or max_tasks < 1:
        raise ConfigurationError(
            f"max_tasks={max_tasks!r} is not a number of tasks: write max_tasks=200, or leave it out"
        )


def _collected(queue: JobQueue, max_tasks: int) -> Iterable[Metric]:
    parts = enqueuer_of(queue).parts
    measured = parts.store.statistics.measure()
    return families_of(LabelledMeasurements(measured, parts.tasks, max_tasks, now_us()))
