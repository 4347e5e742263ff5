"""Lands what is known of each title, and its vector of one model version, for `title_profile`.

A title gets one row dated by its release, without a vector, and one dated by the end of the
version's training data, with it. So a point-in-time join never sees a vector before it could have
been known.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from features.definitions import title_profile
from features.store import apply
from stream.taxonomy import hash64

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from stream.settings import Settings

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONG_AGO: Final = datetime(1800, 1, 1, tzinfo=UTC)
_TIME: Final = pa.timestamp("us", tz="UTC")

SCHEMA: Final = pa.schema(
    [
        ("title_id", pa.string()),
        ("title_genres", pa.list_(pa.string())),
        ("title_kind", pa.string()),
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
) -> pa.Table:
    """The rows of `title_profile` for one model version.

    Args:
        catalogue: Titles: `title_id`, `genres`, `kind`, `release_day` (days since 1970-01-01).
        vectors: The vector of each title that the model version knows, by title id.
        model_version: The version that the vectors are of.
        trained_until: End of the version's training data.
        created: When these rows were made.

    Returns:
        A table of `SCHEMA`. A title without a release day counts as known since 1970.
    """
    rows: list[dict[str, Any]] = []
    for title in catalogue.select(["title_id", "genres", "kind", "release_day"]).to_pylist():
        day = title["release_day"]
        released = None if day is None else _EPOCH + timedelta(days=day)
        known = {
            "title_id": title["title_id"],
            "title_genres": title["genres"],
            "title_kind": title["kind"],
            "title_released_at": released,
            "created_timestamp": created,
        }
        since = released or _EPOCH
        rows.append(known | {"event_timestamp": since})
        vector = vectors.get(title["title_id"])
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
) -> int:
    """Land the titles in the batch source and materialize them into the online store.

    The batch source keeps one file for each model version; landing a version again replaces its
    file. Of each title the newest row is served.

    Args:
        settings: Where the store is.
        catalogue: See `title_rows`.
        vectors: See `title_rows`.
        model_version: See `title_rows`.
        trained_until: See `title_rows`.

    Returns:
        The number of rows landed.
    """
    store = apply(settings)
    now = datetime.now(UTC)
    table = title_rows(catalogue, vectors, model_version, trained_until, now)
    folder: Path = store.config.repo_path / title_profile.batch_source.path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".version-{model_version}.{os.getpid()}"
    pq.write_table(table, part)
    part.replace(folder / f"version-{model_version}.parquet")
    store.materialize(_LONG_AGO, now + timedelta(days=1), feature_views=[title_profile.name])
    return int(table.num_rows)


def exported_vectors(model: Path, catalogue: pa.Table) -> dict[str, list[float]]:
    """Vectors of the titles that an exported model version knows, by title id.

    Needs torch: the extra `serve` or `train`.

    Args:
        model: The version's `model.pt`.
        catalogue: Titles: `title_id`.

    Returns:
        Float32 vectors, D wide, in the space of the version's `user_embedding`. Titles that came
        after the training have one too, made of their metadata.
    """
    import torch

    from fm_intent.network import FIRST_ROW, load

    network = load(model)
    ids: list[str] = catalogue["title_id"].to_pylist()
    with torch.inference_mode():
        rows = network.rows(torch.tensor([hash64(title_id) for title_id in ids]))
        vectors = network.titles()[rows].tolist()
    return {
        title_id: vector
        for title_id, vector, row in zip(ids, vectors, rows.tolist(), strict=True)
        if row >= FIRST_ROW
    }
