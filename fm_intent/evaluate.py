"""Evaluation: all titles ranked, intents judged on the next interaction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fm_intent import ranking_metrics
from fm_intent.data.dataset import Context, Part, Sequences, load
from fm_intent.data.event_files import data_sha256
from fm_intent.export import MODEL_FILE, Manifest, newest, read_manifest
from fm_intent.model_config import MODEL
from fm_intent.served.network import (
    FIRST_ROW,
    Domain,
    Encoded,
    FMIntent,
    Interactions,
    scores,
    title_implied_probs,
    title_labels,
)
from fm_intent.served.network import load as load_network
from stream.domain.heads import HEADS, Head
from stream.domain.labels import ACTIONS
from stream.exceptions import DataUnusableError, NoVersionError

_ROWS: Final = 256
"""Windows that are scored at a time."""


class Predictor(Protocol):
    """What is judged."""

    def scores(self, sequences: Sequences, contexts: Context) -> NDArray[np.float32]:
        """`[B, V]`, of every candidate as the next play after each context."""

    def intents(
        self, sequences: Sequences, contexts: Context
    ) -> tuple[NDArray[np.float32] | None, ...]:
        """Per intent, probabilities `[B, C]` of the next interaction; None where not predicted."""


class NextTitleModel(Protocol):
    """What training and evaluation need of a network."""

    domain: Domain

    def titles(self) -> Tensor:
        """Title vectors, by title row."""

    def candidates(self, titles_TD: Tensor) -> Tensor:
        """Vectors of the titles that are scored, `[V, D]`."""

    def __call__(
        self,
        x: Interactions,
        titles_TD: Tensor,
        *,
        newest_only: bool = False,
        asked_ms_BL: Tensor | None = None,
    ) -> Encoded:
        """What the network says at every position, or at each row's newest only.

        A network that isn't told when the next play happens makes no use of `asked_ms_BL`.
        """


class NetworkPredictor:
    """A network with its title vectors computed once, as a `Predictor`."""

    def __init__(self, model: NextTitleModel, device: str) -> None:
        self._model, self._device = model, device
        with torch.inference_mode():
            self._titles = model.titles()

    @torch.inference_mode()
    def scores(self, sequences: Sequences, contexts: Context) -> NDArray[np.float32]:
        """Dot products of user and title vectors, and what the network recalls of the window."""
        encoded, title_BL = self._encoded(sequences, contexts)
        found = scores(encoded, title_BL, self._model.candidates(self._titles))
        return found.cpu().numpy()

    @torch.inference_mode()
    def intents(
        self, sequences: Sequences, contexts: Context
    ) -> tuple[NDArray[np.float32] | None, ...]:
        """`FMIntent.intent_probs`; None of each intent that the network has no head for."""
        if not isinstance(self._model, FMIntent):
            return (None,) * len(sequences.domain.trained)
        probs = self._model.intent_probs(*self._asked_of_intents(self._model, sequences, contexts))
        return tuple(
            one.cpu().numpy() if intent in self._model.predicted else None
            for intent, one in enumerate(probs)
        )

    @torch.inference_mode()
    def opinions(
        self, sequences: Sequences, contexts: Context
    ) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """`FMIntent.opinions`, of intents alone of which there are two: the head's, the titles'."""
        if not isinstance(self._model, FMIntent):
            return {}
        said = self._model.opinions(*self._asked_of_intents(self._model, sequences, contexts))
        return {
            intent: (one.head_BC.cpu().numpy(), one.titles_BC.cpu().numpy())
            for intent, one in enumerate(said)
            if one is not None and one.titles_BC is not None
        }

    def _encoded(self, sequences: Sequences, contexts: Context) -> tuple[Encoded, Tensor]:
        """What the network says after each context, and the title rows `[B, L]` of its window."""
        x = sequences.windows(contexts).to(self._device)
        asked = sequences.asked_ms(contexts).to(self._device)
        encoded = self._model(x, self._titles, newest_only=True, asked_ms_BL=asked)
        return encoded, x.title_BL

    def _asked_of_intents(
        self, model: FMIntent, sequences: Sequences, contexts: Context
    ) -> tuple[Encoded, Tensor, Tensor]:
        """The arguments of `FMIntent.opinions`."""
        encoded, title_BL = self._encoded(sequences, contexts)
        scored = scores(encoded, title_BL, model.candidates(self._titles))
        probs = _title_probs(scored, sequences, contexts)
        return encoded, probs, _now_ms(sequences, contexts).to(self._device)


class Judged(NamedTuple):
    """How right a model was, row by row, so that two can be compared in pairs."""

    profile_id: NDArray[np.str_]
    """`[N]`, of each held-out play."""

    rank: ranking_metrics.Ranks
    """`[N]`."""

    intents: dict[str, ranking_metrics.PerRow]
    """By intent `[M]`, of the last interaction of each profile with a test part: 1 where the
    likeliest class is right, and where several apply at a time the average precision; NaN where the
    label isn't known."""

    action: NDArray[np.str_]
    """`[N]`, the action type of each held-out play, or `just-opened`."""

    is_new: NDArray[np.bool_]
    """`[N]`, where nothing of the profile was for training."""

    report: dict[str, Any]


def next_title_ranks(
    predictor: Predictor, sequences: Sequences, contexts: Context
) -> ranking_metrics.Ranks:
    """Rank of each held-out play among all candidates, `[len(contexts)]`.

    Where titles are never played twice, those played before are left out.
    """
    targets = sequences.targets(contexts)
    found = np.empty(len(targets), np.int64)
    for rows, part in in_parts(contexts):
        seen = None if sequences.domain.repeats else sequences.seen(part)
        found[rows] = ranking_metrics.ranks(predictor.scores(sequences, part), targets[rows], seen)
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
    """The report of `judge` on `model`, which is in evaluation mode."""
    ranker = NetworkPredictor(model, device)
    return judge(ranker, sequences, window=window, crops=crops, part=part).report


def judge(
    predictor: Predictor,
    sequences: Sequences,
    *,
    window: int,
    crops: Literal["served", "recent"],
    part: Part = "test",
) -> Judged:
    """How well `predictor` says what was held out.

    Returns:
        Its `report` has `profiles`; `hr10`, `ndcg10`, `mrr`, `recall100`, and `ci95` of the first
        two by bootstrap over profiles; the same in `by_action` for plays that discover, continue or
        rewatch a title, and for those of titles `just-opened`, which aren't counted among the
        others. `intents` has, of the last interaction of each profile, per intent `accuracy` and
        its `ci95`, beside the figures of always naming the `commonest` class, and of naming what
        the `newest` interaction was; where several labels apply at a time `map`, mean average
        precision, and `hit1`, the share whose likeliest label is right, instead. A model without
        heads is judged by what its distribution over titles says, of intents that titles say
        anything of (`through_titles`).
    """
    contexts = sequences.contexts(part, window, crops)
    rank = next_title_ranks(predictor, sequences, contexts)
    action = np.array(ACTIONS)[sequences.columns.action[contexts.end]]
    action = np.where(sequences.just_opened(contexts), "just-opened", action)
    intents, values = _intents(predictor, sequences, sequences.last_contexts(window, crops))
    report = {
        **_next_titles(rank),
        "by_action": {str(name): _next_titles(rank[action == name]) for name in np.unique(action)},
        "intents": intents,
    }
    return Judged(
        sequences.columns.profile_id[contexts.profile],
        rank,
        values,
        action,
        sequences.is_new(contexts),
        report,
    )


def head_answers(
    predictor: Predictor, sequences: Sequences, contexts: Context
) -> Iterator[tuple[Head, NDArray[np.float32], NDArray[np.float32]]]:
    """Of each head that is predicted and known: probabilities and what came, both `[N, C]`.

    What came are shares that sum to 1, all 0 where unknown.
    """
    parts = in_parts(contexts)
    answers = [predictor.intents(sequences, part) for _, part in parts]
    place = np.concatenate([rows for rows, _ in parts]).argsort()
    came = sequences.intents(contexts)
    for intent, head in enumerate(HEADS):
        said = [one for answer in answers if (one := answer[intent]) is not None]
        if not said or not sequences.domain.trained[intent]:
            continue
        probs = np.concatenate(said)[place]
        shares = came[intent][:, 0].numpy()
        if not head.several:
            shares = (shares[:, None] == np.arange(probs.shape[1])).astype(np.float32)
        yield head, probs, shares


@torch.inference_mode()
def cold_ranks(
    model: NextTitleModel,
    sequences: Sequences,
    window: int,
    crops: Literal["served", "recent"],
    device: str,
) -> dict[str, float]:
    """How well titles that nobody had played in the training part are found, by their metadata.

    Returns:
        `plays`, `hr100` among all titles of the catalogue, and what chance gives, `chance_hr100`.
    """
    contexts = sequences.cold_contexts(window, crops)
    every = len(sequences.table.hash_T) - FIRST_ROW
    found = []
    if len(contexts.end):
        titles_TD = model.titles()
        for _, part in in_parts(contexts):
            x = sequences.windows(part).to(device)
            asked = sequences.asked_ms(part).to(device)
            encoded = model(x, titles_TD, newest_only=True, asked_ms_BL=asked)
            scores_BT = encoded.user_BLD[:, 0] @ titles_TD[FIRST_ROW:].T
            found.append(ranking_metrics.ranks(scores_BT.cpu().numpy(), sequences.targets(part)))
    rank = np.concatenate([np.empty(0, np.int64), *found])
    return {
        "plays": float(len(rank)),
        "hr100": ranking_metrics.hit_rate(rank, 100) if len(rank) else 0.0,
        "chance_hr100": min(100 / every, 1.0),
    }


class VersionWithData(NamedTuple):
    """A version, as it was exported, and the data that it was trained on."""

    manifest: Manifest
    model: FMIntent
    sequences: Sequences

    @property
    def crops(self) -> Literal["served", "recent"]:
        """How the windows were cut that it was trained for."""
        crops: Literal["served", "recent"] = self.manifest.config["training"]["crops"]
        return crops


def exported(data_dir: Path, model_repo: Path, version: int | None = None) -> VersionWithData:
    """A version from its own file, to be tested on what was held out from its training.

    Args:
        data_dir: folder of the source that it was trained on.
        model_repo: Triton model repository.
        version: its number; None takes the newest that was trained on this source.

    Raises:
        NoVersionError: when there is no such version, or its network isn't that of this code.
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
    if manifest.refitted:
        raise DataUnusableError(
            f"version {manifest.version} has learnt from all of its data, so nothing is left to "
            "test it on; its manifest has the report of the training that was judged"
        )
    if manifest.data_sha256 != data_sha256(data_dir):
        raise DataUnusableError(
            f"version {manifest.version} was trained on other data ({manifest.source}) than "
            f"{data_dir} holds, so that held-out plays may be ones it has seen; train again"
        )
    folder = model_repo / MODEL / str(manifest.version)
    try:
        model = load_network(folder / MODEL_FILE)
    except (RuntimeError, TypeError, ValueError) as error:
        raise NoVersionError(
            f"version {manifest.version} can be served, by the code that it carries, but is of "
            "another network than this code's; train one with `intentstream train`"
        ) from error
    return VersionWithData(manifest, model, load(data_dir))


def evaluate_version(
    data_dir: Path, model_repo: Path, version: int | None = None
) -> tuple[Manifest, dict[str, Any]]:
    """Test an exported version again; arguments and errors are those of `exported`.

    Returns:
        The version's manifest, and the report of `evaluate`.
    """
    it = exported(data_dir, model_repo, version)
    report = evaluate(it.model, it.sequences, window=it.manifest.window, crops=it.crops)
    return it.manifest, report


def _next_titles(rank: ranking_metrics.Ranks) -> dict[str, Any]:
    return {
        "profiles": len(rank),
        **ranking_metrics.next_title_metrics(rank),
        "ci95": {
            "hr10": ranking_metrics.ci95(ranking_metrics.hits(rank, 10)),
            "ndcg10": ranking_metrics.ci95(ranking_metrics.gains(rank, 10)),
        },
    }


def _intents(
    predictor: Predictor, sequences: Sequences, contexts: Context
) -> tuple[dict[str, dict[str, Any]], dict[str, ranking_metrics.PerRow]]:
    parts = in_parts(contexts)
    answers = [predictor.intents(sequences, part) for _, part in parts]
    headless = all(one is None for one in answers[0])
    if headless:
        answers = [_through_titles(predictor, sequences, part) for _, part in parts]
    place = np.concatenate([rows for rows, _ in parts]).argsort()
    came = sequences.intents(contexts)
    newest = sequences.intents(contexts._replace(end=contexts.end - 1))
    report, values = {}, {}
    for intent, head in enumerate(HEADS):
        said = [one for answer in answers if (one := answer[intent]) is not None]
        if not said or not sequences.domain.trained[intent]:
            continue
        judged = _several if head.several else _one
        report[head.name], values[head.name] = judged(
            np.concatenate(said)[place], came[intent][:, 0].numpy(), newest[intent][:, 0].numpy()
        )
        report[head.name]["through_titles"] = headless
    return report, values


def _several(
    probs: NDArray[np.float32], came: NDArray[np.float32], newest: NDArray[np.float32]
) -> tuple[dict[str, Any], ranking_metrics.PerRow]:
    known = came.sum(1) > 0
    positive = came[known] > 0
    commonest = np.broadcast_to(positive.mean(0, dtype=np.float32), positive.shape)
    values = np.full(len(known), np.nan)
    values[known] = ranking_metrics.average_precisions(probs[known], positive)
    report: dict[str, Any] = {"ci95": {"map": ranking_metrics.ci95(values[known])}}
    said = {"": probs[known], "commonest_": commonest, "newest_": newest[known]}
    for prefix, one in said.items():
        report[f"{prefix}map"] = float(ranking_metrics.average_precisions(one, positive).mean())
        right = np.take_along_axis(positive, one.argmax(1)[:, None], axis=1)
        report[f"{prefix}hit1"] = float(right.mean())
    return report, values


def _one(
    probs: NDArray[np.float32], came: NDArray[np.int64], newest: NDArray[np.int64]
) -> tuple[dict[str, Any], ranking_metrics.PerRow]:
    known = came >= 0
    values = np.full(len(known), np.nan)
    values[known] = probs[known].argmax(1) == came[known]
    return {
        "accuracy": float(values[known].mean()),
        "ci95": {"accuracy": ranking_metrics.ci95(values[known])},
        "commonest_accuracy": float(np.bincount(came[known]).max() / known.sum()),
        "newest_accuracy": float((newest[known] == came[known]).mean()),
    }, values


def _through_titles(
    predictor: Predictor, sequences: Sequences, contexts: Context
) -> tuple[NDArray[np.float32] | None, ...]:
    """What a distribution over next titles says of each intent.

    Titles are as old as at the newest interaction, because nobody knows when the next will be.
    """
    scored = torch.from_numpy(predictor.scores(sequences, contexts))
    told = title_implied_probs(
        _title_probs(scored, sequences, contexts),
        _now_ms(sequences, contexts),
        title_labels(sequences.table, sequences.domain),
        sequences.domain,
    )
    return tuple(None if one is None else one.numpy() for one in told)


def _title_probs(scores_BV: Tensor, sequences: Sequences, contexts: Context) -> Tensor:
    """Probability of each candidate as the next play; 0 for what is never played again."""
    if not sequences.domain.repeats:
        seen_BV = torch.from_numpy(sequences.seen(contexts)).to(scores_BV.device)
        scores_BV = scores_BV.masked_fill(seen_BV, -torch.inf)
    return scores_BV.softmax(1)


def _now_ms(sequences: Sequences, contexts: Context) -> Tensor:
    """When each context's newest interaction began, int64 `[B]`."""
    return torch.from_numpy(sequences.columns.start_ms[contexts.end - 1])


def in_parts(contexts: Context) -> list[tuple[NDArray[np.intp], Context]]:
    """The contexts, some at a time, with their places among all."""
    # Of similar length, so that little of what is computed is padding.
    order = np.argsort(contexts.end - contexts.start, kind="stable")
    parts = [order[at : at + _ROWS] for at in range(0, len(order), _ROWS)]
    return [(rows, Context(*(column[rows] for column in contexts))) for rows in parts]
