"""Trains a version on a service's own data: judged on what it held out, then refitted on all.

What is exported has learnt of the newest days too; what is known of its quality is that of the same
training without them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fm_intent import ranking_metrics
from fm_intent.baselines import Popularity
from fm_intent.calibration import Reliability, reliability
from fm_intent.clusters import found_clusters
from fm_intent.data import contract
from fm_intent.data.catalogue import SourceCatalogue
from fm_intent.data.dataset import Sequences
from fm_intent.data.description import SourceDescription
from fm_intent.data.event_files import data_sha256
from fm_intent.data.groups import members
from fm_intent.data.histories import histories_id, read_histories
from fm_intent.evaluate import (
    Judged,
    NetworkPredictor,
    cold_ranks,
    head_answers,
    judge,
    sample,
)
from fm_intent.experiments import Experiment, experiment_named
from fm_intent.export import (
    DESCRIPTION_FILE,
    MODEL_FILE,
    Carried,
    Manifest,
    export,
    read_manifest,
    read_version_labels,
)
from fm_intent.model_config import MODEL
from fm_intent.ranks import Ranks
from fm_intent.served.network import FMIntent
from fm_intent.served.network import load as load_network
from fm_intent.train import Fitted, fit, parameters
from fm_intent.warm_start import CarriedOver, warm_start
from stream.domain.heads import INTENTS
from stream.exceptions import DataUnusableError, GateError, WarmStartError

BASELINE: Final = "sasrec"
"""The baseline that is trained beside popularity: ids alone, as its paper has it."""


@dataclass(frozen=True)
class Slice:
    """Some of the plays that were held out.

    Attributes:
        name: what they have in common.
        plays: how many there are.
        ndcg10: of the model on them.
        popularity_ndcg10: of popularity on them.
    """

    name: str
    plays: int
    ndcg10: float
    popularity_ndcg10: float


@dataclass(frozen=True)
class TrainingReport:
    """All that is to be known of a training, for people and for programs.

    Attributes:
        source: its name.
        experiment: what was trained.
        split: what was held out.
        profiles: that there are.
        titles: that can be proposed.
        interactions: of all profiles.
        tested: held-out plays.
        epochs: of the judged training, until its best.
        seconds: of all trainings.
        models: `hr10`, `ndcg10`, `mrr`, `recall100` and intervals, by model, ours first; of a
            baseline also `p`, that it is as good as ours.
        slices: of the held-out plays.
        cold: plays of titles that were first seen after the cut, ranked among all titles by their
            metadata: `plays`, `hr100` and what chance gives.
        heads: how right each head is, beside the commonest and the newest label.
        calibration: of each head.
        curve: of the judged training, a validation each.
        begun_from: shares taken over from the version that it began with, if any.
        complaints: gates that it doesn't pass.
    """

    source: str
    experiment: str
    split: str
    profiles: int
    titles: int
    interactions: int
    tested: int
    epochs: int
    seconds: float
    models: dict[str, dict[str, Any]]
    slices: list[Slice]
    cold: dict[str, float]
    heads: dict[str, dict[str, Any]]
    calibration: dict[str, Reliability]
    curve: list[dict[str, float]]
    begun_from: CarriedOver | None = None
    complaints: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """What a training made.

    Attributes:
        manifest: of the version that was exported; None where a gate held it back.
        report: how good the model is.
        run_dir: the folder of checkpoints, where the report is to be kept.
    """

    manifest: Manifest | None
    report: TrainingReport
    run_dir: Path


def train_service(
    data_dir: Path,
    description: SourceDescription,
    model_repo: Path,
    runs: Path,
    *,
    init: int | None = None,
    refit: bool = True,
    device: str = "cpu",
    ranks: Ranks,
) -> Trained:
    """Train, judge, refit on everything, and export.

    A training that was killed goes on where it was, and more data begin another one beside it.

    Args:
        data_dir: what is built of the source.
        description: of the source.
        model_repo: Triton model repository.
        runs: where runs are kept.
        init: version whose weights it begins with; None: random ones.
        refit: whether what is exported is trained on everything; else the judged model is.
        device: of torch.
        ranks: the processes that train together.

    Raises:
        DataUnusableError: when the data can't teach the experiment.
        UnknownExperimentError: when there is no such experiment.
        WarmStartError: when it can't begin where `init` ended.
        NoVersionError: when there is no version `init`.
        ExportError: when the version can't be written or fails its validation.
    """
    setup = description.training
    experiment = experiment_named(setup.experiment)
    if setup.epochs is not None:
        bounded = replace(experiment.training, epochs=setup.epochs)
        experiment = replace(experiment, training=bounded)
    columns, catalogue = read_histories(data_dir), SourceCatalogue.read(data_dir)
    shares = (setup.validation_share, setup.test_share)
    sequences = Sequences(columns, catalogue, setup.split, shares=shares, min_plays=setup.min_plays)
    data_id = histories_id(data_dir)
    begun = f"-from-{init}" if init else ""
    name = f"{description.name}-{setup.experiment}-{setup.seed}-{data_id[:8]}{begun}"
    start = _Start(model_repo, init)

    def fitted(what: str, data: Sequences, chosen: Experiment, **more: Any) -> Fitted:
        identity = f"{data_id} {what} {setup.split} {shares} {setup.min_plays} {init or ''}"
        return fit(
            data,
            chosen,
            seed=setup.seed,
            run_dir=runs / name / what,
            data_id=identity,
            device=device,
            ranks=ranks,
            **more,
        )

    judged_fit = fitted("judged", sequences, experiment, begin=start.of(catalogue, "judged"))
    baseline = fitted(BASELINE, sequences, _budget(experiment, judged_fit))
    report = _report(
        data_dir, description, sequences, experiment, judged_fit, baseline, start.found, device
    )
    if not ranks.is_first or report.complaints:
        return Trained(None, report, runs / name)
    final, final_data = judged_fit, sequences
    if refit:
        final_data = Sequences(columns, catalogue, "everything", min_plays=setup.min_plays)
        whole = replace(experiment.training, epochs=judged_fit.best_epoch)
        chosen = replace(experiment, training=whole)
        final = fitted("everything", final_data, chosen, begin=start.of(catalogue, "everything"))
        _share_of_titles(judged_fit.model, final.model)
    manifest = _exported(
        data_dir, description, model_repo, experiment, sequences, final_data, final, report, device
    )
    return Trained(manifest, report, runs / name)


class _Start:
    """Where trainings begin: with the weights of a version, or random ones."""

    def __init__(self, model_repo: Path, version: int | None) -> None:
        self.found: CarriedOver | None = None
        self._before: FMIntent | None = None
        if version is None:
            return
        read_manifest(model_repo, version)
        folder = model_repo / MODEL / str(version)
        self._labels = read_version_labels(folder)
        try:
            self._before = load_network(folder / MODEL_FILE)
        except (RuntimeError, TypeError, ValueError) as error:
            raise WarmStartError(
                f"version {version} is of another network than this code's; train without --init"
            ) from error

    def of(self, catalogue: SourceCatalogue, what: str) -> Any:
        """What sets the weights of a new network; None: nothing does."""
        before = self._before
        if before is None:
            return None

        def begin(model: Any) -> None:
            found = warm_start(model, catalogue.labels, before, self._labels)
            if what == "judged":
                self.found = found

        return begin


def _budget(experiment: Experiment, judged: Fitted) -> Experiment:
    """The baseline, trained as long as the model at most."""
    baseline = experiment_named(f"service-{BASELINE}")
    return replace(baseline, training=replace(experiment.training, epochs=max(judged.epochs, 1)))


def _share_of_titles(judged: Any, final: Any) -> None:
    """Nothing is held out of the refit to tell how far heads and titles are to be believed."""
    if isinstance(judged, FMIntent) and isinstance(final, FMIntent):
        final.title_share_M.copy_(judged.title_share_M)


def _report(
    data_dir: Path,
    description: SourceDescription,
    sequences: Sequences,
    experiment: Experiment,
    fitted: Fitted,
    baseline: Fitted,
    begun_from: CarriedOver | None,
    device: str,
) -> TrainingReport:
    setup = experiment.training
    predictor = NetworkPredictor(fitted.model, device)
    judged = {
        description.training.experiment: judge(
            predictor, sequences, window=setup.window, crops=setup.crops
        ),
        BASELINE: judge(
            NetworkPredictor(baseline.model, device),
            sequences,
            window=setup.window,
            crops=setup.crops,
        ),
        "popularity": judge(Popularity(sequences), sequences, window=1, crops="recent"),
    }
    ours, _, popularity = judged.values()
    gains = ranking_metrics.gains(ours.rank, 10)
    models = {}
    for name, one in judged.items():
        told = ("hr10", "ndcg10", "mrr", "recall100", "ci95")
        models[name] = {key: one.report[key] for key in told}
        if one is not ours:
            models[name]["p"] = ranking_metrics.paired(gains, ranking_metrics.gains(one.rank, 10)).p
    contexts = sequences.last_contexts(setup.window, setup.crops)
    calibration = {}
    for head, probs, came in head_answers(predictor, sequences, contexts):
        if found := reliability(probs, came):
            calibration[head.name] = found
    report = TrainingReport(
        source=description.name,
        experiment=description.training.experiment,
        split=sequences.split,
        profiles=sequences.profiles,
        titles=sequences.domain.vocabulary,
        interactions=len(sequences.columns.action),
        tested=len(ours.rank),
        epochs=fitted.best_epoch,
        seconds=round(fitted.seconds + baseline.seconds, 1),
        models=models,
        slices=_slices(data_dir, description, sequences, ours, popularity),
        cold=cold_ranks(fitted.model, sequences, setup.window, setup.crops, device),
        heads=ours.report["intents"],
        calibration=calibration,
        curve=[one for one in fitted.log if "ndcg10" in one],
        begun_from=begun_from,
    )
    gates = description.gates.training
    scores = {name: one["ndcg10"] for name, one in models.items()}
    own = scores.pop(description.training.experiment)
    best = max(scores, key=lambda name: scores[name])
    ratio, over_best = (own / max(scores[name], 1e-9) for name in ("popularity", best))
    if report.tested < gates.profiles:
        report.complaints.append(
            f"it was tested on {report.tested} profiles, at least {gates.profiles} are asked for "
            "(gates.training.profiles)"
        )
    if ratio < gates.ndcg10_over_popularity:
        report.complaints.append(
            f"its NDCG@10 is {ratio:.2f} times that of popularity, at least "
            f"{gates.ndcg10_over_popularity:g} is asked for (gates.training.ndcg10_over_popularity)"
        )
    wanted = gates.ndcg10_over_best_baseline
    if wanted is not None and over_best < wanted:
        report.complaints.append(
            f"its NDCG@10 is {over_best:.2f} times that of {best}, the best baseline, at least "
            f"{wanted:g} is asked for (gates.training.ndcg10_over_best_baseline)"
        )
    return report


def _slices(
    data_dir: Path,
    description: SourceDescription,
    sequences: Sequences,
    ours: Judged,
    popularity: Judged,
) -> list[Slice]:
    gains, common = (ranking_metrics.gains(one.rank, 10) for one in (ours, popularity))

    def some(name: str, where: NDArray[np.bool_]) -> Slice:
        count = int(where.sum())
        means = [float(one[where].mean()) if count else 0.0 for one in (gains, common)]
        return Slice(name, count, *means)

    found = [some(f"action: {name}", ours.action == name) for name in np.unique(ours.action)]
    found.append(some("new profiles", ours.is_new))
    for name, ids in members(data_dir, description.groups, ours.profile_id).items():
        found.append(some(f"group: {name}", ids))
    return found


def _exported(
    data_dir: Path,
    description: SourceDescription,
    model_repo: Path,
    experiment: Experiment,
    judged_on: Sequences,
    sequences: Sequences,
    final: Fitted,
    report: TrainingReport,
    device: str,
) -> Manifest:
    model = final.model
    if not isinstance(model, FMIntent):
        raise DataUnusableError(f"experiment {report.experiment} is a baseline, which isn't served")
    setup = experiment.training
    scores = {
        name: report.models[report.experiment][name]
        for name in ("hr10", "ndcg10", "mrr", "recall100")
    }
    scores |= {f"popularity_{name}": report.models["popularity"][name] for name in scores}
    manifest = Manifest(
        version=0,
        source=description.name,
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
        experiment=report.experiment,
        seed=description.training.seed,
        epochs=final.epochs,
        seconds=report.seconds,
        params=parameters(model),
        window=setup.window,
        titles=sequences.domain.vocabulary,
        trained_intents=[
            name for name, on in zip(INTENTS, sequences.domain.trained, strict=True) if on
        ],
        data_sha256=data_sha256(data_dir),
        metrics=scores,
        report=asdict(report),
        config=asdict(experiment),
        trained_until_ms=int(sequences.columns.start_ms.max()),
        refitted=sequences.split == "everything",
    )
    # Places in the same columns, whatever was held out.
    held_out = judged_on.last_contexts(setup.window, setup.crops)
    clusters = None
    if model.architecture.intents == "hierarchical":
        clusters = found_clusters(model, sequences, held_out, description.training.seed, device)
    golden = sample(held_out, 32, description.training.seed)
    carried = Carried(
        contract.read(data_dir / contract.CATALOGUE_FILE),
        sequences.labels,
        (data_dir / DESCRIPTION_FILE).read_bytes(),
    )
    return export(model, manifest, sequences.windows(golden), model_repo, clusters, carried)


def insist(trained: Trained, page: Path) -> Manifest:
    """The version that was exported.

    Raises:
        GateError: when a gate held it back.
    """
    if trained.manifest is None:
        raise GateError(
            f"no version was exported: {'; '.join(trained.report.complaints)}. See {page}; use "
            "more data, or change the gates in source.yaml"
        )
    return trained.manifest
