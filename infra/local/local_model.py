"""A model version for a local run: the newest there is, or a small one trained now."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

from intentstream.paths import LOCAL, MODEL_REPOSITORY
from stream.steps import console, step

if TYPE_CHECKING:
    from fm_intent.export import Manifest

TRAIN_MINUTES: Final = 2.8


def model_of(source: str, seed: int) -> Manifest:
    """The newest version trained on a source; when there is none, one that is trained now.

    Args:
        source: a name in `fm_intent.data.sources.sources()`; its data is prepared if need be.
        seed: of the training.

    Raises:
        SourceError: when the source can't be had.
        ModelError: when the training fails.
    """
    from fm_intent.data.sources import prepare
    from fm_intent.export import newest

    data_dir = prepare(source, LOCAL)
    manifest = newest(MODEL_REPOSITORY, source)
    if manifest is not None:
        console.print(f"model: reusing version {manifest.version}, trained on {source}")
        return manifest
    from fm_intent.train import train

    with (
        step(f"train a model on {source} (at most {TRAIN_MINUTES} minutes)"),
        # A process of its own gives torch's memory and threads back.
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        return pool.submit(
            train, data_dir, MODEL_REPOSITORY, seed=seed, max_minutes=TRAIN_MINUTES
        ).result()
