"""Which partition a key's records are in: what producers' partitioners make of it.

Kafka knows nothing of this; each client library has a default of its own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import numpy as np
from aiokafka.partitioner import murmur2

Partitioner = Literal["murmur2", "crc32", "fnv1a"]

_INT32_MAX: Final = 0x7FFF_FFFF
_ENOUGH: Final = 0.9
"""Share of keys that must agree: some stand elsewhere if a producer knew too few partitions."""


def _java(key: bytes) -> int:
    return int(murmur2(key)) & _INT32_MAX


def _fnv1a(key: bytes) -> int:
    value = 0x811C_9DC5
    for byte in key:
        value = (value ^ byte) * 0x0100_0193 & 0xFFFF_FFFF
    # Of the signed number the absolute value.
    return value if value <= _INT32_MAX else 2**32 - value


HASHES: Final[dict[Partitioner, Callable[[bytes], int]]] = {
    "murmur2": _java,
    "crc32": zlib.crc32,
    "fnv1a": _fnv1a,
}
"""The hash of a key, whose remainder is the partition, by partitioner.

Sources: `murmur2` is that of Java's clients (`BuiltInPartitioner.partitionForKey`), aiokafka,
kafka-python, franz-go and KafkaJS; `crc32` librdkafka's `consistent_random`, its default, and so
that of confluent-kafka; `fnv1a` Sarama's `NewHashPartitioner`, as librdkafka has it.
"""


def partition_of(key: bytes, partitioner: Partitioner, partitions: int) -> int:
    """The partition, of so many, that `partitioner` puts a key's records in."""
    return HASHES[partitioner](key) % partitions


def fitting(
    placed: Iterable[tuple[bytes, int]], was: Sequence[int], now: int
) -> tuple[list[Partitioner], int]:
    """The partitioners that put nearly all keys where they are.

    Args:
        placed: keys, and the partition in which each was found.
        was: how many partitions there may have been when they were written.
        now: how many there are; a key may have been written since.

    Returns:
        Those partitioners, and of how many partitions, which is of `was`, the best of them deals.
    """
    keys, found = zip(*placed, strict=True)
    there = np.array(found)
    shares: dict[Partitioner, tuple[float, int]] = {}
    for name, hashed in HASHES.items():
        hashes = np.array([hashed(key) for key in keys], np.int64)
        # Of two that explain the same, the present number is the simpler explanation.
        shares[name] = max(
            (float(np.mean((hashes % count == there) | (hashes % now == there))), count)
            for count in was
        )
    good = sorted(shares, key=lambda name: shares[name], reverse=True)
    return [name for name in good if shares[name][0] >= _ENOUGH], shares[good[0]][1]
