"""Online stores for tests: one with a fence of its own, and what breaks the contract.

Each is named by a file that `configured` writes, as a user names theirs.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final, Literal

from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig

from features.definitions import profile_intent
from features.online.answers import known_meaning
from features.online.feast_rows import emptied, to_protos
from features.online.fence import FencedOnlineStore
from features.online.fenced_writes import SEQUENCE_FEATURE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from feast import FeatureView, RepoConfig

    from features.online.answers import Meaning
    from features.online.feast_rows import FeastRow
    from stream.domain.feature_row import Erasure, IntentRow

Place = tuple[int, int | None]
"""Microseconds of the event, and the sequence number where there is one."""

_PLACES: Final = """\
CREATE TABLE IF NOT EXISTS places (
  view TEXT, entity_key BLOB, micros INTEGER, sequence INTEGER, PRIMARY KEY (view, entity_key))"""


class FencedSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):  # type: ignore[misc]
    """Where the file is."""

    type: Literal["tests.online_stores.FencedSqliteOnlineStore"]


class FencedSqliteOnlineStore(FencedOnlineStore, SqliteOnlineStore):  # type: ignore[misc]
    """Feast's SQLite store with a fence.

    A transaction that begins as a writing one compares and writes: SQLite has one of these at a
    time. Feast's tables keep whole seconds, so a row's place is kept beside them.
    """

    def __init__(self) -> None:
        self._connection = threading.Lock()

    async def write_intents(self, config: RepoConfig, rows: Sequence[IntentRow]) -> int:
        write = self._compare_and_write
        return await asyncio.to_thread(write, config, profile_intent, list(map(to_protos, rows)))

    async def erase_intents(
        self, config: RepoConfig, erasures: Mapping[str, Erasure], ahead_ms: int
    ) -> None:
        rows = [emptied(*one) for one in erasures.items()]
        compared = [
            (1000 * max(one.at_ms + ahead_ms, one.newest_ms), None) for one in erasures.values()
        ]
        await asyncio.to_thread(self._compare_and_write, config, profile_intent, rows, compared)

    def meaning_of(self, error: Exception) -> Meaning | None:
        return known_meaning(error)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        self._compare_and_write(config, table, data)
        if progress:
            progress(len(data))

    async def close(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _compare_and_write(
        self,
        config: RepoConfig,
        view: FeatureView,
        rows: list[FeastRow],
        compared: Sequence[Place] | None = None,
    ) -> int:
        """Write rows, each unless a newer one is stored; how many were refused."""
        with self._connection, self._get_conn(config) as database:
            self._begin(database)
            database.execute(_PLACES)
            places = list(map(_place, rows))
            taken = []
            for row, place, bar in zip(rows, places, compared or places, strict=True):
                key = row[0].SerializeToString(deterministic=True)
                stored = database.execute(
                    "SELECT micros, sequence FROM places WHERE view = ? AND entity_key = ?",
                    (view.name, key),
                ).fetchone()
                if stored is not None and self._refuses(stored, bar):
                    continue
                taken.append(row)
                database.execute(
                    "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)", (view.name, key, *place)
                )
            # Feast's own write ends the transaction.
            super().online_write_batch(config, view, taken, None)
            return len(rows) - len(taken)

    def _begin(self, database: sqlite3.Connection) -> None:
        database.execute("BEGIN IMMEDIATE")

    def _refuses(self, stored: Place, compared: Place) -> bool:
        return is_older(compared, stored)


def is_older(one: Place, other: Place) -> bool:
    """Whether a place is before another in the fence's order."""
    if one[0] != other[0] or one[1] is None or other[1] is None:
        return one[0] < other[0]
    return one[1] < other[1]


def _place(row: FeastRow) -> Place:
    _, values, at, _ = row
    sequence = values.get(SEQUENCE_FEATURE)
    has_sequence = sequence is not None and sequence.HasField("int64_val")
    micros = round(at.timestamp() * 1_000_000)
    return micros, sequence.int64_val if sequence is not None and has_sequence else None


def configured(home: Path, kind: str, **options: str) -> str:
    """A file for `INTENT_ONLINE_STORE` that names an online store as `feature_store.yaml` does."""
    lines = [
        *("project: intentstream", "provider: local", "registry: data/registry.db"),
        *("entity_key_serialization_version: 3", "online_store:", f"  type: {kind}"),
        *(f"  {name}: {value}" for name, value in options.items()),
    ]
    path = home / "feature_store.yaml"
    path.write_text("\n".join(lines))
    return str(path)


class PlainSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):  # type: ignore[misc]
    """Where the file is."""

    type: Literal["tests.online_stores.PlainSqliteOnlineStore"]


class PlainSqliteOnlineStore(SqliteOnlineStore):  # type: ignore[misc]
    """Somebody's store that says nothing of a fence."""
