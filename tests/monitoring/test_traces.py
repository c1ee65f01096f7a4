"""Spans of enqueues and attempts: their parents, their links and their traces."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from jobrunner import Bury, Injected, JobDead, JobQueue, JobRunner
from jobrunner.fastapi import Background, DurableBackgroundTasks
from jobrunner.opentelemetry import instrument
from tests.support.traces import Traces, context_of, ended, is_child, of, parent_of


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
