"""Whatever stands in a batch, all of it is handed on, and what can't be taken apart says where."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords

from stream.domain.events import Unreadable
from stream.kafka.salvage import _Batches
from tests.raw import Raw, batch, encoded

GOOD = Raw(b"key", b"good")
POISON = Raw(b"key", b"poison", [(b"ok", b"1"), (b"\xff", None)], delta_ms=3)
PLACE = TopicPartition("events", 0)
GZIP, LOG_APPEND_TIME, TRANSACTIONAL = 1, 8, 16


def read(raw: bytes, position: int = 0, end: int = 100, aborted: Any = None) -> tuple[Any, int]:
    """The records of a fetch from a position on, and the position behind them."""
    batches = _Batches(raw, position, end)
    records = PartitionRecords(PLACE, batches, aborted, position, None, None, False, READ_COMMITTED)
    return list(records), records.next_fetch_offset


@pytest.mark.parametrize("codec", [0, GZIP])
def test_a_record_whose_header_s_name_is_not_utf_8_is_kept_whole(codec: int) -> None:
    packed = gzip.compress(encoded([GOOD, POISON, GOOD])) if codec else None
    poisoned = batch(
        [GOOD, POISON, GOOD], attributes=codec, packed=packed, first_ms=5, base_offset=7
    )
    found, following = read(poisoned + batch([GOOD], base_offset=10), position=7)
    assert [(one.offset, one.timestamp, one.value) for one in found] == [
        (7, 5, b"good"),
        (8, 8, b"poison"),
        (9, 5, b"good"),
        (10, 0, b"good"),
    ]
    assert found[1].headers == (("ok", b"1"), ("\udcff", None))
    assert following == 11


def test_the_broker_s_time_stands_for_all_records_of_a_batch() -> None:
    (one,), _ = read(batch([POISON], attributes=LOG_APPEND_TIME, first_ms=5, most_ms=9))
    assert (one.timestamp, one.timestamp_type) == (9, 1)


def test_reading_goes_on_inside_a_poisoned_batch() -> None:
    found, following = read(batch([GOOD, POISON, GOOD], base_offset=7), position=8)
    assert [one.offset for one in found] == [8, 9]
    assert following == 10


def test_a_poisoned_batch_of_an_aborted_transaction_stays_unread() -> None:
    raw = batch([POISON], attributes=TRANSACTIONAL, producer_id=4) + batch([GOOD], base_offset=1)
    found, following = read(raw, aborted=[(4, 0)])
    assert [one.value for one in found] == [b"good"]
    assert following == 2


@pytest.mark.parametrize(
    "raw",
    [
        batch([GOOD, GOOD], base_offset=7)[:-1] + b"X",
        batch([GOOD, GOOD], base_offset=7, attributes=GZIP, packed=b"no gzip"),
    ],
    ids=["damaged on the disk", "not what its codec packs"],
)
def test_what_can_not_be_taken_apart_is_one_value_that_says_where_it_lies(raw: bytes) -> None:
    found, following = read(raw + batch([GOOD], base_offset=9), position=8)
    (bad, good) = found
    assert isinstance(bad.value, Unreadable)
    assert bad.value in raw
    assert (bad.offset, bad.key, "offsets 8 to 8" in bad.value.why) == (8, None, True)
    assert (good.offset, following) == (9, 10)


def test_what_follows_on_a_packed_batch_does_no_harm() -> None:
    packed = gzip.compress(encoded([GOOD])) + gzip.compress(b"") + b"and more"
    (good,), following = read(batch([GOOD], attributes=GZIP, packed=packed))
    assert (good.value, following) == (b"good", 1)


def test_what_stands_before_the_damage_is_kept() -> None:
    cut = encoded([GOOD, GOOD])[:-2]
    (good, bad), following = read(batch([GOOD, GOOD], packed=cut))
    assert (good.offset, good.value) == (0, b"good")
    assert (bad.offset, isinstance(bad.value, Unreadable), following) == (1, True, 2)
