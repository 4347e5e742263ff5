from __future__ import annotations

from datetime import UTC, datetime

import pytest

from stream.adapters.registry import reader
from stream.exceptions import BadRecordError
from tests.unit.stream.adapters.samples import OURS


def test_our_own_event_is_what_it_was() -> None:
    assert reader("intent")(OURS).events == (OURS,)


def test_fields_that_are_none_of_ours_are_left_out() -> None:
    assert reader("intent")({**OURS, "build": "7.1"}).events == (OURS,)


def test_a_table_of_text_says_the_same() -> None:
    row = {name: str(value) for name, value in OURS.items()} | {"query": ""}
    assert reader("intent")(row).events == (OURS,)


def test_a_time_of_avro_or_parquet_is_in_milliseconds() -> None:
    time = datetime(2024, 5, 4, 19, 5, 11, 123_000, tzinfo=UTC)
    assert reader("intent")({**OURS, "occurred_at_ms": time}).events == (OURS,)
    with pytest.raises(BadRecordError, match="without an offset"):
        reader("intent")({**OURS, "occurred_at_ms": time.replace(tzinfo=None)})
