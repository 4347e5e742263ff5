"""Rows out of any other online store, by Feast."""

from __future__ import annotations

import asyncio
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from features import definitions
from features.online.decoding import NO_TIME
from features.online.fence import errors_of
from features.reading.rows import Found, Wanted
from features.registry.registered import Needed
from features.registry.store import open_store
from features.schema.fields import FieldType
from features.schema.views import MATCH_INPUTS, RANKER, SEARCH_RERANK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from feast.online_response import OnlineResponse
    from feast.protos.feast.types.Value_pb2 import Value

    from stream.settings import Settings

_PROFILE, _TITLE = definitions.profile_intent, definitions.title_profile
_NEEDED: Final = {
    RANKER: (definitions.ranker_v1, [_PROFILE]),
    SEARCH_RERANK: (
        definitions.search_rerank_v1,
        [
            _PROFILE[[*MATCH_INPUTS[_PROFILE.name], "sequence_no"]],
            _TITLE[list(MATCH_INPUTS[_TITLE.name])],
        ],
    ),
}
"""By a service's name, what a registry must hold for it."""


class FeastSource:
    """Reads rows by Feast's SDK. See `features.reading.rows.RowSource`."""

    def __init__(self, settings: Settings, service: str) -> None:
        self.store = open_store(settings)
        self._online_store = self.store.provider.online_store
        self._needed = Needed(self.store, *_NEEDED[service])
        self._needed.check()

    def read(self, wanted: Sequence[Wanted]) -> list[Found]:
        """See `RowSource`."""
        with self._needed.told(), errors_of(self._online_store):
            return [_found(one, self.store.get_online_features(*_asked(one))) for one in wanted]

    async def read_async(self, wanted: Sequence[Wanted]) -> list[Found]:
        """See `RowSource`."""
        if not self._online_store.async_supported.read:
            return await asyncio.to_thread(self.read, wanted)
        with self._needed.told(), errors_of(self._online_store):
            return [
                _found(one, await self.store.get_online_features_async(*_asked(one)))
                for one in wanted
            ]

    async def close(self) -> None:
        """See `RowSource`."""
        await self.store.close()


def _asked(wanted: Wanted) -> tuple[list[str], dict[str, list[str]]]:
    """The references and the entities that Feast is asked for."""
    view, names, keys = wanted
    return [f"{view.name}:{name}" for name in names], {view.join_key: list(keys)}


def _found(wanted: Wanted, response: OnlineResponse) -> Found:
    proto = response.proto
    vectors = dict(zip(proto.metadata.feature_names.val, proto.results, strict=True))
    types = {feature.name: feature.type for feature in wanted.view.features}
    columns: dict[str, list[Any]] = {}
    for name in wanted.names:
        decode = _DECODERS[types[name]]
        values = vectors[name].values
        columns[name] = [decode(one) if one.HasField("val") else None for one in values]
    times = vectors[wanted.names[0]].event_timestamps
    return Found(columns, [time.ToMilliseconds() for time in times])


_DECODERS: Final[dict[FieldType, Callable[[Value], Any]]] = {
    FieldType.STRING: attrgetter("string_val"),
    FieldType.INT64: attrgetter("int64_val"),
    FieldType.UNIX_TIMESTAMP: lambda value: (
        None if value.unix_timestamp_val == NO_TIME else value.unix_timestamp_val
    ),
    FieldType.FLOAT32: attrgetter("float_val"),
    FieldType.STRINGS: lambda value: list(value.string_list_val.val),
    FieldType.INT64S: lambda value: list(value.int64_list_val.val),
    FieldType.FLOAT32S: lambda value: list(value.float_list_val.val),
}
