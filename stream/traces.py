"""Traces by OpenTelemetry, where its variables ask for them and the extra `traces` is installed.

OpenTelemetry's own variables say all of it, and its SDK reads them: `OTEL_TRACES_EXPORTER` turns
traces on (`otlp`, `console`, or what another package brings), `OTEL_EXPORTER_OTLP_*` says where to,
`OTEL_TRACES_SAMPLER` how many, `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` of whom.
"""

from __future__ import annotations

import asyncio
import logging
import os
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from stream.exceptions import InvalidSettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.sdk.trace import TracerProvider

_log = logging.getLogger(__name__)

_OTLP: Final = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_FLUSH_MS: Final = 2000
_W3C: Final = ("traceparent", "tracestate")

_provider: TracerProvider | None = None


def start(service: str) -> bool:
    """Make traces from now on, if that is asked for; returns whether.

    Args:
        service: the service's name, where OpenTelemetry's variables say none.

    Raises:
        InvalidSettingsError: when a variable names an exporter or protocol that there isn't.
    """
    global _provider
    names = _variable("OTEL_TRACES_EXPORTER", "none")
    if names == "none":
        return False
    try:
        from opentelemetry import trace

        _provider = _made(names.split(","), service)
        trace.set_tracer_provider(_provider)
    except ModuleNotFoundError as error:
        # They may be set for all of a cluster, whoever has use for them.
        _log.warning(
            "OTEL_TRACES_EXPORTER is set, but without %s there are no traces; "
            "`pip install 'intentstream[traces]'` brings it",
            error.name,
        )
    return _provider is not None


async def flush() -> None:
    """Export what has ended, in two seconds at most."""
    if _provider:
        await asyncio.to_thread(_provider.force_flush, _FLUSH_MS)


def current_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of what this task is at, in hexadecimal; empty where untraced."""
    if _provider is None:
        return {}
    from opentelemetry import trace

    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


def trace_headers(headers: Iterable[tuple[str, bytes | None]] | None) -> list[tuple[str, bytes]]:
    """Of a record's headers those by which its trace goes on in what is made of it (W3C)."""
    return [(name, text) for name, text in headers or () if text and name.lower() in _W3C]


def _made(names: list[str], service: str) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    given = Resource.create()
    is_named = not str(given.attributes["service.name"]).startswith("unknown_service")
    own = Resource({} if is_named else {"service.name": service})
    made = TracerProvider(resource=given.merge(own))
    for name in names:
        protocol = _variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        protocol = _variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol)
        kind = _OTLP.get(protocol, protocol) if name.strip() == "otlp" else name.strip()
        found = entry_points(group="opentelemetry_traces_exporter", name=kind)
        if not found:
            raise InvalidSettingsError(
                f"OTEL_TRACES_EXPORTER or OTEL_EXPORTER_OTLP_PROTOCOL asks for {kind!r}, which no "
                "installed package brings; otlp (by grpc or http/protobuf), console and none are "
                "there with the extra `traces`"
            )
        made.add_span_processor(BatchSpanProcessor(next(iter(found)).load()()))
    return made


def _variable(name: str, default: str) -> str:
    """One of OpenTelemetry's variables, which are no settings of ours; empty counts as unset."""
    return os.environ.get(name, "").strip() or default
