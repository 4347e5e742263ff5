"""Leave-one-out evaluation: all titles ranked, intents judged on the next interaction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_intent import metrics
from fm_intent.dataset import Context, Part, Sequences, data_sha256, load
from fm_intent.exceptions import DataUnusableError, NoVersionError
from fm_intent.export import MODEL, MODEL_FILE, Manifest, newest, read_manifest
from fm_intent.network import Domain, Encoded, Interactions
from fm_intent.network import load as load_network
from stream.taxonomy import ACTIONS, INTENTS

_ROWS: Final = 256
"""Windows that are scored at a time."""

Scorer = Callable[[Interactions], "NDArray[np.float32]"]
"""Gives each window a score `[B, V]` for every candidate."""


class NextTitleModel(Protocol):
    """What training and evaluation need of a network."""

    domain: Domain

    def titles(self) -> Tensor:
        """Title vectors, by title row."""

    def candidates(self, titles_TD: Tensor) -> Tensor:
        """Those of the titles that are scored, `[V, D]`."""

    def __call__(self, x: Interactions, titles_TD: Tensor, *, newest_only: bool = False) -> Encoded:
        """What the network says at every position, or at each row's newest only."""


class Ranker:
    """A network with its title vectors computed once, as a `Scorer`."""

    def __init__(self, model: NextTitleModel, device: str) -> None:
        self._model, self._device = model, device
        with torch.inference_mode():
            self._titles = model.titles()

    @torch.inference_mode()
    def __call__(self, interactions: Interactions) -> NDArray[np.float32]:
        """`[B, V]` dot products of user and title vectors."""
        encoded = self._model(interactions.to(self._device), self._titles, newest_only=True)
        scores = encoded.user_BLD[:, 0] @ self._model.candidates(self._titles).T
        return scores.cpu().numpy()

    @torch.inference_mode()
    def intents(self, interactions: Interactions) -> tuple[NDArray[np.float32] | None, ...]:
        """Per intent, probabilities `[B, C]` of the next interaction; None where not predicted."""
        encoded = self._model(interactions.to(self._device), self._titles, newest_only=True)
        return tuple(
            None if logits is None else logits[:, 0].softmax(-1).cpu().numpy()
            for logits in encoded.intent_logits
        )


def next_title_ranks(scorer: Scorer, sequences: Sequences, contexts: Context) -> metrics.Ranks:
    """Rank of each held-out play among all candidates, `[len(contexts)]`.

    Where titles are never played twice, those played before are left out.
    """
    targets = sequences.targets(contexts)
    found = np.empty(len(targets), np.int64)
    for rows, part in _parts(contexts):
        seen = None if sequences.domain.repeats else sequences.seen(part)
        found[rows] = metrics.ranks(scorer(sequences.windows(part)), targets[rows], seen)
    return found


def sample(contexts: Context, count: int | None, seed: int) -> Context:
    """At most `count` of these contexts, drawn by `seed`."""
    if count is None or count >= len(contexts.end):
        return contexts
    drawn = np.random.default_rng(seed).choice(len(contexts.end), count, replace=False)
    return Context(*(column[np.sort(drawn)] for column in contexts))


def evaluate(
    model: NextTitleModel,
    sequences: Sequences,
    *,
    window: int,
    crops: Literal["served", "recent"],
    part: Part = "test",
    device: str = "cpu",
) -> dict[str, Any]:
    """How well `model`, in evaluation mode, predicts what was held out.

    Returns:
        `profiles`; `hr10`, `ndcg10`, `mrr`, `recall100`; `ci95` of the first two by bootstrap over
        profiles; `by_action`: the same metrics for plays that discover, continue or rewatch a
        title, where there are several; `intents`: of the last interaction of each profile, per
        intent its accuracy and that of always naming the commonest class (genre: mean average
        precision and the share whose likeliest genre is right).
    """
    ranker = Ranker(model, device)
    contexts = sequences.contexts(part, window, crops)
    rank = next_title_ranks(ranker, sequences, contexts)
    action = sequences.columns.action[contexts.end]
    return {
        "profiles": len(rank),
        **metrics.next_title_metrics(rank),
        "ci95": {
            name: list(metrics.bootstrap_ci95(rank, metric))
            for name, metric in (("hr10", metrics.hit_rate), ("ndcg10", metrics.ndcg))
        },
        "by_action": {
            ACTIONS[code]: {
                "profiles": int((action == code).sum()),
                **metrics.next_title_metrics(rank[action == code]),
            }
            for code in np.unique(action)
        },
        "intents": _intents(ranker, sequences, sequences.last_contexts(window, crops)),
    }


def evaluate_version(
    data_dir: Path, model_repo: Path, version: int | None = None
) -> tuple[Manifest, dict[str, Any]]:
    """Test an exported version again, from its own file.

    Args:
        data_dir: folder of the source that it was trained on.
        model_repo: Triton model repository.
        version: its number; None takes the newest that was trained on this source.

    Returns:
        The version's manifest, and the report of `evaluate`.

    Raises:
        NoVersionError: when there is no such version.
        DataUnusableError: when the data is missing, or is not what the version was trained on.
    """
    if version is not None:
        manifest: Manifest | None = read_manifest(model_repo, version)
    else:
        manifest = newest(model_repo, data_dir.name)
    if manifest is None:
        raise NoVersionError(
            f"{model_repo} has no version trained on {data_dir.name}; "
            "train one with `intentstream train`"
        )
    if manifest.data_sha256 != data_sha256(data_dir):
        raise DataUnusableError(
            f"version {manifest.version} was trained on other data ({manifest.source}) than "
            f"{data_dir} holds, so that held-out plays may be ones it has seen; train again"
        )
    model = load_network(model_repo / MODEL / str(manifest.version) / MODEL_FILE)
    crops = manifest.config["training"]["crops"]
    return manifest, evaluate(model, load(data_dir), window=manifest.window, crops=crops)


def _intents(
    ranker: Ranker, sequences: Sequences, contexts: Context
) -> dict[str, dict[str, float]]:
    parts = _parts(contexts)
    said = [ranker.intents(sequences.windows(part)) for _, part in parts]
    asked = np.concatenate([rows for rows, _ in parts])
    came = sequences.intents(Context(*(column[asked] for column in contexts)))
    report = {}
    for intent, (name, true) in enumerate(zip(INTENTS, came, strict=True)):
        if said[0][intent] is None:
            continue
        probs = np.concatenate([one for part in said if (one := part[intent]) is not None])
        label = true[:, 0].numpy()
        if name == "genre":
            known = label.sum(1) > 0
            probs, positive = probs[known], label[known] > 0
            common = np.broadcast_to(positive.mean(0), positive.shape)
            report[name] = {
                "map": metrics.mean_average_precision(probs, positive),
                "hit1": _first_is_right(probs, positive),
                "commonest_map": metrics.mean_average_precision(common, positive),
                "commonest_hit1": _first_is_right(common, positive),
            }
        else:
            known = label >= 0
            right = probs[known].argmax(1) == label[known]
            report[name] = {
                "accuracy": float(right.mean()),
                "commonest_accuracy": float(np.bincount(label[known]).max() / known.sum()),
            }
    return report


def _first_is_right(probs: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    return float(np.take_along_axis(positive, probs.argmax(1)[:, None], axis=1).mean())


def _parts(contexts: Context) -> list[tuple[NDArray[np.intp], Context]]:
    # Of similar length, so that little of what is computed is padding.
    order = np.argsort(contexts.end - contexts.start, kind="stable")
    parts = [order[at : at + _ROWS] for at in range(0, len(order), _ROWS)]
    return [(rows, Context(*(column[rows] for column in contexts))) for rows in parts]
