"""Bodies and filters of the routes of batches."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from jobrunner.core.batch import BatchBody
from jobrunner.core.counts import ReplayCounts
from jobrunner.core.job import ID
from jobrunner.core.model import Need, State
from jobrunner.core.response_models import ResponseModel
from jobrunner.core.workflows import BatchGraph, BatchState, EdgeState
from jobrunner.fastapi.api.schemas import COMPLETE, NO_CONTROLS, Cursor, Limit, RequestModel
from jobrunner.queue.batches import MAX_NAME_CHARS
from jobrunner.queue.filters import DEFAULT_ROWS

Role = Literal["member", "then", "otherwise", "at_end"]

ROLES: dict[Need, Role] = {"success": "then", "failure": "otherwise", "end": "at_end"}
"""The role of a callback, by the end of the batch for which it waits."""

MOST_NODES = 1_000
"""The most members in an answer with a graph."""


class BatchQuery(RequestModel):
    """Filters of a list of batches; a batch must match all of them."""

    state: Annotated[BatchState | None, Field(description="Only batches in this state.")] = None
    name: Annotated[
        Annotated[str, Field(max_length=MAX_NAME_CHARS, pattern=NO_CONTROLS)] | None,
        Field(description="Only batches with this name."),
    ] = None
    limit: Limit = DEFAULT_ROWS
    cursor: Cursor = None


class BatchPageBody(ResponseModel):
    """A page of batches, newest first."""

    model_config = ConfigDict(title="BatchPage")

    items: list[BatchBody]
    next_cursor: str | None = Field(
        description="The cursor of the next page; null on the last page."
    )
    complete: bool = Field(description=COMPLETE)


class CallbackBody(ResponseModel):
    """A callback of a batch."""

    model_config = ConfigDict(title="Callback")

    id: str = Field(description="The job's id.", examples=[ID])
    task: str = Field(examples=["publish"])
    state: State = Field(
        description="`blocked` until the batch has ended; `cancelled` if it ended in another way."
    )


class BatchDetailBody(BatchBody):
    """A batch with its callbacks."""

    model_config = ConfigDict(title="BatchDetail")

    then: CallbackBody | None = Field(
        description="The job that starts when all members have succeeded."
    )
    otherwise: CallbackBody | None = Field(
        description="The job that starts when the batch has ended without success."
    )
    at_end: CallbackBody | None = Field(description="The job that starts when the batch has ended.")


class GraphQuery(RequestModel):
    """The size of a graph."""

    limit: Annotated[int, Field(ge=1, le=MOST_NODES, description="The most members.")] = 200


class NodeBody(ResponseModel):
    """A job in the graph of a batch."""

    model_config = ConfigDict(title="BatchNode")

    id: str = Field(examples=[ID])
    task: str = Field(examples=["resize"])
    state: State
    role: Role = Field(description="`member`, or the kind of callback.")


class EdgeBody(ResponseModel):
    """A job that waits for another one, or for the batch."""

    model_config = ConfigDict(title="BatchEdge")

    job: str = Field(description="The job that waits.", examples=[ID])
    needs: str = Field(description="The id of the job or of the batch that it waits for.")
    need: Need = Field(description="The end that it waits for; `end` is any.")
    state: EdgeState = Field(
        description="`open` while it waits, `met` after that, `broken` if the end was another one (a replay may mend"
        " it), `void` if the job was cancelled on request."
    )


class BatchGraphBody(ResponseModel):
    """The jobs of a batch, and which of them wait for which."""

    model_config = ConfigDict(title="BatchGraph")

    jobs: list[NodeBody] = Field(description="The members in their order, then the callbacks.")
    edges: list[EdgeBody]
    complete: bool = Field(description="False if the batch has more members than `limit`.")


def graph_body(batch: str, graph: BatchGraph) -> BatchGraphBody:
    """Return the body of a graph.

    Args:
        batch: The id of the batch.
        graph: Its members, callbacks and edges.
    """
    roles = {edge.job: ROLES[edge.need] for edge in graph.edges if edge.needs == batch}
    jobs = [
        NodeBody(id=job.id, task=job.task, state=job.state, role="member") for job in graph.members
    ]
    jobs += [
        NodeBody(id=job.id, task=job.task, state=job.state, role=roles[job.id])
        for job in graph.callbacks
    ]
    edges = [EdgeBody.model_validate(edge) for edge in graph.edges]
    return BatchGraphBody(jobs=jobs, edges=edges, complete=graph.complete)


class BatchCancelledBody(ResponseModel):
    """The effect of a cancel request."""

    model_config = ConfigDict(
        title="BatchCancelled", json_schema_extra={"examples": [{"cancelled": True}]}
    )

    cancelled: bool = Field(
        description="False if the batch had ended or was cancelled before. Otherwise workers cancel its members, and"
        " its state is `cancelled` when the last one has ended."
    )


class BatchRetriedBody(ResponseModel, of=ReplayCounts, shows=("replayed", "conflicts", "invalid")):
    """The effect of a retry."""

    model_config = ConfigDict(
        title="BatchRetried",
        json_schema_extra={"examples": [{"replayed": 3, "conflicts": 0, "invalid": 0}]},
    )
