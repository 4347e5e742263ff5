"""Publishes what is known of titles, with the vectors of a model version."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.online.titles import publish_titles
from fm_intent.data.contract import CATALOGUE_FILE, EVENTS_FILE
from fm_intent.data.sources import prepare
from intentstream.extras import missing_extra
from intentstream.paths import MODEL_REPOSITORY, REPOSITORY
from intentstream.publishing import alone
from stream.exceptions import IntentstreamError, TitlesNotServedError
from stream.inference.release import read_release
from stream.steps import step

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
    from fm_intent.exported import exported_vectors

    catalogue = pq.read_table(data_dir / CATALOGUE_FILE)
    times = pq.read_table(data_dir / EVENTS_FILE, columns=["occurred_at_ms"])
    trained_until = datetime.fromtimestamp(pc.max(times["occurred_at_ms"]).as_py() / 1000, UTC)
    vectors = exported_vectors(models / MODEL / str(version) / MODEL_FILE, catalogue)
    return publish_titles(settings, catalogue, vectors, str(version), trained_until)


def publish_chosen_titles(
    settings: Settings, home: Path, version: int | None = None, *, exports: Path = MODEL_REPOSITORY
) -> tuple[int, int]:
    """Land and serve the titles of a version, with its vectors; no publication runs meanwhile.

    Args:
        settings: where Kafka, the feature store and Triton's model repository are.
        home: holds all local data, the version's source too; see `fm_intent.data.sources.prepare`.
        version: number of one that is served or exported; None takes the live one, or the newest
            that was exported where none is live.
        exports: model repository that versions are exported into.

    Returns:
        The version, and the number of titles.

    Raises:
        NoVersionError: when there is no such version.
        StoreUnavailableError: when the online store can't be written now.
        ReleaseError: when a publication runs.
        BrokerUnavailableError: when Kafka, which is asked for the live version, does not answer.
    """
    from fm_intent.export import read_manifest, versions

    served = REPOSITORY / settings.triton_models
    with alone(settings):
        number = version or int(
            asyncio.run(read_release(settings)).live or max(versions(exports), default=0)
        )
        models = served if number in versions(served) else exports
        data_dir = prepare(read_manifest(models, number).source, home)
        return number, publish_titles_of(number, models, data_dir, settings)


def publish_live_titles(settings: Settings, home: Path) -> int:
    """Land and serve the titles of the version that is live now, with its vectors.

    No publication changes the version meanwhile, and the weights are the ones that Triton reads.

    Args:
        settings: where Kafka, the feature store and Triton's model repository are.
        home: holds all local data, the version's source too; see `fm_intent.data.sources.prepare`.

    Returns:
        The number of titles.

    Raises:
        TitlesNotServedError: with what to run once the cause is mended; the version stays live.
        ReleaseError: when a publication runs.
        BrokerUnavailableError: when Kafka does not answer.
    """
    models = REPOSITORY / settings.triton_models
    with alone(settings):
        live = asyncio.run(read_release(settings)).live
        try:
            from fm_intent.export import read_manifest

            data_dir = prepare(read_manifest(models, int(live)).source, home)
            with step(f"serve the title vectors of version {live}"):
                return publish_titles_of(int(live), models, data_dir, settings)
        except (IntentstreamError, OSError, ImportError) as error:
            raise TitlesNotServedError(
                f"version {live} is live, but its title vectors are not served: "
                f"{missing_extra(error) or error}. "
                "Run `intentstream titles` then; until that, embedding_match is null"
            ) from error
