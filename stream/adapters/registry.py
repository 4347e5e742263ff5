"""The adapters by name. A package adds its own by an entry point."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from stream.adapters import (
    cloudevents,
    intent,
    jellyfin,
    netflix,
    ratings,
    segment,
    snowplow,
    tautulli,
    trakt,
)
from stream.adapters.adapter import Adapter, Reader
from stream.exceptions import UnknownAdapterError
from stream.plugins import plugins

GROUP: Final = "intentstream.adapters"
"""The group of entry points; each names an `Adapter`."""

_OURS: Final = (
    intent.ADAPTER,
    segment.ADAPTER,
    snowplow.ADAPTER,
    cloudevents.ADAPTER,
    jellyfin.REPORTS,
    jellyfin.WEBHOOK,
    tautulli.ADAPTER,
    trakt.ADAPTER,
    netflix.ADAPTER,
    ratings.ADAPTER,
)


@cache
def adapters() -> dict[str, Adapter[Any]]:
    """The adapters by name; ours are there whatever a package adds."""
    return {one.name: one for one in (*plugins(GROUP), *_OURS)}


def reader(name: str, options: Mapping[str, Any] | None = None) -> Reader:
    """The adapter of this name under these options.

    Raises:
        UnknownAdapterError: when there is none.
        AdapterOptionsError: when an option is unknown, missing or wrong.
    """
    found = adapters().get(name)
    if found is None:
        raise UnknownAdapterError(f"no adapter {name!r}; there are: {', '.join(adapters())}")
    return found.reader(options)
