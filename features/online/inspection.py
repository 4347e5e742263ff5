"""Checks that an online store still holds everything that was published.

A store loses rows without an error: it is flushed or evicts, starts again without its data, or a
replica that lacks the last writes is promoted. Three things tell. The server names itself anew in
each process (`run_id` of INFO). A sentinel row for each partition, written every second, is gone or
has gone back. And each profile's row can be held against the profile's state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from feast.infra.online_stores.redis import RedisType
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from redis import exceptions as redis_errors

from features.definitions import profile, profile_intent
from features.online.answers import typed_errors
from features.online.encoding import StringKeys
from features.online.fence import SEQUENCE_FEATURE
from features.online.fenced_redis import FencedRedisOnlineStore
from features.online.redis_rows import feature_field, timestamp_field
from features.registry.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from feast import FeatureStore

    from stream.settings import Settings

_BEAT: Final = b"beat"
_TITLES: Final = b"version"


class FencePosition(NamedTuple):
    """Where a stored row stands in the fence's order."""

    event_ms: int
    """Its event timestamp; of an erased profile the time of the erasure."""

    sequence_no: int
    """0 where it has none, as that of an erased profile."""


def inspector_of(settings: Settings) -> StoreInspector | None:
    """What looks into the online store; None of any store but ours in Redis."""
    online_store = open_store(settings).provider.online_store
    return StoreInspector(settings) if isinstance(online_store, FencedRedisOnlineStore) else None


class StoreInspector:
    """Looks into the Redis of the settings, by connections of its own.

    Args:
        settings: where it is, and whose sentinels are meant: those of the consumer group.
    """

    def __init__(self, settings: Settings) -> None:
        self._store = open_store(settings)
        self._group = settings.consumer_group.encode()
        self._key = StringKeys(profile.join_key, self._store.project)
        name = profile_intent.name
        self._fields = [timestamp_field(name), feature_field(name, SEQUENCE_FEATURE)]
        self._tells_servers = True

    async def places(self, profile_ids: Sequence[str]) -> list[FencePosition | None]:
        """Where the profiles' rows stand, in their order; None where there is none.

        Raises:
            StoreUnavailableError: when the store can't be read now.
            StoreRefusedError: when it answers with an error that needs an operator.
        """
        return [
            _place(*found)
            for found in await self._read(
                (self._key(profile_id), self._fields) for profile_id in profile_ids
            )
        ]

    async def servers(self) -> frozenset[str] | None:
        """The `run_id` of each server that rows are written to; None where it may not be asked.

        Raises:
            StoreUnavailableError, StoreRefusedError: as `places`.
        """
        if not self._tells_servers:
            return None
        with typed_errors(self._store.provider.online_store):
            client = await self._client()
            try:
                if self._config.redis_type == RedisType.redis_cluster:
                    told = await client.info("server", target_nodes=client.PRIMARIES)
                    nodes = [told] if "run_id" in told else list(told.values())
                else:
                    nodes = [await client.info("server")]
            except redis_errors.NoPermissionError:
                self._tells_servers = False
                return None
        return frozenset(node["run_id"] for node in nodes)

    async def beats(self, partitions: Iterable[int]) -> dict[int, int | None]:
        """What stands in the sentinel rows of partitions; None where there is none.

        Raises:
            StoreUnavailableError, StoreRefusedError: as `places`.
        """
        wanted = list(partitions)
        found = await self._read((self._sentinel(number), [_BEAT]) for number in wanted)
        return {
            number: None if beat is None else int(beat)
            for number, (beat,) in zip(wanted, found, strict=True)
        }

    async def beat(self, beats: Mapping[int, int]) -> None:
        """Write the sentinel rows of partitions.

        Raises:
            StoreUnavailableError, StoreRefusedError: as `places`.
        """
        with typed_errors(self._store.provider.online_store):
            pipe = (await self._client()).pipeline(transaction=False)
            for number, beat in beats.items():
                pipe.hset(self._sentinel(number), _BEAT, beat)
            await pipe.execute()

    async def titles(self) -> str | None:
        """The model version whose title vectors were published last; None where none are there.

        Raises:
            StoreUnavailableError, StoreRefusedError: as `places`.
        """
        ((version,),) = await self._read([(_titles_sentinel(self._store), [_TITLES])])
        return version.decode() if version else None

    async def close(self) -> None:
        """Close the connections."""
        await self._store.close()

    @property
    def _config(self) -> Any:
        return self._store.config.online_store

    async def _client(self) -> Any:
        online_store = self._store.provider.online_store
        assert isinstance(online_store, FencedRedisOnlineStore)
        return await online_store._get_client_async(self._config)

    async def _read(self, wanted: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[Any]:
        with typed_errors(self._store.provider.online_store):
            pipe = (await self._client()).pipeline(transaction=False)
            for key, fields in wanted:
                pipe.hmget(key, fields)
            found: list[Any] = await pipe.execute()
            return found

    def _sentinel(self, partition: int) -> bytes:
        # It ends as all keys of the project do, for a user that may see no others.
        project = self._store.project.encode()
        return b"sentinel:%s:%d:%s" % (self._group, partition, project)


def note_titles(store: FeatureStore, version: str) -> None:
    """Write down beside the rows of titles of which model version they are; Redis only."""
    online_store = store.provider.online_store
    if isinstance(online_store, FencedRedisOnlineStore):
        client = online_store._get_client(store.config.online_store)
        client.hset(_titles_sentinel(store), _TITLES, version)


def _titles_sentinel(store: FeatureStore) -> bytes:
    project: str = store.project
    return b"sentinel:titles:" + project.encode()


def _place(time: bytes | None, sequence_no: bytes | None) -> FencePosition | None:
    if time is None:
        return None
    value = Value.FromString(sequence_no or b"")
    return FencePosition(Timestamp.FromString(time).ToMilliseconds(), value.int64_val)
