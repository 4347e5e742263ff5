"""Traces are asked for by OpenTelemetry's variables alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stream.traces import trace_headers

PROGRAM = """\
import sys
from stream import traces
started = traces.start("intentstream-test")
named = traces._provider and traces._provider.resource.attributes["service.name"]
print(started, named, "opentelemetry.sdk" in sys.modules)
if started:
    from opentelemetry.trace import get_tracer
    get_tracer("test").start_span("seen").end()
"""


def run(program: str = PROGRAM, **variables: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a process has one provider, for ever."""
    own = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", program], env=own | variables, capture_output=True, text=True
    )


@pytest.mark.parametrize("variables", [{}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_without_an_exporter_there_are_none_and_nothing_is_imported(
    variables: dict[str, str],
) -> None:
    assert run(**variables).stdout == "False None False\n"


def test_the_exporter_that_is_named_gets_them_when_the_process_ends() -> None:
    done = run(OTEL_TRACES_EXPORTER="console")
    assert done.stdout.startswith("True intentstream-test True\n")
    assert '"name": "seen"' in done.stdout


@pytest.mark.parametrize(
    "variables",
    [{"OTEL_SERVICE_NAME": "mine"}, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=mine"}],
)
def test_the_service_is_named_as_the_variables_say(variables: dict[str, str]) -> None:
    assert run(OTEL_TRACES_EXPORTER="console", **variables).stdout.startswith("True mine ")


def test_the_sampler_is_the_one_that_the_variables_name() -> None:
    done = run(OTEL_TRACES_EXPORTER="console", OTEL_TRACES_SAMPLER="always_off")
    assert done.stdout == "True intentstream-test True\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_TRACES_EXPORTER": "elsewhere"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "elsewhere"},
    ],
)
def test_an_exporter_that_there_is_not_is_told(variables: dict[str, str]) -> None:
    assert "InvalidSettingsError" in (told := run(**variables).stderr)
    assert "'elsewhere'" in told


def test_without_the_extra_the_log_says_what_to_install_and_all_goes_on() -> None:
    hidden = "import sys; sys.modules['opentelemetry'] = None\n" + PROGRAM
    done = run(hidden, OTEL_TRACES_EXPORTER="otlp")
    assert done.stdout.startswith("False None")
    assert "pip install 'intentstream[traces]'" in done.stderr


def test_of_headers_those_of_the_trace_go_on() -> None:
    own = [("traceparent", b"00-1-2-01"), ("TraceState", b"a=b")]
    assert trace_headers([("ce_id", b"1"), *own, ("tracestate", None)]) == own
    assert trace_headers(None) == []
