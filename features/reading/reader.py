"""Reads live intents of many profiles at once, typed, from the online store.

Feast answers for a profile without features as if they were present and null, and ignores a view's
time to live online. Here every profile gets a verdict: fresh, stale or absent.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from features.reading.intents import NAMES, Judge, LiveIntent, checked
from features.reading.rows import Wanted, open_source
from features.schema.views import RANKER, model_labels, profile_intent
from stream.domain.heads import HEADS, INTENTS
from stream.domain.version_labels import BUILT_IN
from stream.exceptions import LabelsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from stream.domain.feature_row import IntentRow
    from stream.settings import Settings


class IntentReader:
    """Reads `profile_intent` from the online store, from threads or from an event loop.

    One reader serves either threads or one event loop: its connections belong to that loop.
    """

    def __init__(
        self,
        settings: Settings,
        fresh_for_s: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open no connection yet.

        Args:
            settings: Where the store is.
            fresh_for_s: Age, in seconds, up to which features count as fresh; by default the idle
                time that ends a session.
            clock: Unix time in seconds.

        Raises:
            DefinitionsError: when the store is none of Redis, and Feast's registry lacks this
                release's definitions or can't be read.
        """
        self._source = open_source(settings, RANKER)
        self._judge = Judge(settings.session_gap_s if fresh_for_s is None else fresh_for_s, clock)
        self._labels: dict[str, Mapping[str, Sequence[str]]] = {}

    def read(self, profile_ids: Sequence[str]) -> list[LiveIntent]:
        """The profiles' intents, in the order asked for; one round trip to the store.

        Raises:
            TooManyProfilesError: for more than `MAX_PROFILES`.
            StoreUnavailableError: when the store can't be read now.
            StoreRefusedError: when the store answers with an error that needs an operator.
            DefinitionsError: when another release has replaced the registry's definitions, or
                written a feature as another type.
        """
        if not checked(profile_ids):
            return []
        (found,) = self._source.read([Wanted(profile_intent, NAMES, profile_ids)])
        return self._judge.intents(profile_ids, found)

    async def read_async(self, profile_ids: Sequence[str]) -> list[LiveIntent]:
        """Like `read`, without blocking the event loop."""
        if not checked(profile_ids):
            return []
        (found,) = await self._source.read_async([Wanted(profile_intent, NAMES, profile_ids)])
        return self._judge.intents(profile_ids, found)

    def labels_of(self, row: IntentRow) -> Mapping[str, Sequence[str]]:
        """What the numbers in a row's probabilities mean: labels by the head's name, in order.

        They are read once for each model version, and kept.

        Raises:
            LabelsError: when nobody published the labels of the row's version to this store.
            StoreUnavailableError, StoreRefusedError, DefinitionsError: as `read`.
        """
        if row.labels_id == BUILT_IN.id:
            return _BUILT_IN_LABELS
        if row.model_version not in self._labels:
            names = tuple(f"{name}_labels" for name in INTENTS)
            (found,) = self._source.read([Wanted(model_labels, names, [row.model_version])])
            labels = {name: found.columns[f"{name}_labels"][0] for name in INTENTS}
            if None in labels.values():
                raise LabelsError(
                    f"the store has no labels of model version {row.model_version}; publish it by "
                    "`intentstream model publish`, which writes them"
                )
            self._labels[row.model_version] = labels
        return self._labels[row.model_version]

    async def close(self) -> None:
        """Close the connections that `read_async` opened."""
        await self._source.close()


_BUILT_IN_LABELS: Final = {head.name: BUILT_IN.of_head(head) for head in HEADS}
