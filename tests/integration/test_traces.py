"""One event whole, as a collector of OpenTelemetry sees it: real Kafka, Triton and Redis."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from stream.kafka.admin import create_topics
from stream.settings import Settings
from tests.workers import online, send, title_open, until, worker

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Its address, and what it has got: the service's name with each span."""
    got: list[tuple[str, Any]] = []

    class Collect(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            for one in ExportTraceServiceRequest.FromString(body).resource_spans:
                (name,) = (
                    a.value.string_value for a in one.resource.attributes if a.key == "service.name"
                )
                got.extend((name, span) for scope in one.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collect)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()


def test_a_collector_sees_an_event_from_its_producer_s_trace_to_its_readable_features(
    isolated: Settings,
    kafka: str,
    redis: str,
    served_model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    update = {"model_version": served_model, "log_format": "json"}
    settings = isolated.model_copy(update=update)
    asyncio.run(create_topics(settings))
    log = tmp_path / "worker.log"
    with collector() as (address, got):
        for name, value in {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": address,
            "OTEL_TRACES_SAMPLER": "parentbased_always_off",
            "OTEL_SERVICE_NAME": "worker-of-the-test",
        }.items():
            monkeypatch.setenv(name, value)
        with worker(settings, log, wait=True):
            send(settings, [title_open("untraced")])
            event = title_open("traced")
            send(settings, [event], {"traceparent": f"00-{TRACE}-{SPAN}-01".encode()})
            until(lambda: online(settings, "traced") == event["event_id"], "the features")
            until(lambda: online(settings, "untraced") is not None, "the other's features")
        # What has ended is exported when the worker stops, at the latest.
    assert {service for service, _ in got} == {"worker-of-the-test"}
    spans = [span for _, span in got]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    whole, *steps = sorted(spans, key=lambda span: span.start_time_unix_nano)
    assert (whole.name, whole.parent_span_id.hex()) == (
        f"process {settings.topic('browse-events')}",
        SPAN,
    )
    assert [step.name for step in steps] == ["decode", "state", "model", "publish", "announce"]
    assert {step.parent_span_id for step in steps} == {whole.span_id}
    (readable,) = whole.events
    assert readable.name == "readable"
    publish = steps[3]
    assert publish.start_time_unix_nano <= readable.time_unix_nano <= publish.end_time_unix_nano
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, lines))
