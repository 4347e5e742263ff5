"""Publishes intent rows to the online store, and erases them there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from features.online.answers import typed_errors
from features.online.fence import FencedOnlineStore
from features.online.unfenced import erase_unfenced, write_unfenced
from features.registry.store import apply_to_write
from stream.exceptions import NotStartedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feast import FeatureStore

    from stream.domain.feature_row import Erasure, IntentRow
    from stream.settings import Settings


class IntentWriter:
    """Writes rows of `profile_intent` to the online store of the settings.

    `features.online.fence.FencedOnlineStore` says what becomes of them. A store without a fence
    takes all of them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: FeatureStore | None = None

    async def start(self) -> None:
        """Register the feature definitions and get ready. Connects with the first write.

        Raises:
            UnfencedStoreError: when the store has no fence, and the settings don't accept that.
            DefinitionsError: when the registry can't be read or written.
            InvalidSettingsError: when `INTENT_ONLINE_STORE` names no configuration of a store.
        """
        self._store = await asyncio.to_thread(apply_to_write, self._settings)

    @property
    def is_fenced(self) -> bool:
        """Whether the store refuses older rows.

        Raises:
            NotStartedError: as `write`.
        """
        return isinstance(self._started().provider.online_store, FencedOnlineStore)

    async def write(self, rows: Sequence[IntentRow]) -> int | None:
        """Write the rows. Where several are of one profile, the newest stays.

        Args:
            rows: Any number of rows.

        Returns:
            How many rows were refused as stale; None where the store has no fence: how many of
            them were stale, and are stored now, is not known.

        Raises:
            NotStartedError: before `start` and after `close`.
            StoreUnavailableError: when the store can't be written now. Write the same rows again;
                those that went in are not hurt by it.
            StoreRefusedError: when the store answers with an error that needs an operator.
        """
        store = self._started()
        online_store = store.provider.online_store
        with typed_errors(online_store):
            if isinstance(online_store, FencedOnlineStore):
                return await online_store.write_intents(store.config, rows)
            await asyncio.to_thread(write_unfenced, store, rows)
            return None

    async def erase(self, erasures: Mapping[str, Erasure]) -> None:
        """Empty the features of profiles.

        They read as absent until something newer is written. What an event from before the
        erasure led to is refused from now on; features of an event that came more than
        `max_ahead_s` after it, and was not erased with the others, stay. A store without a fence
        does neither.

        Args:
            erasures: by profile id.

        Raises:
            NotStartedError, StoreUnavailableError, StoreRefusedError: as `write`.
        """
        store = self._started()
        online_store = store.provider.online_store
        with typed_errors(online_store):
            if isinstance(online_store, FencedOnlineStore):
                ahead_ms = self._settings.max_ahead_s * 1000
                await online_store.erase_intents(store.config, erasures, ahead_ms)
            else:
                await asyncio.to_thread(erase_unfenced, store, erasures)

    async def close(self) -> None:
        """Close the connections. The writer can be started again."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    def _started(self) -> FeatureStore:
        if self._store is None:
            raise NotStartedError("Call `start` first.")
        return self._store
