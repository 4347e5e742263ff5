"""The bridge on Avro of a real schema registry, which is away at first."""

from __future__ import annotations

import json
import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.bridges import bridged, dead_letters, ids_of, prepared, send, until_bridged
from tests.registries import apicurio, free_port
from tests.unit.intentstream.bridge.test_values import avro
from tests.workers import http, until, worker

if TYPE_CHECKING:
    from pathlib import Path

    from stream.settings import Settings

FIELDS: list[dict[str, Any]] = [
    *({"name": name, "type": "string"} for name in ("event_id", "profile_id", "event_type")),
    {"name": "occurred_at_ms", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    *({"name": name, "type": "string"} for name in ("title_id", "playback_id")),
]
ADDED: dict[str, Any] = {"name": "device", "type": ["null", "string"], "default": None}


def event(number: int, **fields: str) -> dict[str, Any]:
    told = {"event_type": "play_start", "title_id": "film", "playback_id": f"p{number}"}
    return {
        **told,
        "event_id": f"e{number}",
        "profile_id": "me",
        "occurred_at_ms": 1_714_849_511_123 + number,
        **fields,
    }


@pytest.mark.usefixtures("kafka")
def test_avro_goes_over_once_its_registry_is_there_also_when_its_schema_has_grown(
    isolated: Settings, tmp_path: Path
) -> None:
    with apicurio(tmp_path, free_port()) as (url, process):
        registry: Any = SimpleNamespace(url=url)
        old = avro(registry, FIELDS, event(1))
        new = avro(registry, [*FIELDS, ADDED], event(2, device="tv"))
        unknown = b"\0\0\0\x27\x0f" + old[5:]
        settings = prepared(isolated, bridge_format="avro", schema_registry_url=url)
        send(settings, [(b"me", value) for value in (old, unknown, new, old)])
        process.send_signal(signal.SIGSTOP)
        with worker(settings, tmp_path / "bridge.log", "intentstream", "bridge"):
            until(lambda: http(settings, "/ready")[0] == 503, "a bridge that waits")
            assert http(settings, "/live")[0] == 200
            assert bridged(settings) == []
            process.send_signal(signal.SIGCONT)
            until_bridged(settings)
    found = bridged(settings)
    assert ids_of(found, "me") == ["e1", "e2"]
    devices = {
        one["event_id"]: one.get("device") for one in map(json.loads, (r.value for r in found))
    }
    assert devices == {"e1": None, "e2": "tv"}
    (letter,) = dead_letters(settings)
    assert letter.value == unknown
    assert dict(letter.headers)["intent.reason"] == b"unreadable"
