"""Reads records that aiokafka's parser fails at, once more and leniently.

aiokafka decodes the names of headers as UTF-8 while it takes a batch apart, so that one name that
isn't ends the whole fetch, again and again; a batch that the broker's disk damaged does so too. The
broker takes such records, so a consumer has to get past them: what one fetch failed at is fetched
again here, taken apart in Python, and handed on with all that can be kept. Names keep their bytes
as surrogates (PEP 383), and what can't be taken apart at all is an `Unreadable` value.

This goes by fields of aiokafka's own (0.14): an upgrade must run the tests of this module and those
of strange records. The layout of batches is Kafka's message format
(https://kafka.apache.org/documentation/#messageformat).
"""

from __future__ import annotations

import logging
import struct
import time
import zlib
from collections import deque
from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.codec import lz4_decode, snappy_decode, zstd_decode
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.errors import (
    CorruptRecordException,
    KafkaError,
    NoError,
    UnsupportedCodecError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.util import decode_varint

from stream.domain.events import Unreadable

_log = logging.getLogger(__name__)

_MAGIC_AT: Final = 16
_FIRST_WITH_HEADERS: Final = 2
_LENGTH: Final = struct.Struct(">qi")
_BATCH: Final = struct.Struct(">qiibIhiqqqhii")
_CODEC: Final = 0b111
_LOG_APPEND_TIME: Final = 0b1000
_TRANSACTIONAL: Final = 0b10000

Fetched = dict[TopicPartition, list[Any]]


async def fetched(
    consumer: AIOKafkaConsumer,
    partitions: Collection[TopicPartition],
    timeout_s: float,
    most: int | None,
) -> Fetched:
    """What aiokafka's consumer has fetched of partitions, poison pills included.

    Args:
        consumer: a started consumer.
        partitions: those to read from; none means all that are assigned.
        timeout_s: how long to wait where nothing has arrived.
        most: records, at most.

    Raises:
        KafkaError: as aiokafka's fetches do, but for records that can't be parsed.
    """
    fetcher = consumer._fetcher
    before = positions(consumer)
    try:
        records: Fetched = await fetcher.fetched_records(partitions, timeout_s, max_records=most)
        return records
    except Exception as error:
        if isinstance(error, KafkaError) and not isinstance(error, CorruptRecordException):
            raise
        # What was fetched of other partitions before is gone with the error: it comes again.
        for place, position in before.items():
            if positions(consumer).get(place, position) != position:
                fetcher.seek_to(place, position)
        poisoned = next((at for at in fetcher._records if not partitions or at in partitions), None)
        if poisoned is None:
            raise
        _log.error(
            "aiokafka can't parse %s[%d] from offset %d on (%r); it is read once more, leniently",
            *(poisoned.topic, poisoned.partition, before[poisoned], error),
        )
        return await _fetched_again(consumer, poisoned, before[poisoned], most)


def positions(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """The offset that each assigned partition is fetched from next, as far as it is known."""
    subscription = consumer._subscription.subscription
    assignment = subscription and subscription.assignment
    if assignment is None:
        return {}
    states = ((place, assignment.state_value(place)) for place in assignment.tps)
    return {place: state.position for place, state in states if state.has_valid_position}


async def _fetched_again(
    consumer: AIOKafkaConsumer, place: TopicPartition, position: int, most: int | None
) -> Fetched:
    fetcher = consumer._fetcher
    try:
        raw, aborted, end = await _raw(consumer, place, position)
    except KafkaError as error:
        _log.warning("%s can't be fetched again yet: %r", place, error)
        return {}
    finally:
        # aiokafka fetches no more of a partition while it holds something of it.
        fetcher._records.pop(place, None)
        fetcher._notify(fetcher._wait_consume_future)
    if positions(consumer).get(place) != position:
        return {}  # the group rebalanced meanwhile, or somebody sought
    records = PartitionRecords(
        place,
        _Batches(raw, position, end),
        aborted,
        position,
        fetcher._key_deserializer,
        fetcher._value_deserializer,
        False,
        fetcher._isolation_level,
    )
    found = []
    for record in records:
        found.append(record)
        if len(found) == most:
            break
    fetcher.seek_to(place, records.next_fetch_offset)
    return {place: found} if found else {}


async def _raw(
    consumer: AIOKafkaConsumer, place: TopicPartition, position: int
) -> tuple[bytes, Any, int]:
    """The log from a position on as the broker sends it, aborted transactions, and its end."""
    fetcher = consumer._fetcher
    request = FetchRequest(
        fetcher._fetch_max_wait_ms,
        fetcher._fetch_min_bytes,
        fetcher._fetch_max_bytes,
        fetcher._isolation_level,
        [(place.topic, [(place.partition, position, fetcher._max_partition_fetch_bytes)])],
        rack_id="",
    )
    leader = consumer._client.cluster.leader_for_partition(place)
    response = await consumer._client.send(leader, request)
    ((_, ((_, code, high_watermark, *rest),)),) = response.topics
    if for_code(code) is not NoError:
        raise for_code(code)(place)
    aborted = next((part for part in rest if isinstance(part, list)), None)
    return rest[-1] or b"", aborted, high_watermark


class _Record(NamedTuple):
    """A record, with all that `PartitionRecords` asks of one."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


class _Batches:
    """The batches of a fetch, in place of aiokafka's `MemoryRecords`.

    A batch that aiokafka can take apart is left to it.

    Args:
        raw: what the broker sent.
        position: where the consumer is; batches may begin before.
        end: the log's end.
    """

    def __init__(self, raw: bytes, position: int, end: int) -> None:
        self._slices = deque(_slices(raw))
        self._position = position
        self._end = end

    def has_next(self) -> bool:
        return bool(self._slices)

    def next_batch(self) -> Any:
        raw = self._slices.popleft()
        try:
            batch = _parsed(raw)
            if not batch.validate_crc():
                raise CorruptRecordException("its checksum is wrong")
            deque(batch, maxlen=0)
            return _parsed(raw)
        except UnsupportedCodecError:
            raise
        except Exception as error:
            follows = _LENGTH.unpack_from(self._slices[0])[0] if self._slices else self._end
            return _LenientBatch(raw, self._position, follows, error)


class _LenientBatch:
    """A batch that aiokafka can't take apart, as far as `PartitionRecords` knows batches."""

    is_control_batch = False

    def __init__(self, raw: bytes, position: int, follows: int, error: Exception) -> None:
        self._raw = raw
        self._error = error
        self.base_offset = _LENGTH.unpack_from(raw)[0]
        self._position = max(position, self.base_offset)
        self._is_whole = raw[_MAGIC_AT] >= _FIRST_WITH_HEADERS and _parsed(raw).validate_crc()
        self.producer_id = None
        self.is_transactional = False
        # What a damaged batch says of itself may be damaged.
        self.next_offset = max(follows, self._position + 1)
        if self._is_whole:
            header = _BATCH.unpack_from(raw)
            self._attributes, last_delta = header[5:7]
            self._first_timestamp, self._max_timestamp, self.producer_id = header[7:10]
            self._count = header[12]
            self.is_transactional = bool(self._attributes & _TRANSACTIONAL)
            self.next_offset = self.base_offset + last_delta + 1

    def __iter__(self) -> Iterator[_Record]:
        if not self._is_whole:
            yield self._unreadable(self._raw, self._error)
            return
        data = self._raw[_BATCH.size :]
        at = number = 0
        try:
            if codec := self._attributes & _CODEC:
                data = _DECOMPRESS[codec](data)
            while number < self._count:
                record, at = self._record(data, at)
                number += 1
                yield record
        except Exception as error:
            yield self._unreadable(data[at:], error, number)

    def _record(self, data: bytes, at: int) -> tuple[_Record, int]:
        length, at = decode_varint(data, at)
        end = at + length
        delta_ms, at = decode_varint(data, at + 1)
        delta, at = decode_varint(data, at)
        key, at = _bytes(data, at)
        value, at = _bytes(data, at)
        count, at = decode_varint(data, at)
        headers = []
        for _ in range(count):
            name, at = _bytes(data, at)
            text, at = _bytes(data, at)
            headers.append(((name or b"").decode(errors="surrogateescape"), text))
        if at != end:
            raise CorruptRecordException(f"a record of {length} bytes ends {at - end} bytes behind")
        is_append_time = bool(self._attributes & _LOG_APPEND_TIME)
        timestamp = self._max_timestamp if is_append_time else self._first_timestamp + delta_ms
        offset = self.base_offset + delta
        return _Record(offset, timestamp, int(is_append_time), key, value, headers), at

    def _unreadable(self, data: bytes, error: Exception, number: int = 0) -> _Record:
        offset = max(self.base_offset + number, self._position)
        why = f"offsets {offset} to {self.next_offset - 1} can't be taken apart: {error}"
        # Retention goes by a record's time, also where its dead letter goes.
        timestamp = self._max_timestamp if self._is_whole else round(time.time() * 1000)
        return _Record(offset, timestamp, 0, None, Unreadable(data, why), [])


def _slices(raw: bytes) -> Iterator[bytes]:
    at = 0
    while len(raw) - at > _MAGIC_AT:
        end = at + _LENGTH.size + _LENGTH.unpack_from(raw, at)[1]
        if end > len(raw):
            return  # cut by the fetch's limit
        yield raw[at:end]
        at = end


def _parsed(raw: bytes) -> Any:
    magic = raw[_MAGIC_AT]
    return (
        DefaultRecordBatch(raw) if magic >= _FIRST_WITH_HEADERS else LegacyRecordBatch(raw, magic)
    )


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(data, at)
    if length < 0:
        return None, at
    if at + length > len(data):
        raise CorruptRecordException(f"{length} bytes at {at} of {len(data)}")
    return bytes(data[at : at + length]), at + length


def _gunzip(data: bytes) -> bytes:
    """Unpack gzip. What follows behind the packed data is ignored, as the broker ignores it."""
    out = b""
    while data:
        member = zlib.decompressobj(wbits=31)
        try:
            out += member.decompress(data) + member.flush()
        except zlib.error:
            if out:
                return out
            raise
        data = member.unused_data
    return out


_DECOMPRESS: Final = {1: _gunzip, 2: snappy_decode, 3: lz4_decode, 4: zstd_decode}
