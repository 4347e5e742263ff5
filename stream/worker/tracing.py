"""Traces of events, from their arrival at the broker to their readable features.

A worker that makes none has another pipeline and pays nothing. One that does asks the sampler about
each event, whose producer's trace goes on where the record has its headers (W3C's `traceparent`, or
what `OTEL_PROPAGATORS` names), and keeps spans of those that are sampled. What is done for a whole
batch is a span in the trace of each of them. No span tells a profile or what it watched: where an
event is in the log is enough to find it, and erasure has nothing to do with traces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Final, cast

from opentelemetry.context import Context
from opentelemetry.propagate import extract, get_global_textmap
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_tracer,
    set_span_in_context,
    use_span,
)

from stream.domain.intent_rows import IntentRows
from stream.domain.prediction import Intents
from stream.worker.micro_batch import MicroBatch, StampedRecord
from stream.worker.pipeline import Pipeline

_FIELDS: Final = get_global_textmap().fields
"""Names of headers that carry a trace."""

_Headers = Sequence[tuple[str, bytes | None]]
_at_work: ContextVar[Sequence[Span]] = ContextVar("_at_work", default=())
"""Spans of the events that this task is publishing."""


class _Carried(Getter[_Headers]):
    """Reads a record's headers as OpenTelemetry's propagators ask for them."""

    def get(self, carrier: _Headers, key: str) -> list[str] | None:
        found = [text.decode("latin-1") for name, text in carrier if text and name.lower() == key]
        return found or None

    def keys(self, carrier: _Headers) -> list[str]:
        return [name for name, _ in carrier]


_carried = _Carried()


class _Traced(Pipeline):
    """The steps, each a span in the trace of every sampled event."""

    tracer: Tracer

    async def decode(self, records: Sequence[StampedRecord]) -> MicroBatch:
        begun = [(one, span) for one in records if (span := self._begun(one)).is_recording()]
        with self._step("decode", [span for _, span in begun]):
            batch = await super().decode(records)
        taken = {id(one.record) for one in batch.decoded} if begun else set()
        batch.spans = [span for record, span in begun if id(record) in taken]
        for record, span in begun:
            if id(record) not in taken:
                span.set_status(Status(StatusCode.ERROR, "dead letter"))
                span.end()
        return batch

    async def session(self, batch: MicroBatch) -> None:
        with self._step("state", batch.spans):
            await super().session(batch)

    async def infer(self, batch: MicroBatch) -> Intents | None:
        with self._step("model", batch.spans):
            return await super().infer(batch)

    async def publish(self, batch: MicroBatch, intents: Intents | None) -> IntentRows | None:
        with self._step("publish", batch.spans):
            token = _at_work.set(batch.spans)
            try:
                return await super().publish(batch, intents)
            finally:
                _at_work.reset(token)

    async def announce(self, batch: MicroBatch, rows: IntentRows | None) -> None:
        with self._step("announce", batch.spans):
            await super().announce(batch, rows)
        for span in batch.spans:
            span.end()

    async def write(self, rows: IntentRows) -> None:
        await super().write(rows)
        for span in _at_work.get():
            span.add_event("readable")

    def _begun(self, record: StampedRecord) -> Span:
        context = Context()
        # To look for a trace among headers costs ten times what the sampler takes.
        if record.headers and any(name.lower() in _FIELDS for name, _ in record.headers):
            context = extract(record.headers, context, _carried)
        return self.tracer.start_span(
            f"process {record.topic}",
            context,
            SpanKind.CONSUMER,
            {
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.destination.name": record.topic,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
            },
            start_time=round(record.timestamp * 1e9),
        )

    @contextmanager
    def _step(self, name: str, spans: Sequence[Span]) -> Iterator[None]:
        """A span of this name in each trace; what is logged meanwhile is of the first."""
        steps = [self.tracer.start_span(name, set_span_in_context(one)) for one in spans]
        try:
            with ExitStack() as current:
                for first in steps[:1]:
                    current.enter_context(
                        use_span(first, record_exception=False, set_status_on_exception=False)
                    )
                yield
        except BaseException as error:
            for one in (*steps, *spans):
                one.set_status(Status(StatusCode.ERROR, type(error).__name__))
            for one in spans:
                one.end()
            raise
        finally:
            for one in steps:
                one.end()


def traced(kind: type[Pipeline], tracer: Tracer | None = None) -> type[Pipeline]:
    """The pipeline `kind`, of which events are traced.

    Args:
        kind: does the work.
        tracer: makes the spans; default: that of the process.
    """
    own: dict[str, Any] = {"tracer": tracer or get_tracer(__name__)}
    return cast(type[Pipeline], type(f"Traced{kind.__name__}", (_Traced, kind), own))
