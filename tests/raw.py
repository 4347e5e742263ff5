"""Batches of records as bytes, to have Kafka take what no client library would send."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c

from stream.kafka.connection import client_options
from stream.settings import Settings


@dataclass(frozen=True)
class Raw:
    """A record; names of headers are bytes, too."""

    key: bytes | None = None
    value: bytes | None = None
    headers: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    delta_ms: int = 0
    attributes: int = 0


def batch(
    records: Iterable[Raw],
    *,
    attributes: int = 0,
    packed: bytes | None = None,
    first_ms: int = 0,
    most_ms: int = 0,
    base_offset: int = 0,
    producer_id: int = -1,
) -> bytes:
    """A batch of format 2; `packed` stands in for its records, as a codec of `attributes` would."""
    records = list(records)
    count = len(records)
    tail = struct.pack(
        ">hiqqqhii", attributes, count - 1, first_ms, most_ms, producer_id, -1, -1, count
    ) + (encoded(records) if packed is None else packed)
    body = struct.pack(">ibI", -1, 2, calc_crc32c(tail)) + tail
    return struct.pack(">qi", base_offset, len(body)) + body


def encoded(records: Iterable[Raw]) -> bytes:
    """The records of a batch, before any codec."""
    return b"".join(_record(number, one) for number, one in enumerate(records))


async def produce(settings: Settings, topic: str, partition: int, data: bytes) -> int:
    """Have Kafka take these batches; 0, or the number of the error that it answers."""
    client = AIOKafkaClient(**client_options(settings))
    await client.bootstrap()
    try:
        await client._wait_on_metadata(topic)
        (node,) = [broker.nodeId for broker in client.cluster.brokers()]
        request = ProduceRequest(None, -1, 10_000, [(topic, [(partition, data)])])
        ((_, ((_, code, *_),)),) = (await client.send(node, request)).topics
        return int(code)
    finally:
        await client.close()


def varint(number: int) -> bytes:
    """Zigzag, seven bits a byte."""
    left = (number << 1) ^ (number >> 63)
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])


def _sized(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def _record(number: int, raw: Raw) -> bytes:
    told = [part for name, text in raw.headers for part in (_sized(name), _sized(text))]
    body = b"".join(
        [
            bytes([raw.attributes]),
            varint(raw.delta_ms),
            varint(number),
            _sized(raw.key),
            _sized(raw.value),
            varint(len(raw.headers)),
            *told,
        ]
    )
    return varint(len(body)) + body
