"""Traces jobs with OpenTelemetry; needs the extra ``opentelemetry``.

The span of an enqueue is the parent of the spans of the job's attempts, and they link to it.  Its context is stored in
the row of the job, in the form of the W3C, so that it reaches another process and lasts as long as the job.
"""

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from jobrunner.core.clock import now_s
from jobrunner.core.errors import ConfigurationError
from jobrunner.core.model import Claimed, Dead, Enqueue, Enqueued, Outcome, RetryAt
from jobrunner.core.version import __version__
from jobrunner.worker.events import Hooks

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as missing:
    raise ConfigurationError(
        "traces need opentelemetry-api: write pip install 'fastapi-jobrunner[opentelemetry]'"
    ) from missing

__all__ = ["instrument"]

ASK_S: Final = 1.0
"""The time between two questions whether there is an SDK."""

_PARENT: Final = "traceparent"
_STATE: Final = "tracestate"
_Attributes = Mapping[str, str | int]


class _Runner(Protocol):
    """A ``JobRunner``, as this module uses it."""

    _hooks: Hooks


def instrument(jobs: _Runner, *, tracer_provider: TracerProvider | None = None) -> None:
    """Trace the jobs of a runner: each enqueue and each attempt is a span.

    ::

        jobs = JobRunner("sqlite:///shop.db")
        instrument(jobs)

    Call it before the runner is opened. Without an SDK there are no spans; one that is set up later is found within a
    second.

    Args:
        jobs: The ``JobRunner``.
        tracer_provider: Makes the spans. Default: the global one.

    Raises:
        ConfigurationError: The runner is instrumented already.
    """
    hooks = jobs._hooks  # noqa: SLF001 - this module is a part of the runner
    if hooks.tracing is not None:
        raise ConfigurationError(
            "this runner is instrumented already: write instrument(jobs) once, where it is made"
        )
    hooks.tracing = _Tracing(tracer_provider)


class _Tracing:
    """Implements ``Tracing``."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._provider = provider
        self._active = False
        """True once there is an SDK."""
        self._asked_at_s = -math.inf
        """The time at which the provider was asked for last; an application may set it at any time."""
        self._tracer = trace.get_tracer("jobrunner", __version__, provider)
        self._propagator = TraceContextTextMapPropagator()

    def is_active(self) -> bool:
        # Asked for each job. An enqueue takes 27 µs: spans that do nothing would add 10 µs, and this question 2 µs.
        if not self._active and (now := now_s()) >= self._asked_at_s + ASK_S:
            self._asked_at_s = now
            provider = self._provider or trace.get_tracer_provider()
            self._active = not isinstance(
                provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
            )
        return self._active

    async def enqueue(
        self,
        jobs: Sequence[Enqueue],
        store: Callable[[Sequence[Enqueue]], Awaitable[Sequence[Enqueued]]],
    ) -> Sequence[Enqueued]:
        # Those with a context have had their span, see `prepare`.
        new = [job for job in jobs if job.trace is None]
        if not new:
            return await store(jobs)
        with self._tracer.start_as_current_span(
            _name("send", {job.task for job in new}),
            kind=SpanKind.PRODUCER,
            attributes=_sent(new, "send"),
        ) as span:
            stored = await store(_carrying(self._injected(), jobs))
            if len(stored) == 1:
                # Another one than the new id, if an unfinished job has the key.
                span.set_attribute("messaging.message.id", stored[0].id)
            return stored

    def prepare(self, job: Enqueue) -> Enqueue:
        with self._tracer.start_as_current_span(
            _name("create", {job.task}),
            kind=SpanKind.PRODUCER,
            attributes={**_sent([job], "create"), "messaging.message.id": job.id},
        ):
            return job._replace(trace=self._injected())

    @contextmanager
    def attempt(self, job: Claimed) -> Iterator[Callable[[Outcome], None]]:
        creation = self._extracted(job.trace)
        sent = trace.get_current_span(creation).get_span_context()
        with self._tracer.start_as_current_span(
            _name("process", {job.task}),
            # Of its own, without one: the task of the attempt has the context of the code that opened the runner.
            context=creation,
            kind=SpanKind.CONSUMER,
            attributes=_processed(job),
            links=[Link(sent)] if sent.is_valid else None,
        ) as span:
            yield lambda outcome: _end(span, outcome)

    def _injected(self) -> str | None:
        """Return the current context as text; None if there is no span."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        if _PARENT not in carrier:
            return None
        return "\n".join(carrier[name] for name in (_PARENT, _STATE) if name in carrier)

    def _extracted(self, stored: str | None) -> Context:
        parent, _, state = (stored or "").partition("\n")
        carrier = {name: value for name, value in ((_PARENT, parent), (_STATE, state)) if value}
        return self._propagator.extract(carrier, Context())


def _carrying(context: str | None, jobs: Sequence[Enqueue]) -> Sequence[Enqueue]:
    """Return jobs with a context; those that have one keep it."""
    return [job._replace(trace=context) if job.trace is None else job for job in jobs]


# -- names and attributes, by the semantic conventions for messaging -------------------------------------------


def _name(operation: str, tasks: set[str]) -> str:
    return f"{operation} {next(iter(tasks))}" if len(tasks) == 1 else operation


def _sent(jobs: Sequence[Enqueue], operation: str) -> _Attributes:
    attributes: dict[str, str | int] = {
        "messaging.system": "jobrunner",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }
    queues, tasks = {job.queue for job in jobs}, {job.task for job in jobs}
    if len(queues) == 1:
        attributes["messaging.destination.name"] = queues.pop()
    if len(tasks) == 1:
        attributes["jobrunner.task"] = tasks.pop()
    if len(jobs) > 1:
        attributes["messaging.batch.message_count"] = len(jobs)
    if jobs[0].chain is not None:
        attributes["messaging.message.conversation_id"] = jobs[0].chain
    return attributes


def _processed(job: Claimed) -> _Attributes:
    attributes: dict[str, str | int] = {
        "messaging.system": "jobrunner",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": job.queue,
        "messaging.message.id": job.id,
        "jobrunner.task": job.task,
        "jobrunner.attempt": job.attempt,
    }
    if job.chain is not None:
        attributes["messaging.message.conversation_id"] = job.chain
    return attributes


def _end(span: Span, outcome: Outcome) -> None:
    """Note the outcome of an attempt; a failure is an error of the span."""
    ended = outcome.ended
    span.set_attribute("jobrunner.outcome", ended.outcome)
    if isinstance(outcome, Dead):
        span.set_attribute("jobrunner.dead_reason", outcome.reason)
    if not isinstance(outcome, (RetryAt, Dead)):
        return
    if ended.error_type is not None:
        span.set_attribute("error.type", ended.error_type)
    if ended.raised is not None:
        # Not `record_exception`: it takes texts of any length, and with a lone surrogate no exporter can send them.
        texts = (ended.error_type, ended.error, ended.traceback)
        names = ("exception.type", "exception.message", "exception.stacktrace")
        span.add_event(
            "exception", {name: text or "" for name, text in zip(names, texts, strict=True)}
        )
    span.set_status(Status(StatusCode.ERROR, f"{ended.error_type}: {ended.error}"))
