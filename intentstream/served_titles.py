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

    from stream.domain.version_labels import VersionLabels
    from stream.settings import Settings


class VersionTitles(NamedTuple):
    """Titles with the vectors that one version has of them."""

    version: int
    catalogue: pa.Table
    vectors: dict[str, list[float]]
    """Vectors by title id."""

    trained_until: datetime
    """Time of the source's last event: no vector knows of a later one."""

    labels: VersionLabels
    """Of the version."""


def titles_of(version: int, models: Path, home: Path) -> VersionTitles:
    """The titles that a version carries, with its vectors.

    One from before versions carried theirs has those of its source.

    Args:
        version: number of the version.
        models: model repository with the version.
        home: holds all local data; see `fm_intent.data.sources.prepare`.

    Raises:
        NoVersionError: when there is no such version.
        SourceError: when a version without titles of its own is of a source that can't be had.
    """
    from fm_intent.export import read_manifest
    from fm_intent.model_config import MODEL

    manifest = read_manifest(models, version)
    carried = models / MODEL / str(version) / CATALOGUE_FILE
    if not carried.exists():
        return titles_in(version, models, prepare(manifest.source, home))
    return _with_vectors(version, models, pq.read_table(carried), manifest.trained_until_ms)


def titles_in(version: int, models: Path, data_dir: Path) -> VersionTitles:
    """The titles of a source's folder, with the vectors of a version that was trained on it.

    Args:
        version: number of the version.
        models: model repository with the version.
        data_dir: the source's folder, with its two files.
    """
    times = pq.read_table(data_dir / EVENTS_FILE, columns=["occurred_at_ms"])
    catalogue = pq.read_table(data_dir / CATALOGUE_FILE)
    return _with_vectors(version, models, catalogue, pc.max(times["occurred_at_ms"]).as_py())


def _with_vectors(
    version: int, models: Path, catalogue: pa.Table, trained_until_ms: int
) -> VersionTitles:
    from fm_intent.export import MODEL_FILE, read_version_labels
    from fm_intent.exported import exported_vectors
    from fm_intent.model_config import MODEL

    return VersionTitles(
        version,
        catalogue,
        exported_vectors(models / MODEL / str(version) / MODEL_FILE, catalogue),
        datetime.fromtimestamp(trained_until_ms / 1000, UTC),
        read_version_labels(models / MODEL / str(version)),
    )


def serve_titles(settings: Settings, titles: VersionTitles) -> int:
    """Land and serve titles.

    Returns:
        The number of titles.

    Raises:
        StoreError: when the online store doesn't take them.
    """
    return publish_titles(
        settings,
        titles.catalogue,
        titles.vectors,
        str(titles.version),
        titles.trained_until,
        titles.labels,
    )
