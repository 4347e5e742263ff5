from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from features.offline.landing import SCHEMA, PartitionLanding, Published
from stream.domain.feature_row import IntentRow
from tests.unit.features.samples import SAMPLE, sample, to_json

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence
    from pathlib import Path

HOUR_MS = 3_600_000
REPEAT_HOURS = 26


def records(rows: Sequence[IntentRow], first: int = 0) -> list[Published]:
    return [Published(offset, to_json(row)) for offset, row in enumerate(rows, first)]


def land(folder: Path, *batches: Sequence[Published]) -> Counter[str]:
    """What the last batch came to, all of them landed by one owner that then goes."""
    landing = PartitionLanding(folder, "intent-features", 0, REPEAT_HOURS)
    assert landing.own()
    try:
        return [landing.land(batch) for batch in batches][-1]
    finally:
        landing.close()


def landed(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder, schema=SCHEMA).to_pylist()
    return rows


def numbers(folder: Path) -> list[int]:
    return sorted(row["sequence_no"] for row in landed(folder))


def files(folder: Path) -> list[Path]:
    return sorted(path.relative_to(folder) for path in folder.rglob("*.parquet"))


def test_a_row_lands_with_the_view_s_features_and_two_times_to_the_millisecond(
    tmp_path: Path,
) -> None:
    land(tmp_path, records([SAMPLE]))
    (row,) = landed(tmp_path)
    event_at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=SAMPLE.last_event_at_ms)
    published_at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=SAMPLE.published_at_ms)
    assert (row.pop("event_timestamp"), row.pop("created_timestamp")) == (event_at, published_at)
    assert row.pop("last_event_at") == event_at.replace(microsecond=0)
    assert row.pop("published_at") == published_at.replace(microsecond=0)
    as_float32 = pa.array([SAMPLE.probs["genre"]], pa.list_(pa.float32())).to_pylist()[0]
    assert row["genre_probs"] == as_float32
    exact = [name for name in row if "probs" not in name and "embedding" not in name]
    published = SAMPLE.published()
    assert {name: row[name] for name in exact} == {name: published[name] for name in exact}


def test_a_row_lies_in_the_folder_of_the_hour_it_was_published_in(tmp_path: Path) -> None:
    at = datetime(2026, 1, 31, 7, 59, 59, 999_000, tzinfo=UTC).timestamp() * 1000
    before, after = sample(published_at_ms=int(at)), sample(published_at_ms=int(at) + 1)
    land(tmp_path, records([before]), [Published(9, to_json(after).replace(b'"p-1"', b'"p-2"'))])
    assert [str(path.parent) for path in files(tmp_path)] == [
        "date=2026-01-31/hour=07",
        "date=2026-01-31/hour=08",
    ]


_batches = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=8)


@hypothesis_settings(max_examples=20)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 6), st.sampled_from("12"), st.integers(0, 3)),
        min_size=1,
        max_size=30,
    ),
    deliveries=_batches,
)
def test_whatever_is_delivered_again_each_row_lands_once(
    rows: list[tuple[int, int, str, int]],
    deliveries: list[tuple[int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("landed")
    topic = records(
        [
            sample(
                profile_id=f"p-{profile}",
                sequence_no=sequence,
                model_version=version,
                published_at_ms=SAMPLE.published_at_ms + place + hour * HOUR_MS,
            )
            for place, (profile, sequence, version, hour) in enumerate(rows)
        ]
    )
    for start, length in deliveries:
        land(folder, topic[start : start + length])
    land(folder, topic)
    found = [
        (row["profile_id"], row["sequence_no"], row["model_version"]) for row in landed(folder)
    ]
    assert sorted(found) == sorted({(f"p-{p}", sequence, v) for p, sequence, v, _ in rows})


def test_a_row_that_is_published_again_keeps_its_first_publication(tmp_path: Path) -> None:
    again = sample(published_at_ms=SAMPLE.published_at_ms + 20 * HOUR_MS)
    land(tmp_path, records([SAMPLE]))
    told = land(tmp_path, records([again], first=1))
    assert told == {"repeated": 1, "landed": 0}
    (row,) = landed(tmp_path)
    assert row["created_timestamp"].timestamp() * 1000 == SAMPLE.published_at_ms


def test_a_row_published_again_after_days_without_any_is_recognised(tmp_path: Path) -> None:
    again = sample(published_at_ms=SAMPLE.published_at_ms + 24 * 9 * HOUR_MS)
    other = sample(profile_id="p-2", published_at_ms=again.published_at_ms)
    land(tmp_path, records([SAMPLE]))
    assert land(tmp_path, records([other, again], first=1)) == {
        "landed": 1,
        "files": 1,
        "repeated": 1,
    }


def test_keys_of_hours_too_far_back_are_forgotten(tmp_path: Path) -> None:
    landing = PartitionLanding(tmp_path, "intent-features", 0, repeat_hours=2)
    assert landing.own()
    hours = [
        sample(sequence_no=hour, published_at_ms=SAMPLE.published_at_ms + hour * HOUR_MS)
        for hour in range(1, 8)
    ]
    for offset, row in enumerate(hours):
        landing.land(records([row], first=offset))
    assert len(landing._keys) == 3


def test_a_row_scored_again_by_another_model_version_lands_too(tmp_path: Path) -> None:
    land(tmp_path, records([SAMPLE, sample(model_version="5")]))
    assert [row["model_version"] for row in landed(tmp_path)] == [SAMPLE.model_version, "5"]


def test_rows_after_an_erasure_land_though_their_numbers_begin_again(tmp_path: Path) -> None:
    anew = sample(
        last_event_at_ms=SAMPLE.last_event_at_ms + 1, published_at_ms=SAMPLE.published_at_ms + 1
    )
    land(tmp_path, records([SAMPLE]))
    assert land(tmp_path, records([anew, SAMPLE, anew], first=1)) == {
        "landed": 1,
        "files": 1,
        "repeated": 2,
    }


def test_rows_of_a_file_that_another_program_wrote_anew_are_recognised(tmp_path: Path) -> None:
    land(tmp_path, records([SAMPLE, sample(profile_id="p-2")]))
    (file,) = files(tmp_path)
    rows = pq.read_table(tmp_path / file, partitioning=None).to_pandas()
    rows["event_timestamp"] = rows["event_timestamp"].astype("datetime64[ns, UTC]")
    rows[rows["profile_id"] == "p-2"].to_parquet(tmp_path / file, index=False)
    assert land(tmp_path, records([sample(profile_id="p-2")], first=1))["repeated"] == 1


@pytest.mark.parametrize("kept", [0, 1000, -1], ids=["empty", "a part", "all but a byte"])
def test_a_file_that_can_not_be_read_is_storage_trouble_that_names_it(
    kept: int, tmp_path: Path
) -> None:
    land(tmp_path, records([SAMPLE]))
    (file,) = files(tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[:kept])
    with pytest.raises(OSError, match=f"{file.name} can't be read .* Put a whole copy"):
        land(tmp_path, records([SAMPLE]))
    (tmp_path / file).write_bytes(whole)
    assert land(tmp_path, records([SAMPLE]))["repeated"] == 1


def test_a_topic_made_anew_neither_hides_nor_replaces_what_has_landed(tmp_path: Path) -> None:
    land(tmp_path, records([sample(sequence_no=1)]))
    land(tmp_path, records([sample(sequence_no=2)]))
    assert numbers(tmp_path) == [1, 2]


@pytest.mark.parametrize(
    "value",
    [
        b"junk",
        b"[]",
        b"{}",
        to_json(SAMPLE).replace(b'"session_length":3', b'"session_length":"3"'),
        to_json(SAMPLE).replace(b'"session_length":3', b'"session_length":9223372036854775808'),
        to_json(SAMPLE).replace(b'"kind_probs":[0.25,', b'"kind_probs":[null,'),
        to_json(SAMPLE).replace(b'"published_at_ms":1', b'"published_at_ms":-1'),
        to_json(SAMPLE).replace(b'"profile_id":"p-1"', b'"profile_id":""'),
        b"\xff",
    ],
)
def test_a_bad_record_is_told_by_its_place_and_holds_nothing_up(
    value: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = records([sample(sequence_no=1), sample(sequence_no=2)])
    with caplog.at_level(logging.ERROR):
        told = land(tmp_path, [good[0], Published(7, value), good[1]._replace(offset=8)])
    assert told == {"landed": 2, "files": 1, "bad": 1, "repeated": 0}
    assert "intent-features@0, offset 7 is no row" in caplog.text


def test_a_tombstone_is_counted_and_lands_nothing(tmp_path: Path) -> None:
    assert land(tmp_path, [Published(0, None)]) == {"tombstone": 1}
    assert files(tmp_path) == []


def test_a_field_that_a_newer_worker_added_is_ignored(tmp_path: Path) -> None:
    newer = to_json(SAMPLE).replace(b'{"profile_id"', b'{"mood":"sunny","profile_id"')
    assert land(tmp_path, [Published(0, newer)])["landed"] == 1


def test_an_unfinished_file_is_no_row_and_is_removed(tmp_path: Path) -> None:
    land(tmp_path, records([SAMPLE]))
    (file,) = files(tmp_path)
    part = tmp_path / file.parent / ".intent-features@0-000000000001-000000000001-0.parquet.part"
    part.write_bytes((tmp_path / file).read_bytes()[:100])
    assert len(landed(tmp_path)) == 1
    land(tmp_path, records([SAMPLE]))
    assert not part.exists()


def test_a_partition_has_one_owner_at_a_time(tmp_path: Path) -> None:
    first = PartitionLanding(tmp_path, "intent-features", 0, REPEAT_HOURS)
    second = PartitionLanding(tmp_path, "intent-features", 0, REPEAT_HOURS)
    other = PartitionLanding(tmp_path, "intent-features", 1, REPEAT_HOURS)
    assert (first.own(), first.own(), second.own(), other.own()) == (True, True, False, True)
    first.close()
    assert second.own()


def test_the_next_owner_knows_what_the_one_before_has_landed(tmp_path: Path) -> None:
    first = PartitionLanding(tmp_path, "intent-features", 0, REPEAT_HOURS)
    second = PartitionLanding(tmp_path, "intent-features", 0, REPEAT_HOURS)
    topic = records([sample(sequence_no=n) for n in range(1, 5)])
    assert second.own()
    second.land(topic[:1])
    second.close()
    assert first.own()
    first.land(topic[:3])
    first.close()
    assert second.own()
    second.land(topic)
    assert numbers(tmp_path) == [1, 2, 3, 4]
