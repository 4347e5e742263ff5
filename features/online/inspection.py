"""Checks that an online store still holds everything that was published.

A store loses rows without an error: it is flushed or evicts, starts again without its data, or a
replica that lacks the last writes is promoted. Three things tell. The server names itself anew in
each process (`run_id` of INFO). A sentinel row for each partition, written every second, is gone or
has gone back. And each profile's row can be held against the profile's state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from redis import exceptions as redis_errors

from features.online import decoding
from features.online.answers import typed_errors
from features.online.encoding import StringKeys
from features.online.fenced_writes import SEQUENCE_FEATURE
from features.online.redis_client import RedisAddress, RedisClients, connect
from features.online.redis_rows import feature_field, timestamp_field
from features.schema.fields import FieldType
from features.schema.views import PROJECT, profile_intent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from stream.settings import Settings

_BEAT: Final = b"beat"
_TITLES: Final = b"version"

# They end as all keys of the project do, for a user that may see no others.
_SENTINEL: Final = b"sentinel:%s:%d:" + PROJECT.encode()
_TITLES_SENTINEL: Final = b"sentinel:titles:" + PROJECT.encode()


class FencePosition(NamedTuple):
    """Where a stored row stands in the fence's order."""

    event_ms: int
    """Its event timestamp; of an erased profile the time of the erasure."""

    sequence_no: int
    """0 where it has none, as that of an erased profile."""


def address_of(settings: Settings) -> RedisAddress | None:
    """The Redis that rows are kept in as ours are; None of any other store."""
    match settings.online_store:
        case "redis":
            return RedisAddress.of(settings)
        case "sqlite":
            return None
    # A file may name our store, too.
    from features.online.fenced_redis import FencedRedisOnlineStoreConfig
    from features.registry.store import open_store

    config = open_store(settings).config.online_store
    return config.address if isinstance(config, FencedRedisOnlineStoreConfig) else None


def inspector_of(settings: Settings) -> StoreInspector | None:
    """What looks into the online store; None of any store but ours in Redis."""
    address = address_of(settings)
    return StoreInspector(address, settings.consumer_group) if address else None


class StoreInspector:
    """Looks into a Redis, by connections of its own.

    Args:
        address: where it is.
        group: the consumer group whose sentinels are meant.
    """

    def __init__(self, address: RedisAddress, group: str) -> None:
        self._clients = RedisClients(address)
        self._group = group.encode()
        self._key = StringKeys(profile_intent.join_key, PROJECT)
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
        with typed_errors():
            client = self._clients.asynchronous
            try:
                if self._clients.address.is_cluster:
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
        with typed_errors():
            pipe = self._clients.asynchronous.pipeline(transaction=False)
            for number, beat in beats.items():
                pipe.hset(self._sentinel(number), _BEAT, beat)
            await pipe.execute()

    async def titles(self) -> str | None:
        """The model version whose title vectors were published last; None where none are there.

        Raises:
            StoreUnavailableError, StoreRefusedError: as `places`.
        """
        ((version,),) = await self._read([(_TITLES_SENTINEL, [_TITLES])])
        return version.decode() if version else None

    async def close(self) -> None:
        """Close the connections."""
        await self._clients.close()

    async def _read(self, wanted: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[Any]:
        with typed_errors():
            pipe = self._clients.asynchronous.pipeline(transaction=False)
            for key, fields in wanted:
                pipe.hmget(key, fields)
            found: list[Any] = await pipe.execute()
            return found

    def _sentinel(self, partition: int) -> bytes:
        return _SENTINEL % (self._group, partition)


def note_titles(settings: Settings, version: str) -> None:
    """Write down beside the rows of titles of which model version they are; Redis only."""
    if address := address_of(settings):
        with connect(address) as client:
            client.hset(_TITLES_SENTINEL, _TITLES, version)


def _place(time: bytes | None, sequence_no: bytes | None) -> FencePosition | None:
    if time is None:
        return None
    number = decoding.value(FieldType.INT64, sequence_no) or 0
    return FencePosition(decoding.milliseconds(time), number)
