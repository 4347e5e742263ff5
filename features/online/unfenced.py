"""Writes to an online store without a fence, by Feast's own `online_write_batch`.

What an error of such a store means isn't known, so all but SQLite's is taken to pass.
"""

from __future__ import annotations

import sqlite3
from operator import attrgetter
from typing import TYPE_CHECKING

from features.definitions import profile_intent
from features.online.answers import UNKNOWN, known_meaning, typed
from features.online.feast_rows import emptied, to_protos

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from feast import FeatureStore

    from features.online.feast_rows import FeastRow
    from stream.domain.feature_row import Erasure, IntentRow


def write_unfenced(store: FeatureStore, rows: Sequence[IntentRow]) -> None:
    """Write rows over whatever is stored; of several of one profile the newest stays.

    Raises:
        StoreUnavailableError: when the store can't be written now.
        StoreRefusedError: when it answers with an error that needs an operator.
    """
    in_order = sorted(rows, key=attrgetter("last_event_at_ms", "sequence_no"))
    newest = {row.profile_id: row for row in in_order}
    _write(store, list(map(to_protos, newest.values())))


def erase_unfenced(store: FeatureStore, erasures: Mapping[str, Erasure]) -> None:
    """Empty the features of profiles; what is still under way brings them back.

    Raises:
        StoreUnavailableError, StoreRefusedError: as `write_unfenced`.
    """
    _write(store, [emptied(*one) for one in erasures.items()])


def _write(store: FeatureStore, rows: list[FeastRow]) -> None:
    try:
        store.provider.online_write_batch(store.config, profile_intent, rows, None)
    except Exception as error:
        meaning = known_meaning(error) if isinstance(error, sqlite3.Error) else UNKNOWN
        raise typed(error, meaning or UNKNOWN) from error
