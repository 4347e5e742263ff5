"""Values of records as objects: JSON, or what a schema registry knows the schema of.

Confluent's wire format is a zero byte, the schema's number in four (or a one, and its GUID in 16),
and the data; see
https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/. Data are
read by the schema that they were written with, so that a producer may add and leave out fields.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson

from stream.exceptions import BadRecordError, Reason, RegistryUnavailableError

if TYPE_CHECKING:
    from stream.settings import BridgeSettings

Decode = Callable[[bytes], Awaitable[object]]
"""The object in a value.

Raises `BadRecordError` where none is, and `RegistryUnavailableError` while its schema can't be had.
"""

_TIMEOUT_S: Final = 10
_NO_SCHEMA: Final = (40401, 40402, 40403)
"""Error codes of the registry's API: no such subject, version or schema."""

_NUMBERED: Final = 5
_NAMED: Final = 17
"""Bytes before the data."""


def decoder(settings: BridgeSettings) -> Decode:
    """What reads values of the format in the settings."""
    return _json if settings.bridge_format == "json" else _by_registry(settings)


async def _json(value: bytes) -> object:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise BadRecordError(Reason.NOT_JSON, str(error)) from None


def _by_registry(settings: BridgeSettings) -> Decode:
    from confluent_kafka.schema_registry import AsyncSchemaRegistryClient, SchemaRegistryError
    from httpx2 import TransportError

    client = AsyncSchemaRegistryClient(_client_options(settings))
    reader: Any = None

    async def decode(value: bytes) -> object:
        nonlocal reader
        find = _schema(
            client, value, "serialized" if settings.bridge_format == "protobuf" else None
        )
        try:
            await find()
        except Exception as error:
            if _is_unknown(error):
                raise BadRecordError(
                    Reason.UNREADABLE, f"the registry has no such schema: {error}"
                ) from None
            raise _unavailable(settings, error) from error
        try:
            reader = reader or await _reader(settings.bridge_format, client)
            return await reader(value)
        except (SchemaRegistryError, TransportError) as error:
            # Of a schema that the schema refers to.
            if _is_unknown(error):
                raise BadRecordError(
                    Reason.UNREADABLE, f"a schema is incomplete: {error}"
                ) from None
            raise _unavailable(settings, error) from error
        except Exception as error:
            # The libraries raise all kinds of errors at data that don't fit their schema.
            raise BadRecordError(
                Reason.UNREADABLE, f"the value is no {settings.bridge_format}: {error!r}"
            ) from None

    return decode


def _schema(client: Any, value: bytes, format: str | None) -> Callable[[], Awaitable[object]]:  # noqa: A002
    """What gets the schema that a value names; the client remembers those that it got.

    Raises:
        BadRecordError: when the value names none.
    """
    if value[:1] == b"\0" and len(value) > _NUMBERED:
        number = int.from_bytes(value[1:_NUMBERED])
        return lambda: client.get_schema(number, fmt=format)
    if value[:1] == b"\1" and len(value) > _NAMED:
        guid = str(UUID(bytes=value[1:_NAMED]))
        return lambda: client.get_schema_by_guid(guid, fmt=format)
    raise BadRecordError(Reason.UNREADABLE, "the value isn't in Confluent's wire format")


def _is_unknown(error: Exception) -> bool:
    return getattr(error, "error_code", None) in _NO_SCHEMA


def _client_options(settings: BridgeSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "url": settings.schema_registry_url,
        "timeout": _TIMEOUT_S,
        "max.retries": 0,
    }
    if settings.schema_registry_username and settings.schema_registry_password:
        password = settings.schema_registry_password.get_secret_value()
        options["basic.auth.user.info"] = f"{settings.schema_registry_username}:{password}"
    if settings.schema_registry_cafile:
        options["ssl.ca.location"] = str(settings.schema_registry_cafile)
    return options


async def _reader(format: str, client: Any) -> Decode:  # noqa: A002
    if format == "avro":
        from confluent_kafka.schema_registry.avro import AsyncAvroDeserializer

        avro: Decode = await AsyncAvroDeserializer(client)
        return avro
    if format == "json-schema":
        from confluent_kafka.schema_registry.json_schema import AsyncJSONDeserializer

        # The schema is that of the value's number, whatever subject it is registered under.
        no_subject = {"subject.name.strategy": lambda *_: None}
        json: Decode = await AsyncJSONDeserializer(
            None, schema_registry_client=client, conf=no_subject
        )
        return json
    from intentstream.bridge.protobuf import reader

    return await reader(client)


def _unavailable(settings: BridgeSettings, error: Exception) -> RegistryUnavailableError:
    return RegistryUnavailableError(
        f"the schema registry at {settings.schema_registry_url} did not give a schema ({error!r}); "
        "check that it runs, INTENT_SCHEMA_REGISTRY_URL, and its login"
    )
