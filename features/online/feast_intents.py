"""Intent rows in any other online store, written by Feast."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from features.online.fence import FencedOnlineStore, errors_of
from features.online.unfenced import erase_unfenced, write_unfenced
from features.registry.store import apply_to_write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feast import FeatureStore

    from stream.domain.feature_row import Erasure, IntentRow
    from stream.settings import Settings


class FeastIntents:
    """Writes to the store of the settings. See `features.online.writer.IntentStore`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: FeatureStore

    async def start(self) -> None:
        """See `IntentStore`."""
        self._store = await asyncio.to_thread(apply_to_write, self._settings)

    @property
    def is_fenced(self) -> bool:
        """See `IntentStore`."""
        return isinstance(self._store.provider.online_store, FencedOnlineStore)

    @property
    def is_registered(self) -> bool:
        """See `IntentStore`: `start` has done it."""
        return True

    async def write(self, rows: Sequence[IntentRow]) -> int | None:
        """See `IntentStore`."""
        store = self._store
        online_store = store.provider.online_store
        with errors_of(online_store):
            if isinstance(online_store, FencedOnlineStore):
                return await online_store.write_intents(store.config, rows)
            await asyncio.to_thread(write_unfenced, store, rows)
            return None

    async def erase(self, erasures: Mapping[str, Erasure]) -> None:
        """See `IntentStore`."""
        store = self._store
        online_store = store.provider.online_store
        with errors_of(online_store):
            if isinstance(online_store, FencedOnlineStore):
                ahead_ms = self._settings.max_ahead_s * 1000
                await online_store.erase_intents(store.config, erasures, ahead_ms)
            else:
                await asyncio.to_thread(erase_unfenced, store, erasures)

    async def close(self) -> None:
        """See `IntentStore`."""
        await self._store.close()
