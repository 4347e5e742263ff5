"""Publishes intent rows to the online store, and erases them there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from stream.exceptions import NotStartedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream.domain.feature_row import Erasure, IntentRow
    from stream.settings import Settings


class IntentStore(Protocol):
    """An online store that intent rows are written to. `IntentWriter` says what is done."""

    @property
    def is_fenced(self) -> bool:
        """Whether the store refuses older rows."""

    @property
    def is_registered(self) -> bool:
        """Whether the feature definitions are registered."""

    async def start(self) -> None:
        """Register the feature definitions and get ready."""

    async def write(self, rows: Sequence[IntentRow]) -> int | None:
        """Write the rows."""

    async def erase(self, erasures: Mapping[str, Erasure]) -> None:
        """Empty the features of profiles."""

    async def close(self) -> None:
        """Close the connections."""


def _store(settings: Settings) -> IntentStore:
    if settings.online_store == "redis":
        from features.online.redis_intents import RedisIntents

        return RedisIntents(settings)
    from features.online.feast_intents import FeastIntents

    return FeastIntents(settings)


class IntentWriter:
    """Writes rows of `profile_intent` to the online store of the settings.

    `features.online.fence.FencedOnlineStore` says what becomes of them. A store without a fence
    takes all of them.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: IntentStore | None = None

    async def start(self) -> None:
        """Get ready, and register the feature definitions. Connects with the first write.

        Where the store is Redis they are registered while rows are written, if need be, and a
        registry that can't be written may come out with a write only.

        Raises:
            UnfencedStoreError: when the store has no fence, and the settings don't accept that.
            DefinitionsError: when the registry can't be read or written.
            InvalidSettingsError: when `INTENT_ONLINE_STORE` names no configuration of a store.
        """
        store = _store(self._settings)
        await store.start()
        self._store = store

    @property
    def is_fenced(self) -> bool:
        """Whether the store refuses older rows.

        Raises:
            NotStartedError: as `write`.
        """
        return self._started().is_fenced

    @property
    def is_registered(self) -> bool:
        """Whether the feature definitions are registered, so that what is written is read by Feast.

        Raises:
            NotStartedError: as `write`.
        """
        return self._started().is_registered

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
            DefinitionsError: as `start`.
        """
        return await self._started().write(rows)

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
        await self._started().erase(erasures)

    async def close(self) -> None:
        """Close the connections. The writer can be started again."""
        store, self._store = self._store, None
        if store is not None:
            await store.close()

    def _started(self) -> IntentStore:
        if self._store is None:
            raise NotStartedError("Call `start` first.")
        return self._store
