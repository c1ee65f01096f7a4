"""Routes that list, pause and resume queues."""

from typing import Annotated, Any

from fastapi import Path

from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.operators import Operator
from jobrunner.fastapi.api.problems import Problems
from jobrunner.fastapi.api.queue_schemas import PausedBody, QueuesBody
from jobrunner.fastapi.api.schemas import Name
from jobrunner.queue.queue import JobQueue

QueueName = Annotated[
    Name,
    Path(description="The name of the queue.", examples=["mail"]),
    Problems(problems.UNKNOWN_QUEUE),
]


def add_queues(reading: Operations, acting: Operations, provided: Any, operating: Any) -> None:
    """Add the routes of queues to the jobs router."""

    @reading.route("GET", "/queues", summary="List queues", answers="The queues.")
    async def list_queues(queue: JobQueue = provided) -> QueuesBody:
        """List the queues of all workers, with their slots, pauses and counts of jobs."""
        return QueuesBody.model_validate(await queue.queues.list())

    @acting.route(
        "POST", "/queues/{name}/pause", summary="Pause a queue", answers="The queue is paused."
    )
    async def pause_queue(name: QueueName, operator: Operator = operating) -> PausedBody:
        """Stop starting jobs of a queue, in all processes, until it is resumed.

        Running jobs continue.
        """
        async with operator.act("queues.pause", target=name):
            await operator.queue.queues.pause(name)
        return PausedBody(name=name, paused=True)

    @acting.route(
        "POST",
        "/queues/{name}/resume",
        summary="Resume a queue",
        answers="The queue is not paused.",
    )
    async def resume_queue(name: QueueName, operator: Operator = operating) -> PausedBody:
        """Start jobs of a paused queue again."""
        async with operator.act("queues.resume", target=name):
            await operator.queue.queues.resume(name)
        return PausedBody(name=name, paused=False)
