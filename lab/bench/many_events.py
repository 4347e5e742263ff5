"""Events of a service, as many as one likes: members who search, open titles and watch them.

A visit is of one member and one title: perhaps a search, an impression, rarely a trailer, an
opening, and a sitting that reports itself every ten minutes, five to eleven events in all. Few
members visit often, and few titles are watched much. A third of the titles have episodes. Of each
500th visit of a day, the end is told the day after. All of it follows from numbers that are hashed
(DuckDB's `hash`), so the same days come out again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fm_intent.data.contract import CATALOGUE_FILE, CATALOGUE_SCHEMA, table
from fm_intent.data.event_files import EVENTS_FOLDER
from stream.domain.labels import GENRES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PROFILES: Final = 1_000_000
TITLES: Final = 50_000

_VISITS: Final = 0.1225
"""For an event: some more than are needed, as a day ends with its last event."""

_UNIFORM: Final = """
CREATE MACRO u(day, i, salt) AS
    (hash(day * 4611686018427 + i * 16 + salt) >> 11)::DOUBLE / 9007199254740992
"""

_DAY: Final = """
COPY (
    WITH visit AS (
        SELECT day, i, floor({profiles} * pow(u(day, i, 1), 2))::INT AS p,
            floor({titles} * pow(u(day, i, 2), 4))::INT AS t,
            (1767225600000 + day * 86400000
                + floor((i + u(day, i, 3)) * 82800000 / {visits}))::BIGINT AS began,
            u(day, i, 4) AS watched, 2 + floor(u(day, i, 5) * 5)::INT AS steps,
            u(day, i, 6) AS sought
        FROM (SELECT {day} AS day, i FROM range({visits}) r(i)
            UNION ALL SELECT {day} - 1, i FROM range(0, {visits}, 500) r(i) WHERE {day} > 0)
    ), step AS (SELECT *, unnest(range(-4, steps + 2)) AS s FROM visit)
    SELECT md5(concat(day, '/', i, '/', s)) AS event_id,
        'member-' || lpad(p::VARCHAR, 8, '0') AS profile_id,
        CASE WHEN s = -4 THEN 'search' WHEN s = -3 THEN 'impression'
            WHEN s = -2 THEN 'trailer_play' WHEN s = -1 THEN 'title_open'
            WHEN s = 0 THEN 'play_start' WHEN s <= steps THEN 'play_progress'
            WHEN watched > 0.6 THEN 'play_complete' ELSE 'play_stop' END AS event_type,
        began + s * CASE WHEN s < 0 THEN 20000 ELSE 600000 END AS occurred_at_ms,
        CASE WHEN s > -4 THEN 't' || t END AS title_id,
        CASE WHEN s >= 0 THEN md5(concat(day, '/', i)) END AS playback_id,
        CASE WHEN s > 0 THEN round(s * 600 * watched, 3) END AS watched_s,
        CASE WHEN s >= 0 THEN s * 600.0 END AS position_s,
        NULL::DOUBLE AS duration_s,
        CASE WHEN t % 3 = 0 AND s > -4 THEN 1 + t % 4 END::INT AS season,
        CASE WHEN t % 3 = 0 AND s > -4 THEN 1 + i % 10 END::INT AS episode,
        ['tv', 'tv', 'mobile', 'web'][1 + p % 4] AS device,
        ['DE', 'FR', 'US'][1 + p % 3] AS country,
        NULL::VARCHAR AS query
    FROM step
    WHERE NOT (s = -4 AND sought > 0.15) AND NOT (s = -2 AND sought < 0.95)
        AND (day = {day} OR s = steps + 1)
    LIMIT {events}
) TO '{path}' (FORMAT parquet, COMPRESSION zstd)
"""


def write_catalogue(folder: Path) -> None:
    """Write the titles that events are of, a file of the contract."""
    number = np.arange(TITLES)
    names = pa.array([f"t{one}" for one in number])
    seed = np.random.default_rng(0)
    columns = {
        "title_id": names,
        "name": names,
        "kind": pa.array(np.where(number % 3 == 0, "show", "movie")),
        "genres": pa.array([[GENRES[one % len(GENRES)]] for one in number]),
        "release_day": pa.array(seed.integers(0, 20_000, TITLES), pa.int32()),
        "duration_s": pa.array(seed.choice([2_700, 5_400, 7_200], TITLES), pa.float32()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(CATALOGUE_SCHEMA, columns), folder / CATALOGUE_FILE)


def write_days(folder: Path, days: Sequence[int], events: int) -> None:
    """Write days of events as `intentstream data import` lays them out.

    Args:
        folder: of the source.
        days: which, the first of all is 0, on January 1st 2026.
        events: of each day.
    """
    with duckdb.connect() as connection:
        spill = folder / ".spill"
        connection.execute(f"SET memory_limit = '1500MB'; SET temp_directory = '{spill}'")
        connection.execute(_UNIFORM)
        for day in days:
            path = folder / EVENTS_FOLDER / f"day={np.datetime64('2026-01-01') + day}"
            path.mkdir(parents=True)
            connection.execute(
                _DAY.format(
                    profiles=PROFILES,
                    titles=TITLES,
                    visits=round(events * _VISITS),
                    day=day,
                    events=events,
                    path=path / "0.parquet",
                )
            )
