"""CloudEvents, where a record is one: its data, with what the attributes say of the rest.

Both modes of the Kafka protocol binding 1.0 are understood: binary, with attributes in `ce_`
headers (section 3.2), and structured, with the JSON format's envelope as the value (section 3.3).
Attributes only stand in for what the data leaves out; an event that is whole is taken whatever they
say.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from stream.domain import rfc3339
from stream.exceptions import BadRecordError, Reason

Headers = Sequence[tuple[str, bytes | None]] | None

_VERSION: Final = "1.0"
_STRUCTURED: Final = b"application/cloudevents"
_FIELD_OF: Final = {"id": "event_id", "type": "event_type", "time": "occurred_at_ms"}
"""Attribute → the field of an event that it stands in for."""

_LONGEST_QUOTE: Final = 64


def event_data(value: bytes, headers: Headers) -> bytes:
    """The JSON of the event that a record holds, filled in; `value` where it is no CloudEvent.

    What isn't JSON, or no object, comes back as it is, for the caller's validation to refuse.

    Raises:
        BadRecordError: when an attribute that is needed can't be read.
    """
    # Kafka allows headers without a value.
    given = {name: text for name, text in headers or () if text is not None}
    structured = given.get("content-type", b"").strip().lower().startswith(_STRUCTURED)
    if not structured and "ce_specversion" not in given:
        return value
    try:
        data = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    if not isinstance(data, dict):
        return value
    if structured:
        if "specversion" not in data:
            return value
        data = _filled(_payload(data), data, prefix="")
    else:
        attributes = {
            name.removeprefix("ce_"): text for name, text in given.items() if name.startswith("ce_")
        }
        data = _filled(data, attributes, prefix="ce_")
    try:
        return orjson.dumps(data)
    except orjson.JSONEncodeError:
        return value  # nested too deep, which the caller's validation reports


def _payload(envelope: Mapping[str, Any]) -> Any:
    _check_version(envelope["specversion"], "specversion")
    if "data_base64" in envelope:
        try:
            return orjson.loads(base64.b64decode(envelope["data_base64"], validate=True))
        except (binascii.Error, TypeError, ValueError) as error:
            raise BadRecordError(Reason.NOT_JSON, f"data_base64: {error}") from None
    if "data" not in envelope:
        raise BadRecordError(Reason.MISSING_FIELD, "data: the CloudEvent has none")
    return envelope["data"]


def _filled(data: Any, attributes: Mapping[str, Any], *, prefix: str) -> Any:
    if not isinstance(data, dict):
        return data
    missing = {
        name: field for name, field in _FIELD_OF.items() if name in attributes and field not in data
    }
    if not missing:
        return data
    _check_version(attributes["specversion"], f"{prefix}specversion")
    told = {field: _read(attributes[name], prefix + name) for name, field in missing.items()}
    if "time" in missing:
        told["occurred_at_ms"] = _time(told["occurred_at_ms"], f"{prefix}time")
    return {**data, **told}


def _check_version(version: Any, name: str) -> None:
    text = _read(version, name)
    if text != _VERSION:
        raise BadRecordError(
            Reason.WRONG_TYPE, f"{name} is {_quoted(text)}; attributes are read as of {_VERSION}"
        )


def _read(attribute: Any, name: str) -> Any:
    if not isinstance(attribute, bytes):
        return attribute
    try:
        return attribute.decode()
    except UnicodeDecodeError as bad:
        raise BadRecordError(Reason.BAD_UTF8, f"{name}: byte {bad.start} is not UTF-8") from None


def _time(text: Any, name: str) -> int:
    if not isinstance(text, str):
        raise BadRecordError(Reason.WRONG_TYPE, f"{name} is not a string")
    try:
        return rfc3339.unix_ms(text)
    except ValueError as error:
        raise BadRecordError(Reason.WRONG_TYPE, f"{name} is {_quoted(text)}: {error}") from None


def _quoted(text: Any) -> str:
    whole = repr(text)
    return whole if len(whole) <= _LONGEST_QUOTE else f"{whole[:_LONGEST_QUOTE]}…"
