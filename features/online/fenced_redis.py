"""A Redis online store for Feast that never lets older features replace newer ones.

Feast's own store reads the stored timestamp, compares in Python and then writes: two round trips
with a race between them. This one compares and writes in one script on the server. The fence is
the event timestamp and, where the view has a feature `sequence_no`, that number at equal times.
Both are read back from the fields that Feast writes anyway, so the layout is Feast's own to the
byte and rows of either store can be read, replaced and fenced by the other.

The strictly older is refused and the equal overwrites: a row that a new model version scored again
must get in. Configure it by class path in `feature_store.yaml`:

    online_store:
      type: features.online.fenced_redis.FencedRedisOnlineStore
"""

from __future__ import annotations

import asyncio
import hashlib
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
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from features.definitions import profile_intent, title_profile
from features.online.answers import known_meaning
from features.online.encoding import timestamp, varint
from features.online.fence import SEQUENCE_FEATURE, FencedOnlineStore
from features.online.redis_rows import (
    FencedRow,
    RowEncoder,
    feature_field,
    hash_entry,
    hash_fields,
    hash_name,
    timestamp_field,
)
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

_ONE_RETRY: Final = Retry(NoBackoff(), retries=1)
_ONE_RETRY_ASYNC: Final = AsyncRetry(NoBackoff(), retries=1)

TIMEOUTS: Final = {"socket_connect_timeout": 2.0, "socket_timeout": 5.0}
"""Seconds; parameters of the connection string go before these."""

ROWS_PER_CALL: Final = 16
"""Rows of one script call: few enough that a reader never waits long behind a call."""

ROWS_PER_TRIP: Final = 256
"""Rows of one round trip. The event loop is held for their encoding, some 5 ms, and no longer."""

COMPARE_AND_WRITE: Final = b"""\
-- KEYS: one entity per row. ARGV: timestamp field, sequence field or '', time to live in seconds
-- or 0, then per row: event time in microseconds, sequence number or '', msgpack array of the
-- hash's fields and values. Answers with the number of rows that were refused as older.
local function varint(bytes, at)
  local last = at
  while string.byte(bytes, last) > 127 do
    last = last + 1
  end
  local negative = last - at == 9 -- ten bytes hold the two's complement of a negative number
  local value, scale = 0, 1
  for i = at, negative and last - 1 or last do
    local bits = string.byte(bytes, i) % 128
    value = value + (negative and 127 - bits or bits) * scale
    scale = scale * 128
  end
  return negative and -value - 1 or value, last + 1
end

local function micros(timestamp)
  local total, at = 0, 1
  while at <= #timestamp do
    local tag, value = string.byte(timestamp, at), nil
    value, at = varint(timestamp, at + 1)
    total = total + (tag == 8 and value * 1000000 or math.floor(value / 1000))
  end
  return total
end

local function is_newer(stored, sequence, time, new_sequence)
  local stored_time = micros(stored)
  if stored_time ~= time then
    return stored_time > time
  end
  return sequence and #sequence > 1 and new_sequence ~= ''
    and varint(sequence, 2) > tonumber(new_sequence)
end

local refused, ttl = 0, tonumber(ARGV[3])
for row, key in ipairs(KEYS) do
  local at = 3 * row + 1
  local stored = redis.call('HMGET', key, ARGV[1], ARGV[2])
  if stored[1] and is_newer(stored[1], stored[2], tonumber(ARGV[at]), ARGV[at + 1]) then
    refused = refused + 1
  else
    redis.call('HSET', key, unpack(cmsgpack.unpack(ARGV[at + 2])))
    if ttl > 0 then
      redis.call('EXPIRE', key, ttl)
    else
      redis.call('PERSIST', key) -- a time to live of earlier settings
    end
  end
end
return refused
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_SCRIPT_SHA: Final = hashlib.sha1(COMPARE_AND_WRITE, usedforsecurity=False).hexdigest().encode()


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

    _client_async: Any = None

    def _get_client(self, online_store_config: FencedRedisOnlineStoreConfig) -> Any:
        """Like `_get_client_async`, because Feast's own retries for seconds."""
        if self._client is None:
            super()._get_client(online_store_config).set_retry(_ONE_RETRY)
        return self._client

    async def _get_client_async(self, online_store_config: FencedRedisOnlineStoreConfig) -> Any:
        """Feast's client, which fails soon: callers decide how long they go on trying.

        One retry, at once, replaces a connection that a restarted server has closed.
        """
        if self._client_async is None:
            client = await super()._get_client_async(online_store_config)
            client.set_retry(_ONE_RETRY_ASYNC)
        return self._client_async

    @staticmethod
    def _parse_connection_string(
        connection_string: str,
    ) -> tuple[list[dict[str, str]], dict[str, Any]]:
        """Nodes and client parameters of Feast's connection string.

        Feast reads every parameter as JSON; a password of digits has to stay text. Without
        timeouts a server that hangs would hold its callers for ever.
        """
        nodes, parameters = RedisOnlineStore._parse_connection_string(connection_string)
        written = dict(part.split("=", 1) for part in connection_string.split(",") if "=" in part)
        for name in ("username", "password"):
            if name in parameters and not isinstance(parameters[name], str):
                parameters[name] = written[name]
        return nodes, TIMEOUTS | parameters

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows in one round trip; the stale ones are left out. See the base class."""
        pipe = self._get_client(config.online_store).pipeline(transaction=False)
        for command in self._commands(config, table, _fenced_rows(config, table, data)):
            pipe.execute_command(*command)
        _values(pipe.execute(raise_on_error=False))
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
        await self.write_rows(config, table, _fenced_rows(config, table, data))
        if progress:
            progress(len(data))

    async def write_intents(self, config: RepoConfig, rows: Sequence[IntentRow]) -> int:
        """Write rows of `profile_intent`, `ROWS_PER_TRIP` in one round trip. See the base class."""
        encode = _row_encoder(config.project)
        # The second trip is encoded here while the server works on the first.
        slots = asyncio.Semaphore(2)

        async def trip(start: int) -> int:
            async with slots:
                encoded = map(encode, rows[start : start + ROWS_PER_TRIP])
                return await self.write_rows(config, profile_intent, encoded)

        trips = map(trip, range(0, len(rows), ROWS_PER_TRIP))
        refused = 0
        # All trips end before the first error is raised: none may write behind the caller's back.
        for result in await asyncio.gather(*trips, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
            refused += result
        return refused

    async def erase_intents(
        self, config: RepoConfig, erasures: Mapping[str, Erasure], ahead_ms: int
    ) -> None:
        """Empty the features of profiles in one round trip. See the base class."""
        encode = _row_encoder(config.project)
        rows = (encode.emptied(*one, ahead_ms) for one in erasures.items())
        await self.write_rows(config, profile_intent, rows)

    def meaning_of(self, error: Exception) -> Meaning | None:
        """What an error of Redis' client says. See the base class."""
        return known_meaning(error)

    async def write_rows(
        self, config: RepoConfig, table: FeatureView, rows: Iterable[FencedRow]
    ) -> int:
        """Write encoded rows in one round trip, in order.

        Args:
            config: The store's configuration.
            table: The view that the rows belong to.
            rows: Rows whose fields are all of `table`.

        Returns:
            How many rows were refused because a newer one is stored.

        Raises:
            redis.RedisError: when Redis can't be reached or refuses; writing again is safe.
        """
        client = await self._get_client_async(config.online_store)
        pipe = client.pipeline(transaction=False)
        for command in self._commands(config, table, rows):
            pipe.execute_command(*command)
        replies = _values(await pipe.execute(raise_on_error=False))
        return sum(reply for reply in replies if isinstance(reply, int))

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
        replies = _values(await pipe.execute(raise_on_error=False))
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
        if self._client_async is not None:
            await self._client_async.aclose()
            self._client_async = None

    def _commands(
        self, config: RepoConfig, table: FeatureView, rows: Iterable[FencedRow]
    ) -> Iterator[tuple[bytes | str | int, ...]]:
        """The script calls that write `rows`.

        A cluster takes one key per call, because keys of one call must share a node, and the whole
        script each time, because no node is sure to know it. A single server gets the script ahead
        of the calls, in the same round trip, so that one that was restarted knows it too.
        """
        store = config.online_store
        cluster = store.redis_type == RedisType.redis_cluster
        name = compute_versioned_name(table, config.registry.enable_online_feature_view_versioning)
        fenced = any(f.name == SEQUENCE_FEATURE and f.dtype == Int64 for f in table.features)
        shared = (
            timestamp_field(name),
            feature_field(name, SEQUENCE_FEATURE) if fenced else b"",
            store.view_ttl_seconds.get(table.name, store.key_ttl_seconds or 0),
        )
        if not cluster:
            yield ("SCRIPT LOAD", COMPARE_AND_WRITE)
        script = ("EVAL", COMPARE_AND_WRITE) if cluster else ("EVALSHA", _SCRIPT_SHA)
        for part in _batched(rows, 1 if cluster else ROWS_PER_CALL):
            arguments: list[bytes] = []
            for row in part:
                arguments += (row.micros, row.sequence, row.fields)
            yield (*script, len(part), *(row.key for row in part), *shared, *arguments)


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


def _values(replies: list[Any]) -> list[Any]:
    """Replies of a pipeline, none of which is an error.

    The first error is raised here, because redis-py would put the whole command into its message.
    """
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _batched(rows: Iterable[FencedRow], size: int) -> Iterator[list[FencedRow]]:
    part: list[FencedRow] = []
    for row in rows:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


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
