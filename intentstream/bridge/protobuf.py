"""Protobuf messages of any type that the schema registry knows, without generated code."""

from __future__ import annotations

from typing import Any

from confluent_kafka.schema_registry.protobuf import AsyncProtobufDeserializer
from confluent_kafka.schema_registry.serde import SchemaId
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass

from intentstream.bridge import values


async def reader(client: Any) -> values.Decode:
    """What reads messages of the type that each value names, as an object of its fields' names."""
    confluent = await AsyncProtobufDeserializer(Empty, schema_registry_client=client)

    async def read(value: bytes) -> object:
        schema_id = SchemaId("PROTOBUF")
        payload = confluent._schema_id_deserializer(value, None, schema_id)
        schema = await confluent._get_writer_schema(schema_id, fmt="serialized")
        file, pool = await confluent._get_parsed_schema(schema)
        kind = confluent._get_message_desc(
            pool, pool.FindFileByName(file.name), schema_id.message_indexes or [0]
        )
        message = GetMessageClass(kind)()
        message.ParseFromString(payload.read())
        return MessageToDict(message, preserving_proto_field_name=True)

    return read
