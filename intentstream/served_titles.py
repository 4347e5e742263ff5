"""What is known of the titles of a model version's source, with the version's vectors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.online.titles import publish_titles
from fm_intent.data.contract import CATALOGUE_FILE, EVENTS_FILE
from fm_intent.data.sources import prepare

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from stream.settings import Settings


class VersionTitles(NamedTuple):
    """Titles with the vectors that one version has of them."""

    version: int
    catalogue: pa.Table
    vectors: dict[str, list[float]]
    """Vectors by title id."""

    trained_until: datetime
    """Time of the source's last event: no vector knows of a later one."""


def titles_of(version: int, models: Path, home: Path) -> VersionTitles:
    """The titles of the source that a version was trained on, with its vectors.

    Args:
        version: number of the version.
        models: model repository with the version.
        home: holds all local data; see `fm_intent.data.sources.prepare`.

    Raises:
        NoVersionError: when there is no such version.
        SourceError: when its source can't be had.
    """
    from fm_intent.export import read_manifest

    return titles_in(version, models, prepare(read_manifest(models, version).source, home))


def titles_in(version: int, models: Path, data_dir: Path) -> VersionTitles:
    """The titles of a source's folder, with the vectors of a version that was trained on it.

    Args:
        version: number of the version.
        models: model repository with the version.
        data_dir: the source's folder, with its two files.
    """
    from fm_intent.export import MODEL_FILE
    from fm_intent.exported import exported_vectors
    from fm_intent.model_config import MODEL

    catalogue = pq.read_table(data_dir / CATALOGUE_FILE)
    times = pq.read_table(data_dir / EVENTS_FILE, columns=["occurred_at_ms"])
    trained_until = datetime.fromtimestamp(pc.max(times["occurred_at_ms"]).as_py() / 1000, UTC)
    vectors = exported_vectors(models / MODEL / str(version) / MODEL_FILE, catalogue)
    return VersionTitles(version, catalogue, vectors, trained_until)


def serve_titles(settings: Settings, titles: VersionTitles) -> int:
    """Land and serve titles.

    Returns:
        The number of titles.

    Raises:
        StoreError: when the online store doesn't take them.
    """
    return publish_titles(
        settings, titles.catalogue, titles.vectors, str(titles.version), titles.trained_until
    )
