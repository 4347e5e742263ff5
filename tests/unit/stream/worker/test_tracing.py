"""What a traced pipeline tells of the events that it takes through."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler
from opentelemetry.trace import StatusCode

from stream import traces
from stream.domain.catalogue import Catalogue
from stream.exceptions import InferenceRefusedError
from stream.logs import JsonLines
from stream.settings import Settings
from stream.worker.pipeline import Pipeline
from stream.worker.tracing import traced
from tests.unit.stream.fakes import NOW_S, Edges, Message, message

STEPS = ["decode", "state", "model", "publish", "announce"]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def carried(flags: str = "01") -> list[tuple[str, bytes]]:
    return [("traceparent", f"00-{TRACE}-{SPAN}-{flags}".encode())]


@pytest.fixture
def seen() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def process(
    seen: InMemorySpanExporter,
    *messages: Message,
    edges: Edges | None = None,
    sampler: Sampler | None = None,
    kind: type[Pipeline] = Pipeline,
) -> None:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(seen))
    edges = edges or Edges()
    pipeline = traced(kind, provider.get_tracer("test"))(
        Settings(),
        Catalogue(title_ids={1: "one"}),
        states=edges,
        outbox=edges,
        inference=edges,
        store=edges,
        gives_up=lambda: False,
        clock=lambda: NOW_S + 1,
    )

    async def whole() -> None:
        batch = await pipeline.decode(messages)
        await pipeline.session(batch)
        rows = await pipeline.publish(batch, await pipeline.infer(batch))
        await pipeline.announce(batch, rows)

    asyncio.run(whole())


def of_events(seen: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in seen.get_finished_spans() if span.name.startswith("process ")]


def below(seen: InMemorySpanExporter, event: ReadableSpan) -> list[str]:
    """Names of what is right below an event's span, in the order in which they began."""
    found = [
        span
        for span in seen.get_finished_spans()
        if span.parent and span.parent.span_id == event.context.span_id
    ]
    assert all(span.context.trace_id == event.context.trace_id for span in found)
    return [span.name for span in sorted(found, key=lambda span: span.start_time or 0)]


def test_an_event_is_one_trace_from_the_broker_through_each_step(
    seen: InMemorySpanExporter,
) -> None:
    process(seen, message({}, offset=7, partition=3))
    (event,) = of_events(seen)
    assert event.name == "process browse-events"
    assert event.start_time == round(NOW_S * 1e9)
    assert below(seen, event) == STEPS
    assert [one.name for one in event.events] == ["readable"]
    assert event.attributes is not None
    assert event.attributes["messaging.kafka.offset"] == 7
    assert event.attributes["messaging.destination.partition.id"] == "3"


def test_the_producer_s_trace_goes_on(seen: InMemorySpanExporter) -> None:
    process(seen, message({}, headers=carried()))
    (event,) = of_events(seen)
    assert event.parent is not None
    assert f"{event.context.trace_id:032x}" == TRACE
    assert f"{event.parent.span_id:016x}" == SPAN


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", b"nonsense \xff")],
        [("traceparent", b"")],
        [("other", b"x"), ("empty", None)],
    ],
)
def test_headers_that_say_no_trace_begin_one(seen: InMemorySpanExporter, headers: Any) -> None:
    process(seen, message({}, headers=headers))
    assert [event.parent for event in of_events(seen)] == [None]


def test_of_a_batch_those_are_traced_whose_producer_s_trace_is_sampled(
    seen: InMemorySpanExporter,
) -> None:
    sampled, other = carried(), carried("00")
    records = [
        message({"event_id": f"e{number}"}, headers=headers, offset=number)
        for number, headers in enumerate([None, sampled, other, sampled])
    ]
    process(seen, *records, sampler=ParentBased(ALWAYS_OFF))
    events = of_events(seen)
    assert [dict(one.attributes or {})["messaging.kafka.offset"] for one in events] == [1, 3]
    assert [below(seen, one) for one in events] == [STEPS, STEPS]


def test_no_span_tells_whose_event_it_is_or_what_it_was(seen: InMemorySpanExporter) -> None:
    process(seen, message({"profile_id": "somebody", "title_id": "something"}))
    told = "".join(span.to_json() for span in seen.get_finished_spans())
    assert "somebody" not in told
    assert "something" not in told


def test_a_dead_letter_s_trace_ends_with_its_decoding(seen: InMemorySpanExporter) -> None:
    process(seen, message({}, offset=1), message({"event_type": "nonsense"}, offset=2))
    good, bad = sorted(of_events(seen), key=lambda one: len(below(seen, one)), reverse=True)
    assert below(seen, bad) == ["decode"]
    assert (bad.status.status_code, bad.status.description) == (StatusCode.ERROR, "dead letter")
    assert good.status.status_code is StatusCode.UNSET


def test_a_batch_that_is_given_up_says_so_in_its_traces(seen: InMemorySpanExporter) -> None:
    edges = Edges(failures={"infer": [InferenceRefusedError("no")]})
    with pytest.raises(InferenceRefusedError):
        process(seen, message({}), edges=edges)
    (event,) = of_events(seen)
    assert event.status.description == "InferenceRefusedError"
    assert below(seen, event) == STEPS[:3]


def test_the_steps_are_those_of_the_pipeline_that_is_traced(seen: InMemorySpanExporter) -> None:
    done: list[str] = []

    class Own(Pipeline):
        async def decode(self, records: Sequence[Any]) -> Any:
            done.append("decode")
            return await super().decode(records)

    process(seen, message({}), kind=Own)
    assert done == ["decode"]


def test_what_is_logged_at_work_on_an_event_has_the_ids_of_its_trace(
    seen: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traces, "_provider", TracerProvider(shutdown_on_exit=False))
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JsonLines().format(record))

    class Telling(Pipeline):
        async def join(self, batch: Any) -> None:
            logging.getLogger("stream.test").warning("at work")
            await super().join(batch)

    handler = Kept()
    logging.getLogger("stream.test").addHandler(handler)
    try:
        process(seen, message({}, headers=carried()), kind=Telling)
        logging.getLogger("stream.test").warning("idle")
    finally:
        logging.getLogger("stream.test").removeHandler(handler)
    at_work, idle = map(json.loads, lines)
    (state,) = (span for span in seen.get_finished_spans() if span.name == "state")
    assert (at_work["trace_id"], at_work["span_id"]) == (TRACE, f"{state.context.span_id:016x}")
    assert "trace_id" not in idle
