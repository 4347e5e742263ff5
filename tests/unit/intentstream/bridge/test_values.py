from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from intentstream.bridge.values import decoder
from stream.exceptions import BadRecordError, Reason, RegistryUnavailableError
from stream.settings import Settings
from tests.registries import Contract, contract

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTEXT = SerializationContext("theirs", MessageField.VALUE)
FIELDS = [{"name": "profile_id", "type": "string"}, {"name": "at", "type": "long"}]
OPTIONAL = {"name": "device", "type": ["null", "string"], "default": None}


@pytest.fixture
def registry() -> Iterator[Contract]:
    with contract() as told:
        yield told


def settings(registry: Contract, format: str) -> Settings:  # noqa: A002
    return Settings(bridge_format=format, schema_registry_url=registry.url)  # type: ignore[arg-type]


def decoded(registry: Contract, format: str, *values: bytes) -> list[Any]:  # noqa: A002
    """What one decoder makes of values."""

    async def decode() -> list[Any]:
        decode = decoder(settings(registry, format))
        return [await decode(value) for value in values]

    return asyncio.run(decode())


def avro(registry: Contract, fields: list[dict[str, Any]], record: dict[str, Any]) -> bytes:
    client = SchemaRegistryClient({"url": registry.url})
    schema = json.dumps({"type": "record", "name": "Played", "fields": fields})
    found: bytes = AvroSerializer(client, schema)(record, CONTEXT)
    return found


def message_class(*names: str) -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="played.proto", package="t", syntax="proto3")
    other = file.message_type.add(name="Other")
    other.field.add(name="x", number=1, type=9, label=1)
    played = file.message_type.add(name="Played")
    for number, name in enumerate(names, 1):
        played.field.add(name=name, number=number, type=9, label=1, json_name=name)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("t.Played"))


def protobuf(registry: Contract, **fields: str) -> bytes:
    client = SchemaRegistryClient({"url": registry.url})
    kind = message_class(*fields)
    found: bytes = ProtobufSerializer(kind, client)(kind(**fields), CONTEXT)
    return found


def test_json_needs_no_registry() -> None:
    decode = decoder(Settings())
    assert asyncio.run(decode(b'{"a": 1}')) == {"a": 1}  # type: ignore[arg-type]
    with pytest.raises(BadRecordError) as bad:
        asyncio.run(decode(b"{"))  # type: ignore[arg-type]
    assert bad.value.reason is Reason.NOT_JSON


def test_avro_is_read_by_the_schema_that_it_was_written_with(registry: Contract) -> None:
    old = avro(registry, FIELDS, {"profile_id": "a", "at": 1})
    new = avro(registry, [*FIELDS, OPTIONAL], {"profile_id": "b", "at": 2, "device": "tv"})
    less = avro(registry, FIELDS[:1], {"profile_id": "c"})
    assert decoded(registry, "avro", old, new, less, old) == [
        {"profile_id": "a", "at": 1},
        {"profile_id": "b", "at": 2, "device": "tv"},
        {"profile_id": "c"},
        {"profile_id": "a", "at": 1},
    ]


def test_protobuf_is_read_without_generated_code(registry: Contract) -> None:
    old = protobuf(registry, profile_id="a")
    new = protobuf(registry, profile_id="b", device="tv")
    assert decoded(registry, "protobuf", old, new) == [
        {"profile_id": "a"},
        {"profile_id": "b", "device": "tv"},
    ]


def test_json_schema_is_read(registry: Contract) -> None:
    schema = {"title": "Played", "type": "object", "properties": {"a": {"type": "integer"}}}
    client = SchemaRegistryClient({"url": registry.url})
    value = JSONSerializer(json.dumps(schema), client)({"a": 1}, CONTEXT)
    assert value is not None
    assert decoded(registry, "json-schema", value) == [{"a": 1}]


@pytest.mark.parametrize("format", ["avro", "protobuf", "json-schema"])
def test_a_schema_that_there_is_not_makes_a_bad_record(registry: Contract, format: str) -> None:  # noqa: A002
    with pytest.raises(BadRecordError, match="the registry has no such schema") as bad:
        decoded(registry, format, b"\0\0\0\0\x63data")
    assert bad.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize("value", [b"", b"{}", b"\0\0\0", b"\x07\0\0\0\1data"])
def test_another_wire_format_makes_a_bad_record(registry: Contract, value: bytes) -> None:
    with pytest.raises(BadRecordError, match="isn't in Confluent's wire format"):
        decoded(registry, "avro", value)


def test_data_that_do_not_fit_their_schema_make_a_bad_record(registry: Contract) -> None:
    value = avro(registry, FIELDS, {"profile_id": "a", "at": 1})
    with pytest.raises(BadRecordError, match="the value is no avro"):
        decoded(registry, "avro", value[:6])


@pytest.mark.parametrize(
    "fault", [(503, b'{"error_code": 50301}'), (401, b""), (404, b"no page"), (200, b"<html>")]
)
def test_a_registry_that_gives_no_schema_is_asked_again(
    registry: Contract, fault: tuple[int, bytes]
) -> None:
    value = avro(registry, FIELDS, {"profile_id": "a", "at": 1})
    registry.fails = fault

    async def decode() -> object:
        decode = decoder(settings(registry, "avro"))
        with pytest.raises(RegistryUnavailableError, match="INTENT_SCHEMA_REGISTRY_URL"):
            await decode(value)
        registry.fails = None
        return await decode(value)

    assert asyncio.run(decode()) == {"profile_id": "a", "at": 1}


def test_a_registry_that_is_not_there_is_asked_again() -> None:
    with contract() as gone:
        pass
    with pytest.raises(RegistryUnavailableError):
        decoded(gone, "avro", b"\0\0\0\0\1data")
