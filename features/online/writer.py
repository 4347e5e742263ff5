"""Publishes intent rows to the online store, fenced and in batches.

Rows go past Feast's protobuf objects straight into the bytes that Feast's Redis layout holds, and
from there through `FencedRedisOnlineStore`. `FeatureStore.push` would build a data frame per call.
"""

from __future__ import annotations

import asyncio
import struct
from datetime import UTC, datetime
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.types import Array, Float32

from features.definitions import profile, profile_intent
from features.online.answers import typed_errors
from features.online.encoding import (
    ENCODERS,
    StringKeys,
    float_list_value,
    row_attribute,
    timestamp,
)
from features.online.fenced_redis import (
    FencedRedisOnlineStore,
    FencedRow,
    feature_field,
    hash_entry,
    hash_fields,
    hash_name,
    timestamp_field,
)
from features.registry.store import apply
from stream.exceptions import NotStartedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from feast import FeatureStore, Field

    from stream.domain.feature_row import Erasure, IntentRow
    from stream.settings import Settings

ROWS_PER_TRIP: Final = 256
"""Rows of one round trip. The event loop is held for their encoding, some 5 ms, and no longer."""

_SELDOM_REPEATED: Final = (
    "next_title_ids",
    "title_log_norm",
    "session_id",
    "sequence_no",
    "last_event_id",
)
"""Features of which keeping encoded values would cost more than it saves."""


class RowEncoder:
    """Encodes rows of the view `profile_intent` for `FencedRedisOnlineStore.write_rows`.

    Encoding is most of what a row costs its writer. So entries of values that come again in row
    after row (labels, versions, whole seconds) are kept, and all float lists of a row are packed by
    one call, around the bytes between them, which depend on the lists' lengths alone.
    """

    def __init__(self, project: str) -> None:
        view = profile_intent.name
        lists = [one for one in profile_intent.features if one.dtype == Array(Float32)]
        others = [one for one in profile_intent.features if one.dtype != Array(Float32)]
        self._key = StringKeys(profile.join_key, project)
        self._time = hash_name(timestamp_field(view))
        self._lists = attrgetter(*map(row_attribute, lists))
        self._list_names = [hash_name(feature_field(view, one.name)) for one in lists]
        self._packers: dict[tuple[int, ...], tuple[list[bytes], Callable[..., bytes]]] = {}
        self._values = attrgetter(*map(row_attribute, others))
        self._entries = [_entry_encoder(view, one) for one in others]
        self._count = 1 + len(profile_intent.features)

    def __call__(self, row: IntentRow) -> FencedRow:
        """The row's key, its place in the fence's order and its hash fields."""
        entries = [hash_entry(self._time, timestamp(row.last_event_at_ms * 1000))]
        entries += [
            entry(value) for entry, value in zip(self._entries, self._values(row), strict=True)
        ]
        entries.append(self._float_entries(self._lists(row)))
        return FencedRow(
            key=self._key(row.profile_id),
            micros=b"%d000" % row.last_event_at_ms,
            sequence=b"%d" % row.sequence_no,
            fields=hash_fields(self._count, entries),
        )

    def _float_entries(self, lists: tuple[list[float], ...]) -> bytes:
        lengths = tuple(map(len, lists))
        if lengths not in self._packers:
            self._packers[lengths] = self._packer(lengths)
        heads, pack = self._packers[lengths]
        arguments: list[bytes | float] = []
        for head, numbers in zip(heads, lists, strict=True):
            arguments.append(head)
            arguments += numbers
        return pack(*arguments)

    def _packer(self, lengths: tuple[int, ...]) -> tuple[list[bytes], Callable[..., bytes]]:
        """The bytes ahead of each list of floats, and what packs them and the floats in turn."""
        heads = []
        for name, length in zip(self._list_names, lengths, strict=True):
            entry = hash_entry(name, float_list_value([0.0] * length))
            heads.append(entry[: len(entry) - 4 * length])
        layout = (f"{len(head)}s{length}f" for head, length in zip(heads, lengths, strict=True))
        return heads, struct.Struct("<" + "".join(layout)).pack

    def emptied(self, profile_id: str, erasure: Erasure, ahead_ms: int) -> FencedRow:
        """What takes the place of all that was written of a profile up to its erasure.

        Its features are null. Its time is that of the erasure, so that what was under way then is
        refused; it replaces what is as much newer as events' clocks may be ahead, and what came of
        events that were erased though they came later.
        """
        erased_at_ms, newest_ms = erasure
        return FencedRow(
            key=self._key(profile_id),
            micros=b"%d000" % max(erased_at_ms + ahead_ms, newest_ms),
            sequence=b"",
            fields=hash_fields(
                self._count,
                [
                    hash_entry(self._time, timestamp(erased_at_ms * 1000)),
                    *(
                        hash_entry(hash_name(feature_field(profile_intent.name, one.name)), b"")
                        for one in profile_intent.features
                    ),
                ],
            ),
        )


def _entry_encoder(view: str, feature: Field) -> Callable[[Any], bytes]:
    """What encodes a value of `feature` to its entry in the hash."""
    name, encode = hash_name(feature_field(view, feature.name)), ENCODERS[feature.dtype]

    def entry(value: Any) -> bytes:
        return hash_entry(name, encode(value))

    return entry if feature.name in _SELDOM_REPEATED else lru_cache(maxsize=4096)(entry)


def to_protos(
    row: IntentRow,
) -> tuple[EntityKey, dict[str, Value], datetime, datetime]:
    """The row as Feast's own `online_write_batch` takes it."""
    values = {
        feature.name: Value.FromString(
            ENCODERS[feature.dtype](attrgetter(row_attribute(feature))(row))
        )
        for feature in profile_intent.features
    }
    key = _entity_key(row.profile_id)
    return key, values, _datetime(row.last_event_at_ms), _datetime(row.published_at_ms)


def _entity_key(profile_id: str) -> EntityKey:
    return EntityKey(join_keys=[profile.join_key], entity_values=[Value(string_val=profile_id)])


def _datetime(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


class IntentWriter:
    """Writes rows of `profile_intent` to the online store of the settings.

    In Redis a row that is older than the stored one, by (`last_event_at_ms`, `sequence_no`), is
    refused, and an equal one overwrites. SQLite, the store of a first look, has one writer and no
    fence.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: FeatureStore | None = None

    async def start(self) -> None:
        """Register the feature definitions and get ready. Connects with the first write."""
        store = await asyncio.to_thread(apply, self._settings)
        self._encode = RowEncoder(store.project)
        self._store = store

    async def write(self, rows: Sequence[IntentRow]) -> int:
        """Write the rows. Where several are of one profile, the newest stays.

        Args:
            rows: Any number of rows; `ROWS_PER_TRIP` of them go in one round trip, and two trips
                are under way at once.

        Returns:
            How many rows were refused as stale.

        Raises:
            NotStartedError: before `start` and after `close`.
            StoreUnavailableError: when the store can't be written now. Write the same rows again;
                those that went in are not hurt by it.
            StoreRefusedError: when the store answers with an error that needs an operator.
        """
        store = self._store
        if store is None:
            raise NotStartedError("Call `start` before `write`.")
        online_store = store.provider.online_store
        with typed_errors():
            if not isinstance(online_store, FencedRedisOnlineStore):
                await asyncio.to_thread(self._write_protos, store, rows)
                return 0
            return await self._write_redis(store, online_store, rows)

    async def erase(self, erasures: Mapping[str, Erasure]) -> None:
        """Empty the features of profiles.

        They read as absent until something newer is written. In Redis what an event from before the
        erasure led to is refused from now on; features of an event that came more than
        `max_ahead_s` after it, and was not erased with the others, stay.

        Args:
            erasures: by profile id.

        Raises:
            NotStartedError, StoreUnavailableError, StoreRefusedError: as `write`.
        """
        store = self._store
        if store is None:
            raise NotStartedError("Call `start` before `erase`.")
        online_store = store.provider.online_store
        with typed_errors():
            if not isinstance(online_store, FencedRedisOnlineStore):
                await asyncio.to_thread(self._write_emptied, store, erasures)
                return
            ahead_ms = self._settings.max_ahead_s * 1000
            rows = [self._encode.emptied(*one, ahead_ms) for one in erasures.items()]
            await online_store.write_rows(store.config, profile_intent, rows)

    async def close(self) -> None:
        """Close the connections. The writer can be started again."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    async def _write_redis(
        self, store: FeatureStore, online_store: FencedRedisOnlineStore, rows: Sequence[IntentRow]
    ) -> int:
        # The second trip is encoded here while the server works on the first.
        slots = asyncio.Semaphore(2)

        async def trip(start: int) -> int:
            async with slots:
                encoded = map(self._encode, rows[start : start + ROWS_PER_TRIP])
                return await online_store.write_rows(store.config, profile_intent, encoded)

        trips = map(trip, range(0, len(rows), ROWS_PER_TRIP))
        refused = 0
        # All trips end before the first error is raised: none may write behind the caller's back.
        for result in await asyncio.gather(*trips, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            refused += result
        return refused

    @staticmethod
    def _write_protos(store: FeatureStore, rows: Sequence[IntentRow]) -> None:
        store.provider.online_write_batch(
            store.config, profile_intent, list(map(to_protos, rows)), None
        )

    @staticmethod
    def _write_emptied(store: FeatureStore, erasures: Mapping[str, Erasure]) -> None:
        nothing = {feature.name: Value() for feature in profile_intent.features}
        rows = [
            (_entity_key(profile_id), nothing, _datetime(one.at_ms), _datetime(one.at_ms))
            for profile_id, one in erasures.items()
        ]
        store.provider.online_write_batch(store.config, profile_intent, rows, None)
