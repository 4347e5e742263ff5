"""A Redis online store for Feast that never lets older features replace newer ones.

Feast's own store reads the stored timestamp, compares in Python and then writes: two round trips
with a race between them. This one compares and writes in one script on the server
(`features.online.fenced_writes`), so rows of either store can be read, replaced and fenced by the
other. The worker and our readers use Redis without it, and without Feast. It is for who comes by
Feast: configure it by class path in `feature_store.yaml`:

    online_store:
      type: features.online.fenced_redis.FencedRedisOnlineStore
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from feast import utils
from feast.infra.online_stores.helpers import _redis_key, compute_versioned_name
from feast.infra.online_stores.redis import (
    RedisOnlineStore,
    RedisOnlineStoreConfig,
    RedisType,
)
from feast.metrics import track_feature_statuses
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import Int64
from pydantic import Field, NonNegativeInt, StrictStr

from features.definitions import profile_intent, title_profile
from features.online.answers import known_meaning
from features.online.encoding import timestamp, varint
from features.online.fence import FencedOnlineStore
from features.online.fenced_writes import (
    SEQUENCE_FEATURE,
    ViewFence,
    without_errors,
    write,
    write_async,
    write_intents,
)
from features.online.redis_client import RedisAddress, RedisClients, parse
from features.online.redis_rows import (
    FencedRow,
    feature_field,
    hash_entry,
    hash_fields,
    hash_name,
    timestamp_field,
)
from features.online.row_encoding import RowEncoder
from stream.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from feast import FeatureView, RepoConfig
    from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
    from feast.protos.feast.types.Value_pb2 import Value

    from features.online.answers import Meaning
    from features.online.feast_rows import FeastRow
    from stream.domain.feature_row import Erasure, IntentRow
    from stream.settings import Settings

    GroupedRefs = Sequence[tuple[FeatureView, list[str]]]
    JoinKeyValues = Mapping[str, Sequence[Value]]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class FencedRedisOnlineStoreConfig(RedisOnlineStoreConfig):  # type: ignore[misc]
    """Feast's Redis configuration; where the server is defaults to the settings."""

    type: Literal["features.online.fenced_redis.FencedRedisOnlineStore"] = (
        "features.online.fenced_redis.FencedRedisOnlineStore"
    )
    redis_type: RedisType = Field(default_factory=lambda: RedisType(settings().redis_type))
    sentinel_master: StrictStr = Field(default_factory=lambda: settings().redis_sentinel_master)
    connection_string: StrictStr = Field(
        default_factory=lambda: settings().redis_url.get_secret_value(), repr=False
    )
    skip_dedup: Literal[False] = False
    """Writes are always fenced."""
    view_ttl_seconds: dict[str, NonNegativeInt] = Field(
        default_factory=lambda: view_ttls(settings())
    )
    """Time to live by view, from the last write on; 0 is none. A view that is not named has
    `key_ttl_seconds`. Views of one entity share a key and should have the same."""

    @property
    def address(self) -> RedisAddress:
        """Where the server is."""
        return RedisAddress(self.connection_string, self.redis_type.value, self.sentinel_master)


def view_ttls(config: Settings) -> dict[str, int]:
    """The times to live of our views, in seconds."""
    return {profile_intent.name: config.feature_ttl_s, title_profile.name: config.title_ttl_s}


class _Read(NamedTuple):
    """The fields of one view that one request reads."""

    view: FeatureView
    features: list[str]
    keys: list[bytes]
    fields: list[bytes]
    """Hash fields of `features`, then the one of the event timestamp."""
    order: list[int]
    """For each row of the answer the index of its key: a profile asked for twice is read once."""


class FencedRedisOnlineStore(FencedOnlineStore, RedisOnlineStore):  # type: ignore[misc]
    """Feast's Redis online store with an atomic compare-and-write.

    Reads, deletion, connection handling and the stored bytes are Feast's. Writing one row of an
    older event time, or of the same time and a lower `sequence_no`, changes nothing.
    """

    _clients: RedisClients | None = None

    def _get_client(self, online_store_config: FencedRedisOnlineStoreConfig) -> Any:
        return self._clients_of(online_store_config).blocking

    async def _get_client_async(self, online_store_config: FencedRedisOnlineStoreConfig) -> Any:
        return self._clients_of(online_store_config).asynchronous

    def _clients_of(self, online_store_config: FencedRedisOnlineStoreConfig) -> RedisClients:
        if self._clients is None:
            self._clients = RedisClients(online_store_config.address)
        return self._clients

    @staticmethod
    def _parse_connection_string(
        connection_string: str,
    ) -> tuple[list[dict[str, str]], dict[str, Any]]:
        return parse(connection_string)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows in one round trip; the stale ones are left out. See the base class."""
        client = self._get_client(config.online_store)
        write(client, _fence(config, table), _fenced_rows(config, table, data))
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows in one round trip; the stale ones are left out. See the base class."""
        client = await self._get_client_async(config.online_store)
        await write_async(client, _fence(config, table), _fenced_rows(config, table, data))
        if progress:
            progress(len(data))

    async def write_intents(self, config: RepoConfig, rows: Sequence[IntentRow]) -> int:
        """Write rows of `profile_intent`. See the base class."""
        client = await self._get_client_async(config.online_store)
        fence = _fence(config, profile_intent)
        return await write_intents(client, fence, _row_encoder(config.project), rows)

    async def erase_intents(
        self, config: RepoConfig, erasures: Mapping[str, Erasure], ahead_ms: int
    ) -> None:
        """Empty the features of profiles in one round trip. See the base class."""
        encode = _row_encoder(config.project)
        rows = (encode.emptied(*one, ahead_ms) for one in erasures.items())
        client = await self._get_client_async(config.online_store)
        await write_async(client, _fence(config, profile_intent), rows)

    def meaning_of(self, error: Exception) -> Meaning | None:
        """What an error of Redis' client says. See the base class."""
        return known_meaning(error)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: GroupedRefs,
        join_key_values: JoinKeyValues,
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Add the features of all views to the response of `get_online_features`."""
        if include_feature_view_version_metadata:
            super()._read_features_per_fv(
                config,
                grouped_refs,
                join_key_values,
                entity_name_to_join_key_map,
                online_features_response,
                full_feature_names,
                include_feature_view_version_metadata,
            )
            return
        reads = self._reads(config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        commands = [(key, read.fields) for read in reads for key in read.keys]
        replies = self._read_hash_fields(config, commands) if commands else []
        _add_features(online_features_response, reads, replies, full_feature_names)

    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: GroupedRefs,
        join_key_values: JoinKeyValues,
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """Add the features of all views to the response of `get_online_features_async`."""
        if include_feature_view_version_metadata:
            await super()._read_features_per_fv_async(
                config,
                grouped_refs,
                join_key_values,
                entity_name_to_join_key_map,
                online_features_response,
                full_feature_names,
                include_feature_view_version_metadata,
            )
            return
        reads = self._reads(config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        pipe = (await self._get_client_async(config.online_store)).pipeline(transaction=False)
        for read in reads:
            for key in read.keys:
                pipe.hmget(key, read.fields)
        replies = without_errors(await pipe.execute(raise_on_error=False))
        _add_features(online_features_response, reads, replies, full_feature_names)

    def _reads(
        self,
        config: RepoConfig,
        grouped_refs: GroupedRefs,
        join_key_values: JoinKeyValues,
        entity_name_to_join_key_map: dict[str, str],
    ) -> list[_Read]:
        reads = []
        for table, features in grouped_refs:
            entities, places, length = utils._get_unique_entities(
                table, join_key_values, entity_name_to_join_key_map
            )
            order = [0] * length
            for entity, outputs in enumerate(places):
                for output in outputs:
                    order[output] = entity
            stored = compute_versioned_name(
                table, config.registry.enable_online_feature_view_versioning
            )
            reads.append(
                _Read(
                    view=table,
                    features=features,
                    keys=self._generate_redis_keys_for_entities(
                        config, utils._get_entity_key_protos(entities)
                    ),
                    fields=[
                        *(feature_field(stored, feature) for feature in features),
                        timestamp_field(stored),
                    ],
                    order=order,
                )
            )
        return reads

    async def close(self) -> None:
        """Close the connections of the asynchronous client."""
        if self._clients is not None:
            await self._clients.close()


def _fence(config: RepoConfig, table: FeatureView) -> ViewFence:
    store = config.online_store
    name = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
    return ViewFence.of(
        name,
        has_sequence=any(f.name == SEQUENCE_FEATURE and f.dtype == Int64 for f in table.features),
        ttl_s=store.view_ttl_seconds.get(table.name, store.key_ttl_seconds or 0),
        is_cluster=store.address.is_cluster,
    )


@cache
def _row_encoder(project: str) -> RowEncoder:
    return RowEncoder(project)


def _add_features(
    response: GetOnlineFeaturesResponse,
    reads: list[_Read],
    replies: Sequence[Sequence[bytes | None]],
    full_feature_names: bool,
) -> None:
    """Add what was read to the response, as Feast would.

    A stored value is already the serialized `Value` that the response holds, so a feature's whole
    vector is put together as bytes and parsed once. Feast parses, and copies, every value.
    """
    start = 0
    for read in reads:
        rows = replies[start : start + len(read.keys)]
        start += len(read.keys)
        *columns, times = zip(*rows, strict=True) if rows else [()] * len(read.fields)
        prefix = f"{read.view.projection.name_to_use()}__" if full_feature_names else ""
        response.metadata.feature_names.val.extend(prefix + name for name in read.features)
        length = len(read.order)
        tail = b"\x12" + varint(length) + bytes([FieldStatus.PRESENT]) * length
        tail += _repeated(b"\x1a", times, read.order)
        for column in columns:
            response.results.add().MergeFromString(_repeated(b"\n", column, read.order) + tail)
        track_feature_statuses(read.view.name, length * len(read.features), 0)


def _repeated(tag: bytes, column: Sequence[bytes | None], order: list[int]) -> bytes:
    """A repeated protobuf field of the serialized messages `column`, in the order given."""
    messages = [tag + varint(len(raw)) + raw for raw in (cell or b"" for cell in column)]
    return b"".join([messages[row] for row in order])


def _fenced_rows(
    config: RepoConfig, table: FeatureView, data: Iterable[FeastRow]
) -> Iterator[FencedRow]:
    """Feast's rows in the form that the script takes."""
    name = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
    for entity_key, values, event_time, _ in data:
        micros = (utils.make_tzaware(event_time) - _EPOCH) // timedelta(microseconds=1)
        entries = [hash_entry(hash_name(timestamp_field(name)), timestamp(micros))]
        entries += [
            hash_entry(hash_name(feature_field(name, feature)), value.SerializeToString())
            for feature, value in values.items()
        ]
        sequence = values.get(SEQUENCE_FEATURE)
        yield FencedRow(
            key=_redis_key(config.project, entity_key, config.entity_key_serialization_version),
            micros=b"%d" % micros,
            sequence=b"%d" % sequence.int64_val
            if sequence and sequence.HasField("int64_val")
            else b"",
            fields=hash_fields(len(entries), entries),
        )
