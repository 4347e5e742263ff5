"""The quality of what is served: a version behind a running Triton, judged as any model is.

Windows are cut as the worker cuts them and sent by the worker's own client. Titles are scored by
the answer's `user_embedding` and the version's title vectors, and the answer's own next titles by
their probabilities, as a re-ranker does; the two must agree.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import torch

from fm_intent import benchmark
from fm_intent.baselines import Popularity
from fm_intent.data.histories import is_of_ratings
from fm_intent.evaluate import VersionWithData, exported, judge
from fm_intent.served.network import FIRST_ROW
from stream.domain.heads import INTENTS
from stream.domain.labels import device_hash, hash64
from stream.domain.prediction import Intents
from stream.domain.window import WindowBatch
from stream.exceptions import ServedOtherwiseError
from stream.inference.client import InferenceClient

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from fm_intent.data.dataset import Context, Sequences
    from stream.settings import Settings

_TOLERANCE: Final = 1e-3
"""Between a score of the server's next title and the one that the vectors give it."""


class ServedVersion:
    """A version behind a running Triton, as a `Predictor`; use it in `with`.

    Args:
        settings: where Triton is.
        it: the version, as it was exported.
    """

    def __init__(self, settings: Settings, it: VersionWithData) -> None:
        self._settings = settings
        self._version = str(it.manifest.version)
        self._trained = [name in it.manifest.trained_intents for name in INTENTS]
        self._hashes_V = it.model.hash_T[FIRST_ROW:][: it.model.domain.vocabulary].numpy()
        with torch.inference_mode():
            self._titles_VD = it.model.candidates(it.model.titles()).numpy()
        self._place = {title: place for place, title in enumerate(self._hashes_V.tolist())}

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._connected())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._runner.run(self._client.__aexit__(exc_type, exc, traceback))
        self._runner.close()

    def scores(self, sequences: Sequences, contexts: Context) -> NDArray[np.float32]:
        """Logs of probabilities: as answered, or else by user embedding and title vector.

        Raises:
            ServedOtherwiseError: when the two don't agree.
            InferenceUnavailableError: when Triton doesn't answer, or not with this version.
        """
        batch = windows(sequences, contexts)
        answer = self._answer(batch)
        by_vectors: NDArray[np.float32] = answer.user_embedding @ self._titles_VD.T
        by_vectors -= answer.title_log_norm
        return self._told(by_vectors, answer, batch.title_hash, repeats=sequences.domain.repeats)

    def intents(
        self, sequences: Sequences, contexts: Context
    ) -> tuple[NDArray[np.float32] | None, ...]:
        """The answered probabilities of the intents that the version was trained for."""
        answer = self._answer(windows(sequences, contexts))
        return tuple(
            answer.probs[name] if trained else None
            for name, trained in zip(INTENTS, self._trained, strict=True)
        )

    async def _connected(self) -> InferenceClient:
        return InferenceClient(self._settings)

    def _answer(self, batch: WindowBatch) -> Intents:
        return self._runner.run(self._client.infer(batch, self._version))

    def _told(
        self,
        by_vectors: NDArray[np.float32],
        answer: Intents,
        window: NDArray[np.int64],
        *,
        repeats: bool,
    ) -> NDArray[np.float32]:
        """The scores of `by_vectors`, those of the answered next titles replaced by the answer's.

        Compared by score, not by title: titles whose scores are equal but for rounding may change
        places.

        Args:
            by_vectors: of all titles.
            answer: the server's.
            window: title hashes of the requests. Their titles may score more than their vectors
                say, or are not proposed at all.
            repeats: whether they are proposed.
        """
        found = by_vectors.copy()
        for own, given, score, asked in zip(
            found, answer.next_title_hash, answer.next_title_score, window, strict=True
        ):
            listed = (given != 0) & (score > 0)  # a title that is not proposed may fill the list
            titles = [self._place[title] for title in given[listed].tolist()]
            told = np.log(score[listed])
            seen = np.isin(self._hashes_V, asked)
            above = told - own[titles]
            others = np.delete(own if repeats else np.where(seen, -np.inf, own), titles)
            own[titles] = told
            if (
                not np.allclose(above[~seen[titles]], 0, atol=_TOLERANCE)
                or (above < -_TOLERANCE).any()
                or others.max(initial=-np.inf) > told.min(initial=np.inf) + _TOLERANCE
            ):
                raise ServedOtherwiseError(
                    f"version {self._version} names other next titles than its user embedding and "
                    "its exported title vectors give; export it again"
                )
        return found


def windows(sequences: Sequences, contexts: Context) -> WindowBatch:
    """The requests that the worker would send after each context."""
    x = sequences.windows(contexts)
    devices = np.array([*map(device_hash, sequences.labels.devices)], np.uint32)
    ids = sequences.columns.profile_id[contexts.profile].tolist()
    return WindowBatch(
        title_hash=sequences.table.hash_T[x.title_BL].numpy(),
        action=x.action_BL.int().numpy(),
        start_ms=x.start_ms_BL.numpy(),
        watched_share=x.watched_share_BL.numpy(),
        device=devices[x.device_BL.numpy()],
        length=x.length_B.int().numpy()[:, None],
        profile_hash=np.array([[hash64(name)] for name in ids]),
        sequence_no=np.zeros((len(ids), 1), np.int64),
    )


def evaluate_served(
    settings: Settings,
    data_dir: Path,
    model_repo: Path,
    results: Path,
    *,
    version: int | None = None,
) -> dict[str, Any]:
    """Judge a version through the running Triton and put its row among the results.

    Ratings are benchmarked under a published protocol and served otherwise: in windows of the
    worker's length, all titles of the catalogue that were ever played, and plays of one second in
    an order of our own. So there the row has a table of its own, with popularity beside it.

    Args:
        settings: where Triton is, and how long the worker's windows are.
        data_dir: folder of the source that the version was trained on.
        model_repo: Triton model repository that has the version, too.
        results: see `fm_intent.benchmark.record`.
        version: its number; None takes the newest that was trained on this source.

    Returns:
        The row.

    Raises:
        ServedOtherwiseError: when the server's next titles aren't those of its user embeddings.
        InferenceUnavailableError: when Triton doesn't answer, or not with this version.
        NoVersionError: when there is no such version.
        DataUnusableError: when the data is missing, or is not what the version was trained on.
    """
    it = exported(data_dir, model_repo, version)
    manifest = it.manifest
    split = "as-served" if is_of_ratings(data_dir) else "leave-one-out"
    row = {
        "model": "served",
        "dataset": data_dir.name,
        "split": split,
        "seed": manifest.seed,
        "target_time": False,
        "baseline": False,
        "version": manifest.version,
        "window": settings.window_length,
        "epochs": manifest.epochs,
        "seconds": manifest.seconds,
        "params": manifest.params,
        "data_sha256": manifest.data_sha256,
        "command": f"intentstream evaluate --source {data_dir.name} --version {manifest.version} "
        "--through-triton",
    }
    if split == "as-served":
        popularity = judge(Popularity(it.sequences), it.sequences, window=1, crops="recent")
        known = {"model": benchmark.POPULARITY, "baseline": True, "epochs": 0, "seconds": 0.0}
        benchmark.record(results, row | known | {"seed": 0, "params": 0}, popularity)
    with ServedVersion(settings, it) as served:
        judged = judge(served, it.sequences, window=settings.window_length, crops="served")
    return benchmark.record(results, row, judged)
