"""An SDK with an exporter in memory, and what tests ask of its spans."""

import asyncio
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from tests.support.engine import soon


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
        """Signal the end of a span."""
        self.one_ended.set()

    def named(self, name: str) -> list[ReadableSpan]:
        """Return the ended spans with a name, in the order of their ends."""
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the only ended span with a name."""
        (span,) = self.named(name)
        return span


def context_of(span: ReadableSpan) -> SpanContext:
    """Return the context of a span, which must have one."""
    own: SpanContext | None = span.context
    assert own is not None
    return own


def parent_of(span: ReadableSpan) -> int | None:
    """Return the id of the parent of a span, if it has one."""
    return None if span.parent is None else span.parent.span_id


def is_child(span: ReadableSpan, parent: ReadableSpan) -> bool:
    """Return whether a span is the child of another, in the same trace."""
    own, other = context_of(span), context_of(parent)
    return parent_of(span) == other.span_id and own.trace_id == other.trace_id


def of(span: ReadableSpan, name: str) -> object:
    """Return an attribute of a span."""
    return (span.attributes or {}).get(name)


async def ended(traces: Traces, name: str, number: int = 1) -> Sequence[ReadableSpan]:
    """Return the spans with a name once there are so many: the last one ends after the result is known."""
    while len(traces.named(name)) < number:
        traces.one_ended.clear()
        await soon(traces.one_ended.wait())
    return traces.named(name)
