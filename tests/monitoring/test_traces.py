"""``jobrunner.opentelemetry`` with the SDK's exporter in memory."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from tenacity import wait_none

from jobrunner import (
    Bury,
    ConfigurationError,
    Injected,
    JobCancelled,
    JobContext,
    JobDead,
    JobQueue,
    JobRunner,
    Snooze,
)
from jobrunner.fastapi import Background, DurableBackgroundTasks
from jobrunner.opentelemetry import instrument
from tests.support.engine import Gate, soon
from tests.support.processes import CHECKOUT


class Traces(SpanProcessor):
    """An SDK with an exporter in memory, and a signal at each end of a span."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.provider.add_span_processor(self)
        self.one_ended = asyncio.Event()
        self.tracer = self.provider.get_tracer("test")

    def on_end(self, span: ReadableSpan) -> None:
        self.one_ended.set()

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the ended spans with a name, in the order of their ends."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def traced(jobs: JobRunner, traces: Traces) -> JobRunner:
    instrument(jobs, tracer_provider=traces.provider)
    return jobs


def context_of(span: ReadableSpan) -> SpanContext:
    own: SpanContext | None = span.context
    assert own is not None
    return own


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    own, other = context_of(span), context_of(parent)
    return parent_of(span) == other.span_id and own.trace_id == other.trace_id


def of(span: ReadableSpan, name: str) -> object:
    return (span.attributes or {}).get(name)


async def ended(traces: Traces, name: str, number: int = 1) -> Sequence[ReadableSpan]:
    """Return the spans with a name once there are so many: the last one ends after the result is known."""
    while len(traces.named(name)) < number:
        traces.one_ended.clear()
        await soon(traces.one_ended.wait())
    return traces.named(name)


async def test_attempt_is_the_child_of_the_enqueue_and_links_to_it(
    traced: JobRunner, traces: Traces
) -> None:
    inside: list[SpanContext] = []

    @traced.task
    def work() -> None:
        inside.append(trace.get_current_span().get_span_context())

    async with traced.running():
        with traces.tracer.start_as_current_span("caller") as caller:
            job = await work.enqueue()
        await job.result(timeout=30)
        (attempt,) = await ended(traces, "process work")
        read = await job.refresh()
    sent = traces.one("send work")
    assert parent_of(sent) == caller.get_span_context().span_id
    assert (sent.kind, attempt.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert is_child(attempt, sent)
    assert [link.context.span_id for link in attempt.links] == [context_of(sent).span_id]
    # Also in the thread of a `def` task.
    assert inside == [attempt.context]
    assert read.trace_id == f"{context_of(sent).trace_id:032x}"
    assert dict(sent.attributes or {}) == {
        "messaging.system": "jobrunner",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "default",
        "messaging.message.id": job.id,
        "jobrunner.task": "work",
    }
    assert dict(attempt.attributes or {}) == {
        "messaging.system": "jobrunner",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "default",
        "messaging.message.id": job.id,
        "jobrunner.task": "work",
        "jobrunner.attempt": 1,
        "jobrunner.outcome": "succeeded",
    }
    assert attempt.status.status_code is StatusCode.UNSET


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


async def test_dead_letter_keeps_the_context_through_its_replays(
    traced: JobRunner, traces: Traces
) -> None:
    @traced.task
    async def work(number: int) -> None:
        if number == 1:
            raise Bury("no luck")

    async with traced.running():
        job = await work.enqueue(1)
        with pytest.raises(JobDead):
            await job.result(timeout=30)
        again = await traced.dead_letters.replay(job.id)
        with pytest.raises(JobDead):
            await again.result(timeout=30)
        edited = await traced.dead_letters.replay(job.id, args={"number": 2})
        await edited.result(timeout=30)
        attempts = await ended(traces, "process work", 3)
    sent = traces.one("send work")
    assert all(is_child(attempt, sent) for attempt in attempts)


async def test_spans_of_a_chain_are_in_one_trace_with_its_id(
    traced: JobRunner, traces: Traces
) -> None:
    @traced.task
    async def first() -> None: ...

    @traced.task(queue="default")
    async def second() -> None: ...

    async with traced.running():
        one, two = await traced.enqueue_chain([first.call(), second.call()])
        await two.result(timeout=30)
        (before,) = await ended(traces, "process first")
        (after,) = await ended(traces, "process second")
    sent = traces.one("send")
    assert of(sent, "messaging.batch.message_count") == 2
    assert is_child(before, sent)
    assert is_child(after, sent)
    ids = {of(span, "messaging.message.conversation_id") for span in (sent, before, after)}
    assert ids == {one.id}


async def test_job_of_a_task_is_the_child_of_the_attempt(traced: JobRunner, traces: Traces) -> None:
    @traced.task
    async def inner() -> None: ...

    @traced.task
    async def outer() -> str:
        return (await inner.enqueue()).id

    async with traced.running():
        job = await outer.enqueue()
        await (await traced.get(await job.result(timeout=30))).result(timeout=30)
        (attempt,) = await ended(traces, "process inner")
    sent = traces.one("send inner")
    assert is_child(sent, traces.one("process outer"))
    assert is_child(attempt, sent)


async def test_task_of_a_background_added_in_an_attempt_is_in_its_trace(
    traced: JobRunner, traces: Traces
) -> None:
    @traced.task
    async def inner() -> None: ...

    @traced.task
    async def outer(background: Background = Injected) -> None:
        background.add_task(inner)

    async with traced.running():
        job = await outer.enqueue()
        await job.result(timeout=30)
        (attempt,) = await ended(traces, "process inner")
    created = traces.one("create inner")
    assert is_child(created, traces.one("process outer"))
    assert is_child(attempt, created)
    assert of(created, "messaging.message.id") == of(attempt, "messaging.message.id")


async def test_process_that_makes_no_spans_passes_the_trace_of_an_attempt_on(
    tmp_db: Path, traces: Traces
) -> None:
    """One process enqueues in a trace, another without an SDK runs the job and enqueues more."""
    sender, worker = JobRunner(tmp_db), JobRunner(tmp_db)
    instrument(sender, tracer_provider=traces.provider)

    @sender.task(name="outer")
    async def send() -> list[str]:
        raise AssertionError("it runs in the other process")

    @worker.task
    async def inner() -> None: ...

    @worker.task
    async def outer(background: Background = Injected) -> list[str]:
        background.add_task(inner)
        alone = await inner.enqueue()
        several = await worker.enqueue_many([inner.call(), inner.call()])
        in_a_thread = await asyncio.to_thread(worker.sync.enqueue, inner)
        return [job.id for job in (alone, *several, in_a_thread)]

    async with sender.running(work=False):
        with traces.tracer.start_as_current_span("request") as request:
            id = (await send.enqueue()).id
    trace_id = f"{request.get_span_context().trace_id:032x}"
    async with worker.running():
        enqueued = await (await worker.get(id, outer)).result(timeout=30)
        assert {(await worker.get(one)).trace_id for one in enqueued} == {trace_id}
        in_all = (await worker.list(task=inner)).items
        # With that of the background.
        assert [job.trace_id for job in in_all] == [trace_id] * (len(enqueued) + 1)
        # What no attempt enqueues is in no trace.
        assert (await (await inner.enqueue()).refresh()).trace_id is None


async def test_run_of_a_schedule_is_in_the_trace_of_the_request(
    traced: JobRunner, traces: Traces
) -> None:
    @traced.task
    async def work() -> None: ...

    async with traced.running():
        await traced.schedules.upsert("s", work, every=3600)
        with traces.tracer.start_as_current_span("request"):
            job = await traced.schedules.run_now("s")
        await job.result(timeout=30)
        (attempt,) = await ended(traces, "process work")
    sent = traces.one("send work")
    assert is_child(sent, traces.one("request"))
    assert is_child(attempt, sent)


async def test_enqueue_with_a_taken_key_names_the_job_that_has_it(
    traced: JobRunner, traces: Traces
) -> None:
    @traced.task
    async def work() -> None: ...

    async with traced.running(work=False):
        job = await work.options(key="k").enqueue()
        await work.options(key="k").enqueue()
    assert {of(one, "messaging.message.id") for one in traces.named("send work")} == {job.id}


async def test_job_without_a_trace_begins_one(
    traced: JobRunner, traces: Traces, tmp_db: Path
) -> None:
    """As the job of a schedule, or of a process that is not instrumented."""
    plain = JobRunner(tmp_db)

    @plain.task(name="work")
    async def plain_work() -> None: ...

    @traced.task
    async def work() -> None: ...

    async with plain.running(work=False):
        await plain_work.enqueue()
    with traces.tracer.start_as_current_span("opener"):
        async with traced.running(store=tmp_db):
            (attempt,) = await ended(traces, "process work")
    assert (attempt.parent, attempt.links) == (None, ())


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


def test_second_instrument_is_refused(traced: JobRunner) -> None:
    with pytest.raises(ConfigurationError, match="already"):
        instrument(traced)


def test_request_is_the_parent_of_the_enqueue_with_fastapis_instrumentation(
    tmp_db: Path, traces: Traces
) -> None:
    jobs = JobRunner(tmp_db)
    instrument(jobs, tracer_provider=traces.provider)
    app = FastAPI(lifespan=jobs.lifespan)

    @jobs.task
    async def work() -> None: ...

    @app.post("/plain")
    async def plain(queue: Annotated[JobQueue, Depends(jobs.queue)]) -> str:
        return (await queue.enqueue(work)).id

    @app.post("/thread")
    def thread() -> str:
        return jobs.sync.enqueue(work).id

    @app.post("/background")
    async def background(
        tasks: Annotated[DurableBackgroundTasks, Depends(jobs.background)],
    ) -> None:
        tasks.add_task(work)

    FastAPIInstrumentor.instrument_app(app, tracer_provider=traces.provider)
    try:
        with TestClient(app) as client:
            for path, sent in (("/plain", "send"), ("/thread", "send"), ("/background", "create")):
                traces.exporter.clear()
                incoming = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                client.post(path, headers={"traceparent": incoming})
                assert client.portal is not None
                (attempt,) = client.portal.call(ended, traces, "process work")
                span = traces.one(f"{sent} work")
                assert is_child(span, traces.one(f"POST {path}")), path
                assert is_child(attempt, span), path
                assert f"{context_of(attempt).trace_id:032x}" == incoming.split("-")[1]
    finally:
        FastAPIInstrumentor.uninstrument_app(app)


# -- without the extra, and without an SDK ------------------------------------------------------------------

PROGRAM = """
import asyncio, sys
from jobrunner import JobRunner

jobs = JobRunner("case.db")

@jobs.task
async def work() -> None: ...

async def main():
    async with jobs.running():
        await (await work.enqueue()).result(timeout=30)

asyncio.run(main())
print([name for name in sys.modules if name.startswith(("opentelemetry", "prometheus_client"))])
"""

WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
sys.modules["opentelemetry.trace"] = None
try:
    import jobrunner.opentelemetry
except Exception as error:
    print(type(error).__name__, error)
"""


def run(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PYTHONPATH": str(CHECKOUT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


def test_runner_imports_neither_opentelemetry_nor_prometheus(tmp_path: Path) -> None:
    assert run(PROGRAM, tmp_path) == "[]\n"


def test_import_without_the_extra_names_the_line_to_write(tmp_path: Path) -> None:
    assert run(WITHOUT, tmp_path) == (
        "ConfigurationError traces need opentelemetry-api: write pip install"
        " 'fastapi-jobrunner[opentelemetry]'\n"
    )


async def test_instrumented_runner_without_an_sdk_runs_and_stores_no_context(
    jobs: JobRunner,
) -> None:
    instrument(jobs)

    @jobs.task
    async def work(job: JobContext) -> bool:
        return trace.get_current_span().get_span_context().is_valid

    async with jobs.running():
        job = await work.enqueue()
        assert await job.result(timeout=30) is False
        assert (await job.refresh()).trace_id is None


async def test_state_of_the_trace_is_carried_too(traced: JobRunner, traces: Traces) -> None:
    states: list[Any] = []

    @traced.task
    async def work() -> None:
        states.append(trace.get_current_span().get_span_context().trace_state.to_header())

    remote = SpanContext(
        1, 2, True, trace.TraceFlags(1), trace.TraceState.from_header(["vendor=a,other=b"])
    )
    async with traced.running():
        with trace.use_span(trace.NonRecordingSpan(remote)):
            job = await work.enqueue()
        await job.result(timeout=30)
    assert states == ["vendor=a,other=b"]


LATER = """
import asyncio
import time
from unittest.mock import patch
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from jobrunner import JobRunner
from jobrunner.opentelemetry import instrument

jobs = JobRunner("case.db")
instrument(jobs)

@jobs.task
async def work() -> None: ...

async def main():
    async with jobs.running():
        await (await work.enqueue()).result(timeout=30)
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        jobs._hooks.tracing._asked_at_s -= 1  # as a second later
        # After the wall clock was set back by an hour.
        real = time.time_ns
        with patch("time.time_ns", lambda: real() - 3600 * 10**9):
            await (await work.enqueue()).result(timeout=30)
    print(sorted(span.name for span in exporter.get_finished_spans()))

asyncio.run(main())
"""


def test_sdk_that_is_set_up_later_is_found(tmp_path: Path) -> None:
    """In a new process, since the global provider is set once for all."""
    assert run(LATER, tmp_path) == "['process work', 'send work']\n"
