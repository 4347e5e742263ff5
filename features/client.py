"""Reads live intents of many profiles at once, typed, through Feast's own SDK.

Feast answers for a profile without features as if they were present and null, and ignores a view's
time to live online. Here every profile gets a verdict: fresh, stale or absent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from feast.types import Array, Float32, Int64, String, UnixTimestamp

from features.definitions import profile, profile_intent, ranker_v1
from features.encoding import row_attribute
from features.rows import IntentRow
from features.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feast import FeatureStore
    from feast.online_response import OnlineResponse
    from feast.protos.feast.types.Value_pb2 import Value

    from stream.settings import Settings


class Freshness(StrEnum):
    """What a reader may make of a profile's features."""

    FRESH = "fresh"
    """The newest event is recent: the intent is live."""
    STALE = "stale"
    """There are features, but of a session that has ended."""
    ABSENT = "absent"
    """There are no features: an unknown profile, or one whose features have expired."""


@dataclass(frozen=True, slots=True)
class LiveIntent:
    """What is known of one profile at the time of reading.

    Attributes:
        profile_id: The profile that was asked for.
        freshness: The verdict.
        age_ms: Milliseconds since the newest event in the features, by the reader's clock, never
            negative; None where absent.
        row: The features; None where absent. Online `published_at_ms` has whole seconds only.
    """

    profile_id: str
    freshness: Freshness
    age_ms: int | None
    row: IntentRow | None

    @property
    def model_version(self) -> str | None:
        """The model version that made the features; None where absent."""
        return self.row.model_version if self.row else None


class IntentReader:
    """Reads `profile_intent` for batches of profiles, from threads or from an event loop.

    One reader serves either threads or one event loop: its connections belong to that loop.
    """

    def __init__(
        self,
        settings: Settings,
        fresh_for_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open the store; the definitions have to be registered already.

        Args:
            settings: Where the store is.
            fresh_for_s: Age, in seconds, up to which features count as fresh; by default the idle
                time that ends a session.
            clock: Unix time in seconds.

        Raises:
            feast.errors.FeatureServiceNotFoundException: when nothing was registered; run
                `feast apply` in `features/` or start a worker first.
        """
        self._store: FeatureStore = open_store(settings)
        self._service = self._store.get_feature_service(ranker_v1.name)
        self._fresh_for_ms = (settings.session_gap_s if fresh_for_s is None else fresh_for_s) * 1000
        self._clock = clock

    def read(self, profile_ids: Sequence[str]) -> list[LiveIntent]:
        """The profiles' intents, in the order asked for; one round trip to the store."""
        if not profile_ids:
            return []
        response = self._store.get_online_features(
            self._service, {profile.join_key: list(profile_ids)}
        )
        return self._intents(profile_ids, response)

    async def read_async(self, profile_ids: Sequence[str]) -> list[LiveIntent]:
        """Like `read`, without blocking the event loop; Redis only."""
        if not profile_ids:
            return []
        response = await self._store.get_online_features_async(
            self._service, {profile.join_key: list(profile_ids)}
        )
        return self._intents(profile_ids, response)

    async def close(self) -> None:
        """Close the connections that `read_async` opened."""
        await self._store.close()

    def _intents(self, profile_ids: Sequence[str], response: OnlineResponse) -> list[LiveIntent]:
        proto = response.proto
        vectors = dict(zip(proto.metadata.feature_names.val, proto.results, strict=True))
        anchor = vectors["sequence_no"]  # every row has one, and any feature has the event times
        present = [value.HasField("val") for value in anchor.values]
        columns = {
            row_attribute(feature): list(
                map(_DECODERS[feature.dtype], vectors[feature.name].values)
            )
            for feature in profile_intent.features
        }
        columns["profile_id"] = list(profile_ids)
        columns["last_event_at_ms"] = [time.ToMilliseconds() for time in anchor.event_timestamps]
        rows = map(IntentRow, *(columns[field.name] for field in fields(IntentRow)))
        now_ms = int(self._clock() * 1000)
        return [
            self._verdict(row, now_ms)
            if is_present
            else LiveIntent(row.profile_id, Freshness.ABSENT, None, None)
            for row, is_present in zip(rows, present, strict=True)
        ]

    def _verdict(self, row: IntentRow, now_ms: int) -> LiveIntent:
        age_ms = max(0, now_ms - row.last_event_at_ms)
        freshness = Freshness.FRESH if age_ms <= self._fresh_for_ms else Freshness.STALE
        return LiveIntent(row.profile_id, freshness, age_ms, row)


_DECODERS: Final[dict[Any, Callable[[Value], Any]]] = {
    String: attrgetter("string_val"),
    Int64: attrgetter("int64_val"),
    UnixTimestamp: lambda value: value.unix_timestamp_val * 1000,
    Array(Float32): lambda value: list(value.float_list_val.val),
    Array(String): lambda value: list(value.string_list_val.val),
}
