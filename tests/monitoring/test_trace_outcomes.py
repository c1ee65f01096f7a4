"""Spans of attempts that fail, are stopped, or cannot be traced."""

import asyncio
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import StatusCode
from tenacity import wait_none

from jobrunner import JobCancelled, JobDead, JobRunner, Snooze
from jobrunner.opentelemetry import instrument
from tests.support.engine import Gate
from tests.support.traces import Traces, context_of, ended, is_child, of


async def test_each_attempt_is_a_span_with_its_number_its_error_and_its_outcome(
    traced: JobRunner, traces: Traces
) -> None:
    @traced.task(max_attempts=2, wait=wait_none())
    async def work() -> None:
        raise ValueError("no luck")

    async with traced.running():
        job = await work.enqueue()
        with pytest.raises(JobDead):
            await job.result(timeout=30)
        first, last = await ended(traces, "process work", 2)
        letter = await traced.dead_letters.get(job.id)
    sent = traces.one("send work")
    assert is_child(first, sent)
    assert is_child(last, sent)
    assert [of(one, "jobrunner.attempt") for one in (first, last)] == [1, 2]
    assert [of(one, "jobrunner.outcome") for one in (first, last)] == ["failed", "failed"]
    assert [of(one, "jobrunner.dead_reason") for one in (first, last)] == [None, "exhausted"]
    assert of(first, "error.type") == "ValueError"
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == "ValueError: no luck"
    (event,) = first.events
    assert (event.attributes or {})["exception.message"] == "no luck"
    assert letter.trace_id == f"{context_of(sent).trace_id:032x}"


@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, "half of a pair: \ud83d", RuntimeError("broken")]
)
async def test_error_whose_text_no_exporter_would_send_is_an_error_with_the_stored_text(
    traced: JobRunner, traces: Traces, text: str | Exception
) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            if isinstance(text, Exception):
                raise text
            return text

    @traced.task(max_attempts=1)
    async def work() -> None:
        raise Odd

    async with traced.running():
        job = await work.enqueue()
        with pytest.raises(JobDead):
            await job.result(timeout=30)
        (span,) = await ended(traces, "process work")
        letter = await traced.dead_letters.get(job.id)
    assert span.status.status_code is StatusCode.ERROR
    (event,) = span.events
    assert event.attributes == {
        "exception.type": letter.error_type,
        "exception.message": letter.error,
        "exception.stacktrace": letter.traceback,
    }
    assert sum(len(str(value).encode()) for value in event.attributes.values()) < 100_000


async def test_snoozed_and_cancelled_attempts_are_no_errors(
    traced: JobRunner, traces: Traces
) -> None:
    gate = Gate()

    @traced.task
    async def later() -> None:
        raise Snooze(3600)

    @traced.task
    async def stopped() -> None:
        await gate.enter()

    async with traced.running():
        await later.enqueue()
        job = await stopped.enqueue()
        await gate.arrival()
        await traced.cancel(job.id)
        with pytest.raises(JobCancelled):
            await job.result(timeout=30)
        (snoozed,) = await ended(traces, "process later")
        (cancelled,) = await ended(traces, "process stopped")
    assert [of(one, "jobrunner.outcome") for one in (snoozed, cancelled)] == [
        "snoozed",
        "cancelled",
    ]
    assert {one.status.status_code for one in (snoozed, cancelled)} == {StatusCode.UNSET}


async def test_time_out_is_an_error(traced: JobRunner, traces: Traces) -> None:
    @traced.task(max_attempts=1, timeout=0.05)
    async def work() -> None:
        await asyncio.Event().wait()

    async with traced.running():
        job = await work.enqueue()
        with pytest.raises(JobDead):
            await job.result(timeout=30)
        (attempt,) = await ended(traces, "process work")
    assert (of(attempt, "jobrunner.outcome"), of(attempt, "error.type")) == (
        "timed_out",
        "TimedOut",
    )


async def test_failed_enqueue_is_an_error(traced: JobRunner, traces: Traces) -> None:
    @traced.task
    async def work() -> None: ...

    async with traced.running() as jobs:
        queue = jobs._opened("a test")
    with pytest.raises(Exception, match="closed"):
        await queue.enqueue(work)
    assert traces.one("send work").status.status_code is StatusCode.ERROR


class Faulty(Sampler):
    """Fails for attempts."""

    def should_sample(
        self, parent_context: Any, trace_id: int, name: str, *_: Any, **__: Any
    ) -> Any:
        if name.startswith("process"):
            raise RuntimeError("no sampling today")
        return SamplingResult(Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "faulty"


async def test_job_runs_although_its_attempts_cannot_be_traced(
    jobs: JobRunner, caplog: pytest.LogCaptureFixture
) -> None:
    instrument(jobs, tracer_provider=TracerProvider(sampler=Faulty()))

    @jobs.task
    async def work() -> int:
        return 7

    async with jobs.running():
        assert await (await work.enqueue()).result(timeout=30) == 7
    assert "attempts cannot be traced" in caplog.text


async def test_job_is_settled_although_its_error_cannot_be_shown(
    traced: JobRunner, traces: Traces, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @traced.task(max_attempts=1)
    async def work() -> None:
        raise Odd

    async with traced.running():
        job = await work.enqueue()
        with pytest.raises(JobDead):
            await job.result(timeout=30)
        (attempt,) = await ended(traces, "process work")
    assert of(attempt, "jobrunner.outcome") == "failed"
