"""Rows as the sink lands and merges them, and requests for them, as many as one likes.

A row has every feature of `profile_intent` at the widths of a served model: two embeddings of 64
floats, 20 next titles, all heads; a kilobyte of values. They are taken from a pool of `POOL` rows,
so that compression makes files that fit a disk; who reads them has all of the values to decode.
Profiles, times, numbers and ids are each row's own. In a hundred one is late: the fence refused it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.definitions import intent_features, title_profiles
from features.offline.landing import SCHEMA, landed, write_all
from features.online.titles import title_rows
from stream.domain.feature_row import IntentRow
from stream.domain.heads import HEADS
from stream.taxonomy import GENRES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

POOL: Final = 512
DAYS: Final = 30
PARTITIONS: Final = 4
TITLES: Final = 20_000
WIDTH: Final = 64
VERSION: Final = "7"
BYTES: Final = 1_350
"""A row's values in memory."""

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_START_US: Final = round(_START.timestamp() * 1e6)
_DAY_US: Final = 86_400_000_000


def profiles(rows: int) -> int:
    """How many profiles there are: a hundred rows of each."""
    return max(rows // 100, 1)


def land(folder: Path, rows: int) -> int:
    """Write rows of 30 days, in the layout that the sink's files have after they were merged.

    Args:
        folder: What `INTENT_OFFLINE_DIR` is to name.
        rows: About how many.

    Returns:
        How many there are: as many in each file.
    """
    pool = _pool()
    each = rows // (DAYS * PARTITIONS)
    for day in range(DAYS):
        for partition in range(PARTITIONS):
            seed = np.random.default_rng([day, partition])
            table = _day(pool, seed, day, partition, each, profiles(rows))
            date, first = _START + timedelta(days=day), day * each
            write_all(
                [table],
                SCHEMA,
                folder / intent_features.path / f"date={date:%Y-%m-%d}",
                f"intent-features@{partition}-{first:012d}-{first + each - 1:012d}.parquet",
            )
    return each * DAYS * PARTITIONS


def _day(
    pool: pa.Table, seed: np.random.Generator, day: int, partition: int, rows: int, members: int
) -> pa.Table:
    created = np.sort(seed.integers(0, _DAY_US // 1000, rows)) * 1000 + _START_US + day * _DAY_US
    lag = seed.integers(5_000, 400_000, rows) // 1000 * 1000
    lag[seed.random(rows) < 0.01] += 6 * 3_600_000_000
    event = created - lag
    # A profile's rows lie in one partition, and their numbers grow.
    member = seed.integers(0, max(members // PARTITIONS, 1), rows) * PARTITIONS + partition
    number = np.arange(rows) + day * rows
    table = pool.take(pa.array(seed.integers(0, POOL, rows)))
    own = {
        "profile_id": _ids("member-", member, 8),
        "sequence_no": pa.array(number),
        "session_id": _ids("session-", number // 4, 10),
        "last_event_id": _ids(f"event-{partition}-", number, 20),
        "last_event_at": _times(event // 1_000_000 * 1_000_000),
        "published_at": _times(created // 1_000_000 * 1_000_000),
        "event_timestamp": _times(event),
        "created_timestamp": _times(created),
    }
    for name, values in own.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, values.cast(SCHEMA.field(name).type))
    return table


def ask(file: Path, requests: int, rows: int) -> None:
    """Write requests: a profile, a title and a moment each; one in a hundred knows nobody."""
    seed = np.random.default_rng(1)
    at = seed.integers(0, DAYS * _DAY_US, requests) + _START_US
    member = seed.integers(0, round(profiles(rows) * 1.01) + 1, requests)
    columns = {
        "profile_id": _ids("member-", member, 8),
        "title_id": _ids("title-", seed.integers(0, TITLES, requests), 6),
        "event_timestamp": _times(at),
    }
    pq.write_table(pa.table(columns), file, row_group_size=100_000)


def land_titles(folder: Path) -> None:
    """Write what is known of the titles, and their vectors."""
    seed = np.random.default_rng(2)
    names = _ids("title-", np.arange(TITLES), 6)
    genres = [list(seed.choice(GENRES, seed.integers(1, 5), replace=False)) for _ in range(TITLES)]
    catalogue = pa.table(
        {
            "title_id": names,
            "genres": genres,
            "kind": seed.choice(["movie", "show"], TITLES),
            "release_day": pa.array(seed.integers(0, 20_000, TITLES), pa.int32()),
        }
    )
    vectors = dict(zip(names.to_pylist(), seed.normal(size=(TITLES, WIDTH)).tolist(), strict=True))
    table = title_rows(catalogue, vectors, VERSION, _START, _START)
    path = folder / title_profiles.path / "titles.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)


def _pool() -> pa.Table:
    seed = np.random.default_rng(0)

    def probabilities(count: int) -> list[float]:
        values: list[float] = seed.dirichlet(np.ones(count)).tolist()
        return values

    return landed(
        [
            IntentRow(
                profile_id="",
                probs={head.name: probabilities(len(head.labels)) for head in HEADS},
                labels={head.name: str(seed.choice(head.labels)) for head in HEADS},
                intent_attention=probabilities(len(HEADS)),
                intent_embedding=seed.normal(size=WIDTH).tolist(),
                next_title_ids=[f"title-{n:06d}" for n in seed.integers(0, TITLES, 20)],
                next_title_scores=sorted(probabilities(20), reverse=True),
                title_log_norm=9.5,
                user_embedding=seed.normal(size=WIDTH).tolist(),
                session_id="",
                session_length=3,
                intent_cluster=5,
                model_version=VERSION,
                sequence_no=1,
                last_event_id="",
                last_event_at_ms=0,
                published_at_ms=0,
            )
            for _ in range(POOL)
        ]
    )


def _ids(prefix: str, numbers: NDArray[np.int64], digits: int) -> pa.Array:
    texts = pa.array(numbers).cast(pa.string())
    padded = pc.utf8_lpad(texts, digits, padding="0")
    return pc.binary_join_element_wise(prefix, padded, "")


def _times(microseconds: NDArray[np.int64]) -> pa.Array:
    return pa.array(microseconds).cast(pa.timestamp("us", tz="UTC"))
