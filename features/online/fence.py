"""The fence: what an online store must keep, so that no older feature replaces a newer one.

Two writers meet without any fault: a batch is delivered again, partitions change hands while the
former owner still writes, a lost row is published again beside a live event. Where a store takes
whatever comes last, the older features may stay until the profile's next event, and no error tells.

So a store that features are written to says that it has a fence, by being a `FencedOnlineStore`.
Any other is refused, unless `INTENT_UNFENCED_STORE` accepts what may happen.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.online_stores.sqlite import SqliteOnlineStore

from features.online.answers import known_meaning, typed_errors
from stream.exceptions import UnfencedStoreError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from feast import RepoConfig

    from features.online.answers import Meaning
    from stream.domain.feature_row import Erasure, IntentRow
    from stream.settings import Settings

_log = logging.getLogger(__name__)


class FencedOnlineStore(OnlineStore):  # type: ignore[misc]
    """A Feast online store that refuses older rows: the contract.

    `features.online.fence_contract.OnlineStoreContract` tests an implementation for all of this but
    what `meaning_of` says.

    Order:
        A row stands at its event's time, in milliseconds at least, and at one time at its
        `sequence_no`. A row that stands before the stored one is refused: nothing of it is stored.
        One that stands behind it, or at the same place, replaces all of its features: a row that
        another model version has scored again stands at the same place, and must get in.

    Erasure:
        It empties the profile's features, also where nothing is stored, and leaves the time of the
        erasure without a `sequence_no`. So an event from before it is refused from then on, and one
        of the same time or later gets in. It is refused itself where the stored row stands behind
        both `at_ms + ahead_ms` and `newest_ms`.

    One step for each row:
        No write of the same row, by whatever thread, process or machine, comes between comparing
        and writing, and no reader sees a row half-written. The rows of one call are no such unit.

    Every way in:
        `online_write_batch`, by which `feast materialize` and `push` write, keeps the same order
        in rows of every view; where a view has no `sequence_no`, by the event time alone. So does
        `online_write_batch_async`, if there is one.

    What is read:
        Feast reads of a row what it would read if its own write had put it there, to the byte.

    Errors:
        What the client raises goes through. The caller asks `meaning_of`, and tries the same call
        again where the error passes. Any of its rows may have been written by then: writing them
        again changes nothing, because equal rows overwrite.

    Life:
        The first call opens what it needs, `close` closes it, and a call after that opens it anew.
        A store is used from one event loop; several calls may be under way at once.
    """

    @abstractmethod
    async def write_intents(self, config: RepoConfig, rows: Sequence[IntentRow]) -> int:
        """Write rows of the view `profile_intent`; of several of one profile the newest stays.

        `features.online.feast_rows.to_protos` makes of a row what Feast's own write takes.

        Args:
            config: Feast's configuration, with this store's in `config.online_store`.
            rows: Any number of rows.

        Returns:
            How many rows were refused.
        """

    @abstractmethod
    async def erase_intents(
        self, config: RepoConfig, erasures: Mapping[str, Erasure], ahead_ms: int
    ) -> None:
        """Empty the features of profiles in the view `profile_intent`.

        `features.online.feast_rows.emptied` makes of one what Feast's own write takes.

        Args:
            config: as in `write_intents`.
            erasures: by profile id.
            ahead_ms: how far ahead of the broker's time events' clocks may be.
        """

    @abstractmethod
    def meaning_of(self, error: Exception) -> Meaning | None:
        """What an error of the client says of the store; None of an error that isn't the client's.

        One that passes (no connection, a time-out, a failover) is a `StoreUnavailableError` to
        callers, who try again as long as it takes. Another (rights, a missing table) is a
        `StoreRefusedError`, which ends a worker. None goes on as it is, and ends it too.
        """


class Fence(StrEnum):
    """Whether an online store keeps older rows out."""

    KEPT = "it refuses older features"
    ONE_WRITER = "no fence: it keeps newer features as long as one worker alone writes to it"
    NONE = "no fence: older features may overwrite newer ones"


def fence_of(online_store: OnlineStore) -> Fence:
    """What a store says of itself. SQLite, the store of a first look, has one writer."""
    if isinstance(online_store, FencedOnlineStore):
        return Fence.KEPT
    return Fence.ONE_WRITER if type(online_store) is SqliteOnlineStore else Fence.NONE


def errors_of(online_store: OnlineStore) -> AbstractContextManager[None]:
    """`typed_errors` of a store of Feast's; one with a fence says itself what its errors mean."""
    fenced = isinstance(online_store, FencedOnlineStore)
    return typed_errors(online_store.meaning_of if fenced else known_meaning)


def insist_on_fence(online_store: OnlineStore, settings: Settings) -> None:
    """Refuse a store without a fence, or say in the log that it has none.

    Raises:
        UnfencedStoreError: when nothing keeps older rows out, and the settings don't accept it.
    """
    fence = fence_of(online_store)
    if fence is Fence.KEPT:
        return
    kind = type(online_store)
    if fence is Fence.NONE and not settings.unfenced_store:
        raise UnfencedStoreError(
            f"The online store of INTENT_ONLINE_STORE={settings.online_store} "
            f"({kind.__module__}.{kind.__qualname__}) has no fence: it doesn't refuse older "
            "features. Whenever a batch is delivered again or a partition changes hands, they may "
            "overwrite newer ones, and stay until the profile's next event, without an error. Use "
            "redis, or give the store a fence (docs/extending.md). INTENT_UNFENCED_STORE=true "
            "accepts that features may go back."
        )
    _log.warning("The online store %s has %s", kind.__name__, fence)
