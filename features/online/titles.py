"""Lands what is known of each title, and its vector of one model version, for `title_profile`.

In the batch source a title gets one row dated by its release, without a vector, and one dated by
the end of the version's training data, with it. So a point-in-time join never sees a vector before
it could have been known. Online it has the one row that was published last. Files are only ever
added, so history can tell which version was served when.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.definitions import (
    model_label_files,
    model_labels,
    title,
    title_profile,
    title_profiles,
)
from features.online.fence import errors_of
from features.online.inspection import note_titles
from features.registry.places import source_folder
from features.registry.store import apply_to_write
from stream.domain.heads import HEADS
from stream.domain.version_labels import BUILT_IN, VersionLabels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stream.settings import Settings

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TIME: Final = pa.timestamp("us", tz="UTC")

SCHEMA: Final = pa.schema(
    [
        ("title_id", pa.string()),
        ("title_genres", pa.list_(pa.string())),
        ("title_kind", pa.string()),
        ("title_genre_numbers", pa.list_(pa.int64())),
        ("title_kind_number", pa.int64()),
        ("title_labels_id", pa.string()),
        ("title_released_at", _TIME),
        ("title_embedding", pa.list_(pa.float32())),
        ("title_embedding_version", pa.string()),
        ("event_timestamp", _TIME),
        ("created_timestamp", _TIME),
    ]
)
"""Columns of the batch source of `title_profile`."""


def title_rows(
    catalogue: pa.Table,
    vectors: Mapping[str, Sequence[float]],
    model_version: str,
    trained_until: datetime,
    created: datetime,
    labels: VersionLabels = BUILT_IN,
) -> pa.Table:
    """The rows of `title_profile` for one model version.

    Args:
        catalogue: Titles: `title_id`, `genres`, `kind`, `release_day` (days since 1970-01-01).
        vectors: The vector of each title that the model version knows, by title id.
        model_version: The version that the vectors are of.
        trained_until: End of the version's training data.
        created: When these rows were made.
        labels: The version's.

    Returns:
        A table of `SCHEMA`. A title without a release day counts as known since 1970.
    """
    rows: list[dict[str, Any]] = []
    for one in catalogue.select(["title_id", "genres", "kind", "release_day"]).to_pylist():
        day = one["release_day"]
        released = None if day is None else _EPOCH + timedelta(days=day)
        known = {
            "title_id": one["title_id"],
            "title_genres": one["genres"],
            "title_kind": one["kind"],
            "title_genre_numbers": labels.genre_numbers(one["genres"]),
            "title_kind_number": labels.kind_number(one["kind"]),
            "title_labels_id": labels.id,
            "title_released_at": released,
            "created_timestamp": created,
        }
        since = released or _EPOCH
        rows.append(known | {"event_timestamp": since})
        vector = vectors.get(one["title_id"])
        if vector is not None:
            rows.append(
                known
                | {
                    "title_embedding": vector,
                    "title_embedding_version": model_version,
                    "event_timestamp": max(since, trained_until),
                }
            )
    return pa.Table.from_pylist(rows, SCHEMA)


def publish_titles(
    settings: Settings,
    catalogue: pa.Table,
    vectors: Mapping[str, Sequence[float]],
    model_version: str,
    trained_until: datetime,
    labels: VersionLabels = BUILT_IN,
) -> int:
    """Land the titles in the batch source and serve them.

    The batch source gets one more file each time, of a version that has landed before too. Online
    rows are dated by now, not by the end of the training data: who goes back to an older version
    has its vectors served again, past the fence.

    Args:
        settings: Where the store is.
        catalogue: See `title_rows`.
        vectors: See `title_rows`.
        model_version: See `title_rows`.
        trained_until: See `title_rows`.
        labels: See `title_rows`.

    Returns:
        The number of titles served.

    Raises:
        UnfencedStoreError: when the store has no fence, and the settings don't accept that.
        StoreUnavailableError: when the store can't be written now; landed they are. Do the same
            again later.
        StoreRefusedError: when the store answers with an error that needs an operator.
    """
    store = apply_to_write(settings)
    now = datetime.now(UTC)
    table = title_rows(catalogue, vectors, model_version, trained_until, now, labels)
    _land(table, source_folder(settings, title_profiles), model_version, now)
    newest = table.to_pandas().drop_duplicates(title.join_key, keep="last")
    served = newest.assign(event_timestamp=now).astype(object).where(newest.notna(), None)
    with errors_of(store.provider.online_store):
        store.write_to_online_store(title_profile.name, served)
        note_titles(settings, model_version)
    return len(served)


def publish_labels(settings: Settings, model_version: str, labels: VersionLabels) -> None:
    """Land and serve what the numbers of a model version mean, for `model_labels`.

    Args:
        settings: Where the store is.
        model_version: The version.
        labels: The version's.

    Raises:
        UnfencedStoreError, StoreUnavailableError, StoreRefusedError: as `publish_titles`.
    """
    store = apply_to_write(settings)
    now = datetime.now(UTC)
    row: dict[str, Any] = {
        "model_version": model_version,
        **{f"{head.name}_labels": list(labels.of_head(head)) for head in HEADS},
        "model_labels_id": labels.id,
        "event_timestamp": now,
        "created_timestamp": now,
    }
    _land(
        pa.Table.from_pylist([row]), source_folder(settings, model_label_files), model_version, now
    )
    with errors_of(store.provider.online_store):
        store.write_to_online_store(model_labels.name, pd.DataFrame([row]))


def _land(table: pa.Table, folder: Path, model_version: str, now: datetime) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"version-{model_version}-{int(now.timestamp() * 1000)}.parquet"
    part = folder / f".{name}.{os.getpid()}"
    pq.write_table(table, part)
    part.replace(folder / name)
