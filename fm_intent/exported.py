"""An exported model version, run by the code that it carries instead of this package's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import torch

from fm_intent.export import MODEL_FILE, Manifest, carried_code, read_manifest, read_version_labels
from fm_intent.model_config import MODEL, TOP
from stream.domain.heads import INTENTS
from stream.domain.labels import hash64
from stream.domain.prediction import Intents, joined
from stream.domain.version_labels import VersionLabels
from stream.domain.window import WindowBatch

if TYPE_CHECKING:
    import pyarrow as pa

    from fm_intent.served.cache import Cache
    from fm_intent.served.network import Answer, FMIntent, Interactions

_ROWS: Final = 64
"""Windows that are answered at once."""


class ExportedVersion:
    """A version in a model repository.

    Args:
        model_repo: the repository.
        version: its number.

    Attributes:
        manifest: what the version is.
        model: its network, of its own copy of the code, in evaluation mode.
        labels: what the numbers in its answers mean.

    Raises:
        NoVersionError: when there is no such version.
        Exception: whatever the version's own code raises.
    """

    manifest: Manifest
    model: FMIntent
    labels: VersionLabels

    def __init__(self, model_repo: Path, version: int) -> None:
        self.manifest = read_manifest(model_repo, version)
        folder = model_repo / MODEL / str(version)
        self.labels = read_version_labels(folder)
        self._network, self._cache = carried_code(folder)
        self.model = self._network.load(folder / MODEL_FILE)

    def cache(self, profiles: int) -> Cache:
        """An empty cache for so many profiles."""
        window = self.manifest.window
        # The code of a version of before knows of no other pass than its own.
        served_by = [self.manifest.served_by] if self.manifest.served_by else []
        room = profiles * self._cache.profile_bytes(self.model, window, *served_by)
        return cast("Cache", self._cache.Cache(self.model, TOP, window, room, *served_by))

    @torch.inference_mode()
    def answer(self, windows: WindowBatch, cache: Cache | None = None) -> Intents:
        """What the version answers, computed whole, or from what `cache` holds and then keeps."""
        windows = windows.numbered(self.labels)
        if cache is None:
            titles = self.model.titles()
            return self._answered(windows, lambda _, x: self.model.answer(x, titles, TOP))
        return self._answered(windows, cache.answer)

    def _answered(
        self, windows: WindowBatch, ask: Callable[[torch.Tensor, Interactions], Answer]
    ) -> Intents:
        parts = []
        for start in range(0, len(windows), _ROWS):
            part = windows.rows(np.arange(start, min(start + _ROWS, len(windows))))
            profiles = torch.from_numpy(part.profile_hash[:, 0])
            parts.append(self._intents(ask(profiles, self._interactions(part))))
        return joined(parts)

    def _interactions(self, windows: WindowBatch) -> Interactions:
        length = torch.from_numpy(windows.length).long()
        inside = torch.arange(windows.action.shape[1]) < length
        share = torch.from_numpy(windows.watched_share)
        return cast(
            "Interactions",
            self._network.Interactions(
                title_BL=self.model.rows(torch.from_numpy(windows.title_hash) * inside),
                action_BL=torch.from_numpy(windows.action).long() * inside,
                start_ms_BL=torch.from_numpy(windows.start_ms) * inside,
                watched_share_BL=share.nan_to_num(nan=-1.0).clamp(-1.0, 1.0),
                device_BL=torch.from_numpy(windows.device).long() * inside,
                length_B=length[:, 0],
            ),
        )

    def _intents(self, answer: Answer) -> Intents:
        rows = len(answer.user_BD)
        return Intents(
            probs={
                name: probs.numpy()
                for name, probs in zip(INTENTS, answer.intent_probs, strict=True)
            },
            intent_attention=answer.attention_BM.numpy(),
            intent_embedding=answer.intent_BD.numpy(),
            intent_cluster=np.full((rows, 1), -1, np.int32),
            next_title_hash=answer.next_title_hash.numpy(),
            next_title_score=answer.next_title_score.numpy(),
            title_log_norm=answer.title_log_norm_B1.numpy(),
            user_embedding=answer.user_BD.numpy(),
            model_version=[str(self.manifest.version)] * rows,
        )


def exported_vectors(model: Path, catalogue: pa.Table) -> dict[str, list[float]]:
    """Vectors of the titles that an exported model version knows, by title id.

    Needs torch: the extra `serve` or `train`.

    Args:
        model: The version's `model.pt`, with the version's own code beside it.
        catalogue: Titles: `title_id`.

    Returns:
        Float32 vectors, D wide, in the space of the version's `user_embedding`. Titles that came
        after the training have one too, made of their metadata.
    """
    code, _ = carried_code(model.parent)
    network = code.load(model)
    ids: list[str] = catalogue["title_id"].to_pylist()
    with torch.inference_mode():
        rows = network.rows(torch.tensor([hash64(title_id) for title_id in ids]))
        vectors = network.titles()[rows].tolist()
    return {
        title_id: vector
        for title_id, vector, row in zip(ids, vectors, rows.tolist(), strict=True)
        if row >= code.FIRST_ROW
    }
