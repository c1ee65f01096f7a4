"""The body of a job's status, for the users of an application."""

import json
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from jobrunner.core.job import ID
from jobrunner.core.model import FINISHED, JobRow, State
from jobrunner.core.progress import progress_of
from jobrunner.core.response_models import ResponseModel
from jobrunner.core.workflows import BatchRow, BatchState
from jobrunner.fastapi.api.job_schemas import ProgressBody
from jobrunner.queue.results import has_ended

StatusState = Literal[
    "scheduled", "queued", "running", "blocked", "succeeded", "cancelled", "expired", "failed"
]

_SHOWN: Final[dict[State, StatusState]] = {
    "scheduled": "scheduled",
    "queued": "queued",
    "running": "running",
    "blocked": "blocked",
    "succeeded": "succeeded",
    "cancelled": "cancelled",
    "expired": "expired",
    "dead": "failed",
}


class JobStatusBody(ResponseModel):
    """The status of a job, without its arguments and its errors."""

    model_config = ConfigDict(
        title="JobStatus",
        json_schema_extra={
            "examples": [
                {
                    "id": ID,
                    "state": "running",
                    "done": False,
                    "progress": {"done": 1240, "total": 5000, "message": "rendering"},
                    "result": None,
                    "result_omitted": False,
                }
            ]
        },
    )

    id: str
    state: StatusState = Field(
        description="`failed`: the job has given up. A job that waits for another attempt is `scheduled`."
    )
    done: bool = Field(description="True once the job has ended; its status does not change then.")
    progress: ProgressBody | None = Field(
        description="The last report of its last attempt; null if there is none."
    )
    result: Any = Field(description="The task's return value; null until the job has succeeded.")
    result_omitted: bool = Field(
        description="True if the job has succeeded and its return value was not stored; `result` is null then."
    )


class BatchStatusBody(ResponseModel):
    """The status of a batch: the numbers of its jobs."""

    model_config = ConfigDict(
        title="BatchStatus",
        json_schema_extra={
            "examples": [
                {
                    "id": ID,
                    "state": "running",
                    "done": False,
                    "total": 120,
                    "succeeded": 97,
                    "failed": 1,
                    "cancelled": 0,
                    "running": 20,
                    "waiting": 2,
                }
            ]
        },
    )

    id: str
    state: BatchState = Field(
        description="`failed` if a job has given up, or was cancelled alone; `cancelled` if the batch was."
    )
    done: bool = Field(
        description="True once all of its jobs have ended. It is false again if the application retries those that"
        " have failed."
    )
    total: int = Field(description="The jobs so far; some may be added while it runs.")
    succeeded: int
    failed: int = Field(description="The jobs that have given up.")
    cancelled: int
    running: int
    waiting: int


def batch_status_of(row: BatchRow) -> BatchStatusBody:
    """Return the status of a stored batch."""
    return BatchStatusBody(
        id=row.id,
        state=row.state,
        done=row.ended_at is not None,
        total=row.total,
        succeeded=row.succeeded,
        failed=row.dead,
        cancelled=row.cancelled,
        running=row.running,
        waiting=row.waiting,
    )


def status_of(row: JobRow) -> JobStatusBody:
    """Return the status of a stored job."""
    done = has_ended(row)
    is_returning = row.state in FINISHED and not done
    progress = progress_of(row.progress)
    return JobStatusBody(
        id=row.id,
        state="running" if is_returning else _SHOWN[row.state],
        done=done,
        progress=None if progress is None else ProgressBody.model_validate(progress),
        result=None if row.result is None else json.loads(row.result),
        result_omitted=done and row.result_omitted is not None,
    )
