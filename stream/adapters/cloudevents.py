"""CloudEvents in structured mode: the envelope of their JSON format, our event or another inside.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from pydantic import Field

from stream.adapters import intent
from stream.adapters.adapter import Adapted, Adapter, Options, Record, passed_over
from stream.adapters.values import at
from stream.domain.cloudevents import event_data
from stream.domain.event_types import BY_NAME
from stream.exceptions import BadRecordError, Reason

_STRUCTURED: Final = [("content-type", b"application/cloudevents+json")]


class CloudEventsOptions(Options):
    """How their data differs from our events; not at all by default."""

    types: dict[str, str] = Field(
        {},
        description="Their `type` -> our event type. With some given, events of others are "
        "passed over.",
    )
    fields: dict[str, str] = Field(
        {},
        description="Our field -> where it is in the envelope, as in `profile_id: subject` or "
        "`title_id: data.video.id`.",
    )


def read(record: Record, options: CloudEventsOptions) -> Adapted:
    """The event in an envelope."""
    if "specversion" not in record:
        raise BadRecordError(Reason.MISSING_FIELD, "specversion is missing: this is no CloudEvent")
    try:
        data = orjson.loads(event_data(orjson.dumps(dict(record)), _STRUCTURED))
    except (orjson.JSONEncodeError, orjson.JSONDecodeError):
        raise BadRecordError(Reason.NOT_JSON, "the envelope can't be written as JSON") from None
    if not isinstance(data, dict):
        raise BadRecordError(Reason.NOT_AN_OBJECT, "data is no object")
    found: dict[str, Any] = {**data}
    for field, path in options.fields.items():
        found[field] = at(record, path)
    name = found.get("event_type")
    if isinstance(name, str) and name not in BY_NAME and options.types:
        if name not in options.types:
            return passed_over("another type")
        found["event_type"] = options.types[name]
    return intent.read(found, options)


ADAPTER: Final = Adapter("cloudevents", CloudEventsOptions, read)
