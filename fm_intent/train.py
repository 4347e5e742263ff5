"""Training: one loop for every model, resumable; on a CPU deterministic given a seed."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from fm_intent import ranking_metrics
from fm_intent.baselines import Baseline, Popularity
from fm_intent.clusters import found_clusters
from fm_intent.data import contract
from fm_intent.data.crops import Crops, batches
from fm_intent.data.dataset import Sequences, TrainingBatch, load
from fm_intent.data.event_files import data_sha256
from fm_intent.data.histories import histories_id
from fm_intent.evaluate import NetworkPredictor, NextTitleModel, evaluate, next_title_ranks, sample
from fm_intent.experiments import Experiment, Training, experiment_named
from fm_intent.export import Carried, Manifest, export
from fm_intent.loss import weighted_cross_entropy
from fm_intent.pooling import pool
from fm_intent.ranks import Ranks
from fm_intent.served.network import FIRST_ROW, Architecture, FMIntent
from stream.domain.heads import INTENTS
from stream.exceptions import CheckpointMismatchError, DataUnusableError

CHECKPOINT: Final = "checkpoint.pt"
LOG: Final = "log.json"
CURVE: Final = "curve.png"

ALONE: Final = Ranks()

_CLIP: Final = 1.0
"""Longest gradient of a step."""


@dataclass
class TrainingProgress:
    """Where a run is; kept in its checkpoint."""

    epoch: int = 0
    round: int = 0
    """Within the epoch."""
    steps: int = 0
    seconds: float = 0.0
    best_ndcg10: float = -1.0
    rounds_since_best: int = 0
    finished: bool = False
    log: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Fitted:
    """A trained network, in evaluation mode, and how it came about."""

    model: FMIntent | Baseline
    epochs: int
    best_epoch: int
    """At whose end, or within which, validation was best."""
    seconds: float
    validation_ndcg10: float
    """NaN where nothing was held out for it."""
    log: list[dict[str, float]]


def train(
    data_dir: Path,
    model_repo: Path,
    *,
    experiment: str = "demo",
    seed: int = 0,
    max_minutes: float | None = None,
    device: str = "cpu",
    run_dir: Path | None = None,
) -> Manifest:
    """Train FM-Intent on a source and export it as the next version.

    A run that was killed goes on where it was when called again with the same arguments.

    Args:
        data_dir: folder with the source's `catalogue.parquet` and `events.parquet`; its name is the
            source's name.
        model_repo: Triton model repository.
        experiment: a name in `EXPERIMENTS`.
        seed: of weights, batches and dropout.
        max_minutes: wall clock from call to return, evaluation and export included; what the run
            spent before it was killed counts. With a bound the outcome depends on the machine; a
            later call with a longer one, or with none, goes on from there.
        device: of torch, such as `cpu` or `cuda`.
        run_dir: folder of checkpoint, log and learning curve; by default a folder in `runs` beside
            the sources' folder.

    Returns:
        The manifest of the version that was written.

    Raises:
        DataUnusableError: when the data is missing or can't teach the experiment, or what comes of
            the experiment can't be served.
        CheckpointMismatchError: when `run_dir` holds another run.
        ExportError: when the version can't be written or fails its validation.
    """
    started = time.monotonic()
    chosen = experiment_named(experiment)
    if not isinstance(chosen.model, Architecture):
        raise DataUnusableError(f"experiment {experiment} is a baseline, which is not served")
    if chosen.target_time:
        raise DataUnusableError(
            f"experiment {experiment} is told when the next play happens, which who publishes a "
            "feature can't know; `intentstream benchmark` measures it, another can be served"
        )
    sequences = load(data_dir)
    sha256 = data_sha256(data_dir)
    data_id = histories_id(data_dir)
    if run_dir is None:
        # More data is another run, beside the one before.
        named = f"{data_dir.name}-{experiment}-{seed}-{data_id[:8]}"
        run_dir = data_dir.parent.parent / "runs" / named
    fitted = fit(
        sequences,
        chosen,
        seed=seed,
        run_dir=run_dir,
        data_id=data_id,
        deadline=None if max_minutes is None else started + 60 * max_minutes,
        device=device,
    )
    assert isinstance(fitted.model, FMIntent)
    setup = chosen.training
    report = evaluate(
        fitted.model, sequences, window=setup.window, crops=setup.crops, device=device
    )
    popularity = ranking_metrics.next_title_metrics(
        next_title_ranks(
            Popularity(sequences),
            sequences,
            sequences.contexts("test", setup.window, setup.crops),
        )
    )
    scores = {name: report[name] for name in ("hr10", "ndcg10", "mrr", "recall100")}
    scores |= {f"popularity_{name}": value for name, value in popularity.items()}
    scores["validation_ndcg10"] = fitted.validation_ndcg10
    manifest = Manifest(
        version=0,
        source=data_dir.name,
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
        experiment=experiment,
        seed=seed,
        epochs=fitted.epochs,
        seconds=round(fitted.seconds, 1),
        params=parameters(fitted.model),
        window=setup.window,
        titles=sequences.domain.vocabulary,
        trained_intents=[
            name for name, on in zip(INTENTS, sequences.domain.trained, strict=True) if on
        ],
        data_sha256=sha256,
        metrics=scores,
        report=report,
        config=asdict(chosen),
        trained_until_ms=int(sequences.columns.start_ms.max()),
    )
    clusters = None
    if fitted.model.architecture.intents == "hierarchical":
        held_out = sequences.last_contexts(setup.window, setup.crops)
        clusters = found_clusters(fitted.model, sequences, held_out, seed, device)
    golden = sample(sequences.contexts("test", setup.window, setup.crops), 32, seed)
    carried = Carried(contract.read(data_dir / contract.CATALOGUE_FILE), sequences.labels)
    return export(fitted.model, manifest, sequences.windows(golden), model_repo, clusters, carried)


def parameters(model: nn.Module) -> int:
    """How many numbers training sets."""
    return sum(one.numel() for one in model.parameters())


def fit(
    sequences: Sequences,
    experiment: Experiment,
    *,
    seed: int,
    run_dir: Path,
    data_id: str,
    deadline: float | None = None,
    device: str = "cpu",
    ranks: Ranks = ALONE,
    begin: Callable[[NextTitleModel], None] | None = None,
) -> Fitted:
    """Train until validation stops getting better, the epochs are over, or time is.

    After each round the run's state goes to `run_dir`; called again, it goes on from there.

    Args:
        sequences: the data.
        experiment: what to train and how.
        seed: of weights, batches and dropout.
        run_dir: folder of the run; made when it isn't there.
        data_id: names the data, and the way they are read, in the checkpoint.
        deadline: `time.monotonic()` by which evaluation must be over, too.
        device: of torch.
        ranks: the processes that train it together.
        begin: sets the weights that a new run begins with; None: random ones.

    Raises:
        DataUnusableError: when the data can't teach the experiment.
        CheckpointMismatchError: when `run_dir` holds another run.
    """
    run = _Run(sequences, experiment, seed, run_dir, data_id, device, ranks)
    if not run.resume() and begin is not None:
        run.begin(begin)
    try:
        run.go_on(deadline)
    finally:
        run.plot()
    return run.best()


def losses(model: NextTitleModel, batch: TrainingBatch, setup: Training) -> tuple[Tensor, Tensor]:
    """The loss that is minimised, and the item part of it alone; both mean per target.

    Each target weighs by its watch time. Where several labels apply at a time, it is the mean of
    -log softmax over them.
    """
    titles = model.titles()
    encoded = model(batch.interactions, titles, asked_ms_BL=batch.play_ms_BL)
    wanted = batch.next_play_BL >= 0
    weight = batch.play_weight_BL[wanted]
    excluded = None
    if setup.exclude_seen and not model.domain.repeats:
        excluded = _seen(batch.interactions.title_BL, model.domain.vocabulary)[wanted]
    gain = gained = None
    if encoded.recall_BLK is not None:
        gain = encoded.recall_BLK[wanted]
        candidate = (batch.interactions.title_BL - FIRST_ROW).clamp(0, model.domain.vocabulary - 1)
        gained = candidate[:, None].expand_as(encoded.recall_BLK)[wanted]
    item = weighted_cross_entropy(
        encoded.user_BLD[wanted],
        model.candidates(titles),
        batch.next_play_BL[wanted],
        weight,
        excluded,
        gain,
        gained,
    ) / weight.sum().clamp(min=1e-6)
    total = item
    for logits, label in zip(encoded.intent_logits, batch.intents, strict=True):
        if logits is None:
            continue
        known = label.sum(-1) > 0 if label.is_floating_point() else label >= 0
        weight = batch.weight_BL[known]
        loss = functional.cross_entropy(logits[known], label[known], reduction="none")
        total = total + setup.intent_weight * (loss * weight).sum() / weight.sum().clamp(min=1e-6)
    return total, item.detach()


def _seen(title_BL: Tensor, vocabulary: int) -> Tensor:
    """Candidates int64 `[B, L, L]` in the window up to each position, -1 for none."""
    candidate = title_BL - FIRST_ROW
    candidate = candidate.where(candidate < vocabulary, -1).clamp(min=-1)
    length = title_BL.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=title_BL.device).triu(1)
    return candidate[:, None].expand(-1, length, -1).masked_fill(later, -1)


class _Run:
    def __init__(
        self,
        sequences: Sequences,
        experiment: Experiment,
        seed: int,
        run_dir: Path,
        data_id: str,
        device: str,
        ranks: Ranks,
    ) -> None:
        self._sequences, self._dir, self._seed, self._device = sequences, run_dir, seed, device
        self._ranks = ranks
        self._setup: Training = experiment.training
        self._identity = json.dumps([asdict(experiment), seed, data_id], sort_keys=True)
        torch.manual_seed(seed)
        self._model = experiment.build(sequences).to(device)
        self._average = copy.deepcopy(self._model).eval()
        self._optimiser = torch.optim.AdamW(
            self._model.parameters(),
            lr=self._setup.learning_rate,
            weight_decay=self._setup.weight_decay,
            fused=True,
        )
        self._progress = TrainingProgress()
        self._best: dict[str, Tensor] = {}
        self._validation = sample(
            sequences.contexts("validation", self._setup.window, self._setup.crops),
            self._setup.validation_profiles,
            seed,
        )
        self._pooled_on = sample(
            sequences.validation_interactions(self._setup.window, self._setup.crops),
            self._setup.validation_profiles,
            seed,
        )
        crops = sequences.crops(self._setup.window, self._setup.crops)
        self._is_validated = sequences.split != "everything"
        if not len(crops) or (self._is_validated and not len(self._validation.end)):
            raise DataUnusableError(
                "no profile has the three plays that training and validation need; use more events"
            )

    def begin(self, weights: Callable[[NextTitleModel], None]) -> None:
        weights(self._model)
        self._average.load_state_dict(self._model.state_dict())

    def resume(self) -> bool:
        path = self._dir / CHECKPOINT
        if not path.exists():
            return False
        content = torch.load(path, map_location=self._device, weights_only=True)
        if content["identity"] != self._identity:
            raise CheckpointMismatchError(
                f"{self._dir} holds a run of another experiment, data or seed; delete that folder, "
                "or name another one"
            )
        try:
            self._model.load_state_dict(content["model"])
            self._average.load_state_dict(content["average"])
        except RuntimeError as error:
            raise CheckpointMismatchError(
                f"{self._dir} holds a run of another network than this code's; delete that "
                "folder, or name another one"
            ) from error
        self._optimiser.load_state_dict(content["optimiser"])
        self._best = content["best"]
        self._progress = TrainingProgress(**content["progress"])
        return True

    def go_on(self, deadline: float | None) -> None:
        p, setup = self._progress, self._setup
        if deadline is not None:
            deadline -= p.seconds
        while not p.finished and p.epoch < setup.epochs:
            rounds = self._rounds(p.epoch)
            while p.round < len(rounds) and not p.finished:
                in_time = self._ranks.agreed(float(self._in_time(deadline)), self._device)
                if self._best and not in_time:
                    return
                began = time.monotonic()
                self._round(rounds[p.round], deadline)
                p.round += 1
                self._validate(began)
                p.finished = p.rounds_since_best >= setup.patience
                self._save()
            if not p.finished:
                p.epoch, p.round = p.epoch + 1, 0
        p.finished = True
        self._save()

    def best(self) -> Fitted:
        self._average.load_state_dict(self._best)
        if isinstance(self._average, FMIntent) and self._is_validated:
            pool(self._average, self._sequences, self._pooled_on, self._device)
        p = self._progress
        validated = [one for one in p.log if "ndcg10" in one]
        best = max(validated, key=lambda one: one["ndcg10"], default=p.log[-1])
        return Fitted(
            self._average,
            epochs=p.epoch + (p.round > 0),
            best_epoch=int(best["epoch"]),
            seconds=p.seconds,
            validation_ndcg10=p.best_ndcg10 if validated else float("nan"),
            log=p.log,
        )

    def plot(self) -> None:
        if not self._ranks.is_first:
            return
        mpl.use("Agg")
        from matplotlib import pyplot

        log = [one for one in self._progress.log if "ndcg10" in one]
        figure, left = pyplot.subplots(figsize=(7, 4))
        right = left.twinx()
        steps = [one["steps"] for one in log]
        left.plot(steps, [one["item_loss"] for one in log], color="tab:blue")
        right.plot(steps, [one["ndcg10"] for one in log], color="tab:orange")
        left.set(xlabel="steps", ylabel="item loss, training (blue)")
        right.set(ylabel="NDCG@10, validation (orange)")
        self._dir.mkdir(parents=True, exist_ok=True)
        figure.tight_layout()
        figure.savefig(self._dir / CURVE, dpi=120)
        pyplot.close(figure)

    def _rounds(self, epoch: int) -> list[list[Crops]]:
        rng, setup = np.random.default_rng((self._seed, epoch)), self._setup
        if setup.random_cuts:
            crops = self._sequences.random_cuts(setup.window, rng)
        else:
            crops = self._sequences.crops(setup.window, setup.crops)
        all_batches = list(batches(crops, setup.batch, rng))
        size = self._setup.round_batches
        return [all_batches[at : at + size] for at in range(0, len(all_batches), size)]

    def _in_time(self, deadline: float | None) -> bool:
        return deadline is None or time.monotonic() < deadline - self._reserve()

    def _round(self, group: list[Crops], deadline: float | None) -> None:
        p, setup = self._progress, self._setup
        alone = (self._seed, p.epoch, p.round)
        torch.manual_seed(hash(alone if self._ranks.is_first else (*alone, self._ranks.own)))
        self._model.train()
        total = torch.zeros((), device=self._device)
        counted = 0
        name = f"epoch {p.epoch + 1}.{p.round + 1}"
        own = self._ranks.share(group)
        hidden = None if self._ranks.is_first else True
        with tqdm(own, desc=name, unit="batch", disable=hidden) as bar:
            for crops in bar:
                batch = self._sequences.batch(crops).to(self._device)
                loss, item = losses(self._model, batch, setup)
                self._optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                self._ranks.average_gradients(self._model)
                nn.utils.clip_grad_norm_(self._model.parameters(), _CLIP)
                p.steps += 1
                for group_of_parameters in self._optimiser.param_groups:
                    warmth = min(1.0, p.steps / max(1, setup.warmup_steps))
                    group_of_parameters["lr"] = setup.learning_rate * warmth
                self._optimiser.step()
                self._move_average()
                total += item
                counted += 1
                if not bar.disable:  # a GPU would be waited for
                    bar.set_postfix(loss=f"{item.item():.3f}", best_ndcg10=f"{p.best_ndcg10:.4f}")
                # Several that stop for themselves would wait for each other.
                if self._ranks.count == 1 and not self._in_time(deadline):
                    break
        p.log.append(
            {"epoch": p.epoch + 1, "steps": p.steps, "item_loss": (total / counted).item()}
        )

    @torch.no_grad()
    def _move_average(self) -> None:
        # Short at first, or the average would long remember how the weights began.
        steps = self._progress.steps
        decay = min(self._setup.average, (1 + steps) / (10 + steps))
        averages = list(self._average.parameters())
        move = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        move(averages, list(self._model.parameters()), steps)

    def _reserve(self) -> float:
        """Seconds to leave for the last validation, pooling, the test and the export."""
        validated = [one["validation_seconds"] for one in self._progress.log if "ndcg10" in one]
        if not validated:
            return 20.0
        everyone = self._sequences.contexts("test", self._setup.window, self._setup.crops)
        tests = 3 * len(everyone.end) / len(self._validation.end)
        return 8.0 + max(validated) * (2 + tests)

    def _validate(self, began: float) -> None:
        p = self._progress
        if not self._is_validated:
            p.seconds += time.monotonic() - began
            self._best = {k: v.clone() for k, v in self._average.state_dict().items()}
            p.log[-1]["seconds"] = p.seconds
            return
        validating = time.monotonic()
        ranker = NetworkPredictor(self._average, self._device)
        rank = next_title_ranks(ranker, self._sequences, self._validation)
        ndcg10 = self._ranks.agreed(ranking_metrics.ndcg(rank, 10), self._device)
        now = time.monotonic()
        p.seconds += now - began
        p.rounds_since_best += 1
        if ndcg10 > p.best_ndcg10:
            p.best_ndcg10, p.rounds_since_best = ndcg10, 0
            self._best = {k: v.clone() for k, v in self._average.state_dict().items()}
        p.log[-1] |= {
            "ndcg10": ndcg10,
            "hr10": ranking_metrics.hit_rate(rank, 10),
            "seconds": p.seconds,
            "validation_seconds": now - validating,
        }

    def _save(self) -> None:
        if not self._ranks.is_first:
            return
        self._dir.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {
            "identity": self._identity,
            "model": self._model.state_dict(),
            "average": self._average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "best": self._best,
            "progress": asdict(self._progress),
        }
        part = self._dir / f"{CHECKPOINT}.part"
        torch.save(content, part)
        part.replace(self._dir / CHECKPOINT)
        (self._dir / LOG).write_text(json.dumps(self._progress.log, indent=1))
