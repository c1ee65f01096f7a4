"""Bodies of the routes of queues."""

from pydantic import ConfigDict, Field

from jobrunner.core.health import QueueInfo
from jobrunner.core.response_models import ResponseModel


class QueueBody(
    ResponseModel,
    of=QueueInfo,
    shows=(
        "name",
        "slots",
        "paused",
        "paused_at",
        "queued",
        "scheduled",
        "blocked",
        "running",
        "oldest_due_at",
        "complete",
    ),
):
    """One queue, summed over all workers of the store."""

    model_config = ConfigDict(title="Queue")


class QueuesBody(ResponseModel):
    """Every queue that has jobs or slots, or is paused."""

    model_config = ConfigDict(title="Queues")

    items: list[QueueBody]


class PausedBody(ResponseModel):
    """The pause state of a queue."""

    model_config = ConfigDict(
        title="Paused", json_schema_extra={"examples": [{"name": "mail", "paused": True}]}
    )

    name: str
    paused: bool = Field(
        description="While the queue is paused, no new job of it starts; running jobs continue."
    )
