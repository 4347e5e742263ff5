"""What readers ask an online store for, and what they get, whatever the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from features.schema.fields import View
    from stream.settings import Settings


class Wanted(NamedTuple):
    """Features of some of a view's rows."""

    view: View
    names: tuple[str, ...]
    keys: Sequence[str]
    """Values of the join key; one may come twice."""


class Found(NamedTuple):
    """Those features, in the order of the keys."""

    columns: Mapping[str, list[Any]]
    """By name; None where a feature is null, or its row isn't there."""

    events_ms: list[int]
    """Event times in Unix milliseconds; 0 where there is no row."""


class RowSource(Protocol):
    """Reads rows from an online store, from threads or from one event loop."""

    def read(self, wanted: Sequence[Wanted]) -> list[Found]:
        """What is wanted, in its order.

        Raises:
            StoreUnavailableError: when the store can't be read now.
            StoreRefusedError: when the store answers with an error that needs an operator.
            DefinitionsError: when another release's definitions are in the way.
        """

    async def read_async(self, wanted: Sequence[Wanted]) -> list[Found]:
        """Like `read`, without blocking the event loop."""

    async def close(self) -> None:
        """Close the connections that `read_async` opened."""


def open_source(settings: Settings, service: str) -> RowSource:
    """The source of the settings; opens no connection yet.

    Args:
        settings: Where the store is.
        service: Name of the service that is read; asked of Feast's registry where Feast reads.

    Raises:
        DefinitionsError: when Feast reads, and its registry lacks this release's definitions or
            can't be read.
    """
    if settings.online_store == "redis":
        from features.reading.redis_source import RedisSource

        return RedisSource(settings)
    from features.reading.feast_source import FeastSource

    return FeastSource(settings, service)
