"""Partitions are those that producers' libraries choose."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from stream.kafka.partitioners import HASHES, Partitioner, fitting, partition_of

KEYS = [f"member-{number}".encode() for number in range(200)]


@pytest.mark.parametrize(
    ("partitioner", "key", "hashed"),
    [
        # Unit tests of librdkafka: rdmurmur2.c (there before the sign is masked), rdfnv1a.c.
        ("murmur2", b"kafka", 0xD067CF64 & 0x7FFFFFFF),
        ("murmur2", b"giberish123456789", 0x8F552B0C & 0x7FFFFFFF),
        ("murmur2", b"234", 0xE7C009CA & 0x7FFFFFFF),
        ("fnv1a", b"kafka", 0xD33C4E1),
        ("fnv1a", b"giberish123456789", 0x77A58295),
        ("fnv1a", b"PreAmbleWillBeRemoved,ThePrePartThatIs", 0x65CBD69C),
        # The check value of CRC-32/ISO-HDLC.
        ("crc32", b"123456789", 0xCBF43926),
    ],
)
def test_hashes_are_those_of_the_libraries(
    partitioner: Partitioner, key: bytes, hashed: int
) -> None:
    assert HASHES[partitioner](key) == hashed


@given(st.binary(min_size=1, max_size=64), st.integers(1, 64))
def test_murmur2_puts_keys_where_aiokafka_s_producer_does(key: bytes, partitions: int) -> None:
    choices = list(range(partitions))
    assert partition_of(key, "murmur2", partitions) == DefaultPartitioner()(key, choices, choices)


@pytest.mark.parametrize("partitioner", HASHES)
def test_the_partitioner_is_told_by_where_keys_are(partitioner: Partitioner) -> None:
    placed = [(key, partition_of(key, partitioner, 4)) for key in KEYS]
    assert fitting(placed, [4], 8) == ([partitioner], 4)


def test_keys_that_were_also_written_after_partitions_were_added_tell_it_too() -> None:
    placed = [(key, partition_of(key, "crc32", count)) for key in KEYS for count in (4, 6)]
    assert fitting(placed, range(1, 7), 6) == (["crc32"], 4)


def test_some_keys_elsewhere_don_t_matter_and_many_do() -> None:
    placed = [(key, partition_of(key, "murmur2", 4)) for key in KEYS]
    astray = [(key, 3 - partition) for key, partition in placed]
    assert fitting(placed[10:] + astray[:10], [4], 4)[0] == ["murmur2"]
    assert fitting(placed[100:] + astray[:100], [4], 4)[0] == []


def test_one_partition_tells_nothing_of_the_partitioner() -> None:
    assert len(fitting([(key, 0) for key in KEYS], [1], 1)[0]) == len(HASHES)


def test_where_all_is_in_its_place_no_other_number_of_partitions_is_suspected() -> None:
    placed = [(key, partition_of(key, "murmur2", 8)) for key in KEYS]
    assert fitting(placed, range(1, 9), 8) == (["murmur2"], 8)
