"""Reads live intents of many profiles at once, typed: through Feast's SDK or its feature server.

Feast answers for a profile without features as if they were present and null, and ignores a view's
time to live online. Here every profile gets a verdict: fresh, stale or absent.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import httpx
import numpy as np
from feast.types import Array, Float32, Int64, String, UnixTimestamp

from features.definitions import model, model_labels, profile, profile_intent, ranker_v1
from features.online.answers import typed_errors
from features.online.encoding import row_field
from features.registry.registered import REMEDY, Needed
from features.registry.store import open_store
from stream.domain import rfc3339
from stream.domain.feature_row import PUBLISHED, IntentRow
from stream.domain.heads import HEADS, INTENTS
from stream.domain.version_labels import BUILT_IN
from stream.exceptions import (
    DefinitionsError,
    LabelsError,
    StoreRefusedError,
    StoreUnavailableError,
    TooManyProfilesError,
)
from stream.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureStore
    from feast.online_response import OnlineResponse
    from feast.protos.feast.types.Value_pb2 import Value

MAX_PROFILES: Final = 1_000
"""Profiles of one read at most."""

_ANCHOR: Final = "sequence_no"
"""Every row has it, and its event time is the row's."""


class Freshness(StrEnum):
    """What a reader may make of a profile's features."""

    FRESH = "fresh"
    """The newest event is recent: the intent is live."""
    STALE = "stale"
    """There are features, but of a session that has ended."""
    ABSENT = "absent"
    """There are none: the profile is unknown, or its features expired, or it was erased."""


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


class _Judge:
    """Makes typed, judged intents of columns that were read.

    Args:
        fresh_for_s: Age, in seconds, up to which features count as fresh.
        clock: Unix time in seconds.
    """

    def __init__(self, fresh_for_s: float, clock: Callable[[], float]) -> None:
        self._fresh_for_ms = fresh_for_s * 1000
        self._clock = clock

    def intents(
        self,
        profile_ids: Sequence[str],
        columns: dict[str, list[Any]],
        events_ms: Sequence[int],
        present: Sequence[bool],
    ) -> list[LiveIntent]:
        """The profiles' intents in their order; `columns` by the names in `PUBLISHED`."""
        columns |= {"profile_id": list(profile_ids), "last_event_at_ms": list(events_ms)}
        rows = (
            IntentRow.of(dict(zip(PUBLISHED, values, strict=True)))
            for values in zip(*(columns[name] for name in PUBLISHED), strict=True)
        )
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


class IntentReader:
    """Reads `profile_intent` from the online store, from threads or from an event loop.

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
            DefinitionsError: when the registry lacks this release's definitions or can't be read.
        """
        self._store: FeatureStore = open_store(settings)
        self._online_store = self._store.provider.online_store
        self._needed = Needed(self._store, ranker_v1, [profile_intent])
        self._needed.check()
        self._service = self._store.get_feature_service(ranker_v1.name)
        self._judge = _Judge(settings.session_gap_s if fresh_for_s is None else fresh_for_s, clock)
        self._labels: dict[str, Mapping[str, Sequence[str]]] = {}

    def read(self, profile_ids: Sequence[str]) -> list[LiveIntent]:
        """The profiles' intents, in the order asked for; one round trip to the store.

        Raises:
            TooManyProfilesError: for more than `MAX_PROFILES`.
            StoreUnavailableError: when the store can't be read now.
            StoreRefusedError: when the store answers with an error that needs an operator.
            DefinitionsError: when another release has replaced the registry's definitions.
        """
        if not _checked(profile_ids):
            return []
        with self._needed.told(), typed_errors(self._online_store):
            response = self._store.get_online_features(self._service, _entities(profile_ids))
            return self._intents(profile_ids, response)

    async def read_async(self, profile_ids: Sequence[str]) -> list[LiveIntent]:
        """Like `read`, without blocking the event loop."""
        if not _checked(profile_ids):
            return []
        if not self._online_store.async_supported.read:
            return await asyncio.to_thread(self.read, profile_ids)
        with self._needed.told(), typed_errors(self._online_store):
            response = await self._store.get_online_features_async(
                self._service, _entities(profile_ids)
            )
            return self._intents(profile_ids, response)

    def labels_of(self, row: IntentRow) -> Mapping[str, Sequence[str]]:
        """What the numbers in a row's probabilities mean: labels by the head's name, in order.

        They are read once for each model version, and kept.

        Raises:
            LabelsError: when nobody published the labels of the row's version to this store.
            StoreUnavailableError, StoreRefusedError, DefinitionsError: as `read`.
        """
        if row.labels_id == BUILT_IN.id:
            return _BUILT_IN_LABELS
        if row.model_version not in self._labels:
            with self._needed.told(), typed_errors(self._online_store):
                found = self._store.get_online_features(
                    [f"{model_labels.name}:{name}_labels" for name in INTENTS],
                    {model.join_key: [row.model_version]},
                ).to_dict()
            labels = {name: found[f"{name}_labels"][0] for name in INTENTS}
            if None in labels.values():
                raise LabelsError(
                    f"the store has no labels of model version {row.model_version}; publish it by "
                    "`intentstream model publish`, which writes them"
                )
            self._labels[row.model_version] = labels
        return self._labels[row.model_version]

    async def close(self) -> None:
        """Close the connections that `read_async` opened."""
        await self._store.close()

    def _intents(self, profile_ids: Sequence[str], response: OnlineResponse) -> list[LiveIntent]:
        proto = response.proto
        vectors = dict(zip(proto.metadata.feature_names.val, proto.results, strict=True))
        columns = {
            row_field(feature): list(map(_DECODERS[feature.dtype], vectors[feature.name].values))
            for feature in profile_intent.features
        }
        anchor = vectors[_ANCHOR]
        events_ms = [time.ToMilliseconds() for time in anchor.event_timestamps]
        present = [value.HasField("val") for value in anchor.values]
        return self._judge.intents(profile_ids, columns, events_ms, present)


class HttpIntentReader:
    """Reads `profile_intent` from Feast's feature server (`feast serve`), with the same answers.

    Needs neither the store's address nor its password. One reader serves either threads or one
    event loop.
    """

    def __init__(
        self,
        url: str,
        fresh_for_s: float | None = None,
        clock: Callable[[], float] = time.time,
        timeout_s: float = 5.0,
    ) -> None:
        """Open nothing yet.

        Args:
            url: The server's address, such as http://127.0.0.1:6566.
            fresh_for_s: See `IntentReader`; by default 30 minutes.
            clock: Unix time in seconds.
            timeout_s: Of one read.
        """
        gap_s = Settings.model_fields["session_gap_s"].default
        self._judge = _Judge(gap_s if fresh_for_s is None else fresh_for_s, clock)
        self._url = url
        self._client = httpx.Client(base_url=url, timeout=timeout_s)
        self._client_async = httpx.AsyncClient(base_url=url, timeout=timeout_s)

    def read(self, profile_ids: Sequence[str]) -> list[LiveIntent]:
        """The profiles' intents, in the order asked for. See `IntentReader.read`."""
        if not _checked(profile_ids):
            return []
        with self._typed_errors():
            answer = self._client.post(_PATH, json=_request(profile_ids)).raise_for_status()
            return self._intents(profile_ids, answer.json())

    async def read_async(self, profile_ids: Sequence[str]) -> list[LiveIntent]:
        """Like `read`, without blocking the event loop."""
        if not _checked(profile_ids):
            return []
        with self._typed_errors():
            answer = await self._client_async.post(_PATH, json=_request(profile_ids))
            answer.raise_for_status()
            return self._intents(profile_ids, answer.json())

    async def close(self) -> None:
        """Close all connections."""
        self._client.close()
        await self._client_async.aclose()

    def _intents(self, profile_ids: Sequence[str], answer: dict[str, Any]) -> list[LiveIntent]:
        vectors = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))
        columns = {
            row_field(feature): [
                None if value is None else _JSON_DECODERS.get(feature.dtype, _same)(value)
                for value in vectors[feature.name]["values"]
            ]
            for feature in profile_intent.features
        }
        anchor = vectors[_ANCHOR]
        events_ms = [self._event_ms(time) for time in anchor["event_timestamps"]]
        present = [value is not None for value in anchor["values"]]
        return self._judge.intents(profile_ids, columns, events_ms, present)

    def _event_ms(self, time: str) -> int:
        try:
            return rfc3339.unix_ms(time)
        except ValueError as error:
            raise StoreRefusedError(
                f"The feature server at {self._url} dated a row {time!r}: {error}. Check that its "
                "Feast is of the version that this release is built with (constraints.txt)."
            ) from error

    @contextmanager
    def _typed_errors(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            told = f"{error.response.status_code}: {error.response.text[:500]}"
            if error.response.is_server_error:
                raise StoreUnavailableError(
                    f"The feature server at {self._url} can't read its store ({told}). See its log."
                ) from error
            raise StoreRefusedError(
                f"The feature server at {self._url} refused a read ({told}). Check that the "
                "definitions that it serves are this release's (`intentstream features apply`)."
            ) from error
        except (LookupError, ValueError, TypeError) as error:
            raise DefinitionsError(
                f"The answer of {self._url} is not that of a feature server with the definitions "
                f"of this release ({error!r}). {REMEDY}"
            ) from error
        except httpx.TransportError as error:
            raise StoreUnavailableError(
                f"The feature server at {self._url} did not answer ({error!r}). Check that "
                "`feast serve` runs there."
            ) from error


_BUILT_IN_LABELS: Final = {head.name: BUILT_IN.of_head(head) for head in HEADS}

_PATH: Final = "/get-online-features"


def _checked(profile_ids: Sequence[str]) -> int:
    if len(profile_ids) > MAX_PROFILES:
        raise TooManyProfilesError(
            f"{len(profile_ids):,} profiles in one read; ask for {MAX_PROFILES:,} at most at once."
        )
    return len(profile_ids)


def _entities(profile_ids: Sequence[str]) -> dict[str, list[str]]:
    return {profile.join_key: list(profile_ids)}


def _request(profile_ids: Sequence[str]) -> dict[str, Any]:
    return {"feature_service": ranker_v1.name, "entities": _entities(profile_ids)}


def _same(value: Any) -> Any:
    return value


_DECODERS: Final[dict[Any, Callable[[Value], Any]]] = {
    String: attrgetter("string_val"),
    Int64: attrgetter("int64_val"),
    UnixTimestamp: lambda value: value.unix_timestamp_val * 1000,
    Float32: attrgetter("float_val"),
    Array(Float32): lambda value: list(value.float_list_val.val),
    Array(String): lambda value: list(value.string_list_val.val),
}

_JSON_DECODERS: Final[dict[Any, Callable[[Any], Any]]] = {
    UnixTimestamp: lambda seconds: seconds * 1000,
    # The server writes as many digits as tell one float32 from the next.
    Float32: lambda number: float(np.float32(number)),
    Array(Float32): lambda numbers: np.array(numbers, np.float32).tolist(),
}
