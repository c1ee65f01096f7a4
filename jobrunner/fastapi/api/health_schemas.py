"""Bodies of the route of the runner's health."""

from pydantic import ConfigDict, Field

from jobrunner.core.health import Health, WorkerInfo
from jobrunner.core.response_models import ResponseModel
from jobrunner.fastapi.api.schemas import Number


class WorkerBody(
    ResponseModel,
    of=WorkerInfo,
    shows=(
        "id",
        "pid",
        "host",
        "started_at",
        "beat_at",
        "stalled",
        "queues",
        "revision",
        "running",
    ),
):
    """One process that runs jobs on the store."""

    model_config = ConfigDict(title="Worker")

    id: Number = Field(examples=["4611686018427387905"])


class HealthBody(
    ResponseModel,
    of=Health,
    shows=(
        "status",
        "problems",
        "ready",
        "working",
        "running",
        "stuck_threads",
        "unknown_tasks",
        "workers",
        "version",
        "error",
        "failing_chores",
        "failing_schedules",
        "deadlocks",
        "lanes",
    ),
):
    """The health of a runner and its store, with the problems found."""

    model_config = ConfigDict(
        title="Health",
        json_schema_extra={
            "examples": [
                {
                    "status": "ok",
                    "problems": [],
                    "ready": True,
                    "working": True,
                    "running": 2,
                    "stuck_threads": [],
                    "unknown_tasks": {},
                    "workers": [],
                    "version": "0.1.0",
                    "error": None,
                    "failing_chores": [],
                    "failing_schedules": [],
                    "deadlocks": [],
                    "lanes": {"open": 3, "full": 41, "empty": 0},
                }
            ]
        },
    )

    workers: tuple[WorkerBody, ...]
