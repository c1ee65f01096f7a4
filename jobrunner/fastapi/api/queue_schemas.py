"""Bodies of the queues' routes."""

from pydantic import ConfigDict, Field

from jobrunner.core.job import QueueInfo
from jobrunner.core.response_models import ResponseModel


class QueueBody(
    ResponseModel,
    of=QueueInfo,
    shows=(
        "name",
        "slots",
        "paused",
        "queued",
        "scheduled",
        "blocked",
        "running",
        "oldest_due_at",
        "complete",
    ),
):
    """One queue, over all workers of the store."""

    model_config = ConfigDict(title="Queue")


class QueuesBody(ResponseModel):
    """Every queue that has jobs, slots or a pause."""

    model_config = ConfigDict(title="Queues")

    items: list[QueueBody]


class PausedBody(ResponseModel):
    """Whether a queue is paused now."""

    model_config = ConfigDict(
        title="Paused", json_schema_extra={"examples": [{"name": "mail", "paused": True}]}
    )

    name: str
    paused: bool = Field(description="While paused, none of its jobs starts; running ones go on.")
