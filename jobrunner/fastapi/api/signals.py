"""The route that sends a signal to a job."""

from typing import Annotated, Any

from fastapi import Body, Path

from jobrunner.fastapi.api import problems
from jobrunner.fastapi.api.job_schemas import SignalledBody
from jobrunner.fastapi.api.jobs import ONE, JobId
from jobrunner.fastapi.api.operations import Operations
from jobrunner.fastapi.api.operators import Operator
from jobrunner.fastapi.api.problems import BODY, Problems

SignalName = Annotated[
    str,
    Path(description="The name of the signal.", examples=["approved"]),
    Problems(problems.INVALID_OPTIONS),
]
Value = Annotated[
    Any,
    Body(
        description="The value of the signal; null without a body.",
        examples=[{"by": "ann", "ok": True}],
    ),
    Problems(*BODY),
]


def add_signals(signalling: Operations, operating: Any) -> None:
    """Add the route that sends a signal to a job."""

    @signalling.route(
        "POST",
        f"{ONE}/signals/{{name}}",
        problems.FINISHED,
        summary="Send a signal to a job",
        answers="Whether the job keeps the signal.",
    )
    async def signal_job(
        id: JobId, name: SignalName, value: Value = None, operator: Operator = operating
    ) -> SignalledBody:
        """Send a signal to a job, with any JSON value as the body.

        A job that waits for it goes on at once; another one keeps it. The first signal of a name counts, and none that
        comes after the wait has timed out.
        """
        async with operator.act("signal", target=str(id)) as act:
            is_kept = await operator.queue.signal(str(id), name, value)
            act.count = 1 if is_kept else 0
        return SignalledBody(kept=is_kept)
