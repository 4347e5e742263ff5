"""Rows out of Redis, in Feast's layout and without Feast: what it answers, its import not needed.

The layout is held to Feast's own by the tests of `features.online.encoding` and by
`tests/integration/test_reading_parity.py`. What a row has is told by the row: no registry is asked.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from features.online import decoding
from features.online.answers import typed_errors
from features.online.encoding import StringKeys
from features.online.fenced_writes import without_errors
from features.online.redis_client import RedisAddress, RedisClients
from features.online.redis_rows import feature_field, timestamp_field
from features.reading.rows import Found, Wanted
from features.schema.views import PROJECT
from stream.exceptions import DefinitionsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from features.schema.fields import Feature, View
    from stream.settings import Settings


class RedisSource:
    """Reads rows by one round trip. See `features.reading.rows.RowSource`."""

    def __init__(self, settings: Settings) -> None:
        self._clients = RedisClients(RedisAddress.of(settings))

    def read(self, wanted: Sequence[Wanted]) -> list[Found]:
        """See `RowSource`."""
        asked = list(map(_Asked.of, wanted))
        with typed_errors():
            replies = _pipe(self._clients.blocking, asked).execute(raise_on_error=False)
            return _found(asked, without_errors(replies))

    async def read_async(self, wanted: Sequence[Wanted]) -> list[Found]:
        """See `RowSource`."""
        asked = list(map(_Asked.of, wanted))
        with typed_errors():
            pipe = _pipe(self._clients.asynchronous, asked)
            return _found(asked, without_errors(await pipe.execute(raise_on_error=False)))

    async def close(self) -> None:
        """See `RowSource`."""
        await self._clients.close()


class _Asked(NamedTuple):
    """What is asked of Redis for a `Wanted`: each key once."""

    wanted: Wanted
    features: list[Feature]
    fields: list[bytes]
    """Hash fields of `features`, then the one of the event timestamp."""
    keys: list[bytes]
    order: list[int]
    """For each row of the answer the index of its key."""

    @classmethod
    def of(cls, wanted: Wanted) -> _Asked:
        view, names, keys = wanted
        places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        return cls(
            wanted,
            *_features(view, names),
            keys=list(map(_keys_of(view.join_key), places)),
            order=[places[key] for key in keys],
        )


@cache
def _keys_of(join_key: str) -> StringKeys:
    return StringKeys(join_key, PROJECT)


@cache
def _features(view: View, names: tuple[str, ...]) -> tuple[list[Feature], list[bytes]]:
    by_name = {feature.name: feature for feature in view.features}
    fields = [feature_field(view.name, name) for name in names]
    return [by_name[name] for name in names], [*fields, timestamp_field(view.name)]


def _pipe(client: Any, asked: list[_Asked]) -> Any:
    pipe = client.pipeline(transaction=False)
    for one in asked:
        for key in one.keys:
            pipe.hmget(key, one.fields)
    return pipe


def _found(asked: list[_Asked], replies: list[Any]) -> list[Found]:
    found, start = [], 0
    for one in asked:
        rows = replies[start : start + len(one.keys)]
        start += len(one.keys)
        *columns, times = zip(*rows, strict=True) if rows else [()] * len(one.fields)
        events_ms = list(map(decoding.milliseconds, times))
        found.append(
            Found(
                {
                    feature.name: _ordered(_values(one.wanted.view, feature, column), one.order)
                    for feature, column in zip(one.features, columns, strict=True)
                },
                _ordered(events_ms, one.order),
            )
        )
    return found


def _values(view: View, feature: Feature, column: Sequence[bytes | None]) -> list[Any]:
    try:
        return [decoding.value(feature.type, raw) for raw in column]
    except ValueError as error:
        raise DefinitionsError(
            f"the store holds {view.name}:{feature.name} as this release does not define it "
            f"({error}). Write with this release, or read with the one that writes."
        ) from error


def _ordered(values: list[Any], order: list[int]) -> list[Any]:
    return values if len(values) == len(order) else [values[place] for place in order]
