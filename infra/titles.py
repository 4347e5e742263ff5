"""Publishes what is known of titles, with the vectors of an exported model version."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.titles import exported_vectors, publish_titles
from infra.sources.contract import CATALOGUE_FILE, EVENTS_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from stream.settings import Settings


def publish_titles_of(version: int, models: Path, data_dir: Path, settings: Settings) -> int:
    """Land and serve the titles of the source that a version was trained on, with its vectors.

    Vectors are dated by the source's last event: none of them knows of a later one.

    Args:
        version: number of the version.
        models: model repository with the version.
        data_dir: the source's folder, with its two files.
        settings: where the feature store is.

    Returns:
        The number of titles.
    """
    from fm_intent.export import MODEL, MODEL_FILE

    catalogue = pq.read_table(data_dir / CATALOGUE_FILE)
    times = pq.read_table(data_dir / EVENTS_FILE, columns=["occurred_at_ms"])
    trained_until = datetime.fromtimestamp(pc.max(times["occurred_at_ms"]).as_py() / 1000, UTC)
    vectors = exported_vectors(models / MODEL / str(version) / MODEL_FILE, catalogue)
    return publish_titles(settings, catalogue, vectors, str(version), trained_until)
