"""Models under one protocol and one evaluator, as rows of `models-<source>.json`."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from fm_intent import ranking_metrics
from fm_intent.baselines import Popularity
from fm_intent.data.catalogue import SourceCatalogue
from fm_intent.data.dataset import Sequences, Split
from fm_intent.data.event_files import data_sha256
from fm_intent.data.histories import histories_id, is_of_ratings, read_histories, read_plays
from fm_intent.evaluate import Judged, NetworkPredictor, judge
from fm_intent.experiments import EXPERIMENTS, Experiment
from fm_intent.report import HELD_OUT, main_figure, write_report
from fm_intent.served.network import Architecture, FMIntent
from fm_intent.train import fit, parameters
from stream.domain.heads import INTENTS
from stream.exceptions import DataUnusableError, UnknownExperimentError

Row = dict[str, Any]


class _Size(NamedTuple):
    profiles: int
    titles: int
    plays: int


_PUBLISHED: Final = {"ml-1m": _Size(6_040, 3_416, 999_611)}
"""Sizes of sources under the published protocol."""

_MIN_PLAYS: Final = 5
_KEY: Final = ("model", "dataset", "split", "seed", "target_time")
POPULARITY: Final = "popularity"


def source(data_dir: Path, split: Split = "leave-one-out") -> Sequences:
    """A source as it is benchmarked.

    One of ratings, whose events are plays alone, follows the protocol of "Turning Dross Into Gold
    Loss" (arXiv 2309.07602): plays in file order, sorted by time and stable; titles with at least
    five plays; all titles are ranked but those seen. Any other is read as it is served.

    Raises:
        DataUnusableError: when the files are missing, or a known source comes out at another size.
    """
    catalogue = SourceCatalogue.read(data_dir)
    if not is_of_ratings(data_dir):
        return Sequences(read_histories(data_dir), catalogue, split)
    sequences = Sequences(read_plays(data_dir, _MIN_PLAYS), catalogue, split)
    size = _Size(
        sequences.profiles, len(np.unique(sequences.columns.title_hash)), len(sequences.row)
    )
    wanted = _PUBLISHED.get(data_dir.name, size)
    if size != wanted:
        raise DataUnusableError(
            f"{data_dir} gives {size} where the published split has {wanted}; prepare it again"
        )
    return sequences


def benchmark(
    data_dir: Path,
    results: Path,
    *,
    model: str,
    split: Split,
    seed: int,
    device: str,
    run_dir: Path,
) -> Row:
    """Train and test one model; its row takes the place of an earlier one of the same kind.

    A run that was killed goes on where it was when called again with the same arguments.

    Args:
        data_dir: the source's folder; its name is the source's name.
        results: JSON file with a list of rows, made when it isn't there; see `record`.
        model: `popularity`, or the name of an experiment with or without the source before it.
        split: what is held out.
        seed: of weights, batches and dropout.
        device: of torch.
        run_dir: folder of checkpoint, log and learning curve.

    Returns:
        The row.

    Raises:
        UnknownExperimentError: when there is no such model.
        DataUnusableError: as `source` does.
        CheckpointMismatchError: when `run_dir` holds another run.
    """
    name = model.removeprefix(f"{data_dir.name}-")
    experiment = None if name == POPULARITY else _experiment(data_dir.name, name)
    sequences = source(data_dir, split)
    read_as = data_sha256(data_dir) if is_of_ratings(data_dir) else histories_id(data_dir)
    row: Row = {
        "model": name,
        "dataset": data_dir.name,
        "split": split,
        "seed": seed,
        "target_time": False,
        "baseline": True,
        "epochs": 0,
        "seconds": 0.0,
        "params": 0,
        "data_sha256": data_sha256(data_dir),
        "command": f"intentstream benchmark {name} --source {data_dir.name} --split {split} "
        f"--seed {seed} --device {device}",
    }
    if experiment is None:
        judged = judge(Popularity(sequences), sequences, window=1, crops="recent")
        return record(results, row, judged)
    fitted = fit(
        sequences,
        experiment,
        seed=seed,
        run_dir=run_dir,
        data_id=f"{read_as} {split}",
        device=device,
    )
    setup = experiment.training
    judged = judge(
        NetworkPredictor(fitted.model, device), sequences, window=setup.window, crops=setup.crops
    )
    row |= {
        "target_time": experiment.target_time,
        "baseline": not isinstance(experiment.model, Architecture),
        "epochs": fitted.epochs,
        "seconds": round(fitted.seconds, 1),
        "params": parameters(fitted.model),
        "validation_ndcg10": fitted.validation_ndcg10,
    }
    if isinstance(fitted.model, FMIntent):
        shares = fitted.model.title_share_M.tolist()
        row["title_share"] = {INTENTS[intent]: shares[intent] for intent in fitted.model.predicted}
    return record(results, row, judged)


class Compared(NamedTuple):
    """Two models by one figure, each the mean over the seeds that both were trained with."""

    figure: str
    """`ndcg10`, or an intent: its accuracy, of genre its mean average precision."""

    seeds: list[int]
    ours: float
    theirs: float
    paired: ranking_metrics.Paired


def compare(results: Path, ours: str, theirs: str, split: str) -> list[Compared]:
    """Hold one model against another, profile by profile, by all that both have figures of.

    Args:
        results: as of `record`.
        ours: a model with rows of `split`.
        theirs: another.
        split: of the table.

    Raises:
        UnknownExperimentError: when they have no seed in common, or what they got right wasn't
            kept.
    """
    rows = json.loads(results.read_text()) if results.exists() else []
    found: list[dict[int, Row]] = [
        {
            one["seed"]: one
            for one in rows
            if (one["model"], one["split"]) == (model, split) and _kept(results, one).exists()
        }
        for model in (ours, theirs)
    ]
    seeds = sorted(set(found[0]) & set(found[1]))
    if not seeds:
        raise UnknownExperimentError(
            f"{results.name} has nothing of {ours} and {theirs} by the same seed and {split}; "
            "`intentstream benchmark` makes it"
        )
    mine, others = ([some[seed] for seed in seeds] for some in found)
    both = [name for name in mine[0]["intents"] if name in others[0]["intents"]]
    compared = []
    for figure in ("ndcg10", *both):
        our, their = _means(results, mine, others, figure)
        means = float(our.mean()), float(their.mean())
        compared.append(Compared(figure, seeds, *means, ranking_metrics.paired(our, their)))
    return compared


def record(results: Path, row: Row, judged: Judged) -> Row:
    """Put a row among the results, and hold all of them against their best baseline again.

    Beside `results` stand a folder of the same name with what each row got right, profile by
    profile, and the tables and the picture that `write_report` makes of all rows.

    Args:
        results: JSON file with a list of rows; made when it isn't there.
        row: what was judged: `model`, `dataset`, `split`, `seed`, `target_time`, `baseline`, and
            how it came about. Two rows may have a `bound`, `lower` and `upper`, of what there is to
            be known: all rows of their dataset and split then say in `headroom` which share of the
            way between them they have gone.
        judged: how right it was.

    Returns:
        The row with its figures, as written.
    """
    row = row | judged.report
    results.parent.mkdir(parents=True, exist_ok=True)
    kept = _kept(results, row)
    kept.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        kept,
        allow_pickle=False,
        profile_id=judged.profile_id,
        rank=judged.rank.astype(np.int32),
        **{f"intent_{name}": values.astype(np.float32) for name, values in judged.intents.items()},
    )
    splits = list(HELD_OUT)
    with kept.with_name("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # runs side by side may end at the same time
        rows = json.loads(results.read_text()) if results.exists() else []
        rows = [one for one in rows if _key(one) != _key(row)] + [row]
        rows.sort(key=lambda one: (splits.index(one["split"]), one["target_time"], one["ndcg10"]))
        for one in rows:
            one["vs_best_baseline"] = _against_best(one, rows, results, "ndcg10")
            for intent, head in one["intents"].items():
                head["vs_best_baseline"] = _against_best(one, rows, results, intent)
            one["headroom"] = _headroom(one, rows)
            one["over_seeds"] = _over_seeds(one, rows, results)
        part = results.with_suffix(".part")
        part.write_text(json.dumps(rows, indent=1) + "\n")
        part.replace(results)
        write_report(rows, results)
    return row


def _experiment(dataset: str, name: str) -> Experiment:
    found = EXPERIMENTS.get(f"{dataset}-{name}", EXPERIMENTS.get(name))
    if found is None:
        known = [key.removeprefix(f"{dataset}-") for key in EXPERIMENTS if key.startswith(dataset)]
        raise UnknownExperimentError(
            f"no model {name!r} for {dataset}; choose one of {', '.join([POPULARITY, *known])}"
        )
    return found


def _key(row: Row) -> list[Any]:
    return [row[name] for name in _KEY]


def _kept(results: Path, row: Row) -> Path:
    told = "-target-time" if row["target_time"] else ""
    return results.with_suffix("") / f"{row['split']}-{row['model']}-{row['seed']}{told}.npz"


def _against_best(row: Row, rows: Sequence[Row], results: Path, figure: str) -> Row | None:
    """How much better a row is in a figure than the best baseline of its table.

    To choose it by the figure that it is then beaten by favours the baseline. Where what one of the
    two got right is gone, an earlier comparison of the same two stays, or there is none.
    """
    rivals = [
        one
        for one in rows
        if one["baseline"]
        and _is_beside(one, row)
        and (figure == "ndcg10" or figure in one["intents"])
    ]
    best = max(rivals, key=lambda one: _height(one, figure), default=None)
    if best is None or best is row:
        return None
    if not _all_kept(results, [row, best]):
        before = (row if figure == "ndcg10" else row["intents"][figure]).get("vs_best_baseline")
        same = before and [before["model"], before["seed"]] == [best["model"], best["seed"]]
        return before if same else None
    with _right(results, row) as ours, _right(results, best) as theirs:
        compared = ranking_metrics.paired(*_pairs(ours, theirs, figure))
    return {"model": best["model"], "seed": best["seed"], **compared._asdict()}


def _over_seeds(row: Row, rows: Sequence[Row], results: Path) -> Row | None:
    """A model's mean NDCG@10 over its seeds; None where there is but one.

    Its gain is over the baseline of the same table and the same seeds that has the highest mean, by
    the means of each profile; where what a row got right is gone, as in `_against_best`.
    """
    models: dict[str, list[Row]] = {}
    for one in sorted(rows, key=lambda one: int(one["seed"])):
        if _is_beside(one, row):
            models.setdefault(one["model"], []).append(one)
    own = models[row["model"]]
    seeds = [one["seed"] for one in own]
    if len(seeds) < 2:
        return None
    rivals = [
        some
        for some in models.values()
        if some[0]["baseline"] and [one["seed"] for one in some] == seeds
    ]
    best = max(rivals, key=_mean_ndcg10, default=own)
    found: Row = {"seeds": seeds, "ndcg10": _mean_ndcg10(own), "vs_best_baseline": None}
    if best is own:
        return found
    if _all_kept(results, [*own, *best]):
        compared = ranking_metrics.paired(*_means(results, own, best, "ndcg10"))
        found["vs_best_baseline"] = {"model": best[0]["model"], **compared._asdict()}
    elif (before := row.get("over_seeds")) and before["seeds"] == seeds:
        gain = before["vs_best_baseline"]
        found["vs_best_baseline"] = gain if gain and gain["model"] == best[0]["model"] else None
    return found


def _mean_ndcg10(rows: Sequence[Row]) -> float:
    return float(np.mean([one["ndcg10"] for one in rows]))


def _is_beside(row: Row, other: Row) -> bool:
    """Whether two rows stand in one table."""
    return all(row[name] == other[name] for name in ("dataset", "split", "target_time"))


def _all_kept(results: Path, rows: Sequence[Row]) -> bool:
    return all(_kept(results, row).exists() for row in rows)


def _right(results: Path, row: Row) -> NpzFile:
    """What a row got right, profile by profile."""
    found: NpzFile = np.load(_kept(results, row))
    return found


def _means(
    results: Path, ours: Sequence[Row], theirs: Sequence[Row], figure: str
) -> tuple[ranking_metrics.PerRow, ranking_metrics.PerRow]:
    """Both models' values of a figure, row by row, each the mean over its seeds."""
    pairs = []
    for one, other in zip(ours, theirs, strict=True):
        with _right(results, one) as our, _right(results, other) as their:
            pairs.append(_pairs(our, their, figure))
    mine, others = zip(*pairs, strict=True)
    return np.mean(mine, axis=0), np.mean(others, axis=0)


def _pairs(
    ours: Mapping[str, NDArray[Any]], theirs: Mapping[str, NDArray[Any]], figure: str
) -> tuple[ranking_metrics.PerRow, ranking_metrics.PerRow]:
    """Both models' values of a figure, row by row."""
    if figure == "ndcg10":
        _, our, their = np.intersect1d(
            ours["profile_id"], theirs["profile_id"], assume_unique=True, return_indices=True
        )
        return ranking_metrics.gains(ours["rank"][our], 10), ranking_metrics.gains(
            theirs["rank"][their], 10
        )
    # Of profiles in the order of the data, whatever the model; NaN where nobody knows the label.
    mine, other = ours[f"intent_{figure}"], theirs[f"intent_{figure}"]
    known = ~np.isnan(mine)
    return mine[known], other[known]


def _height(row: Row, figure: str) -> float:
    """`ndcg10`, or how well an intent is told."""
    if figure == "ndcg10":
        return float(row["ndcg10"])
    head = row["intents"][figure]
    return float(head[main_figure(head)])


def _headroom(row: Row, rows: Sequence[Row]) -> dict[str, float]:
    """By figure, how far a row has come from the lower bound to the upper one, 0 to 1.

    Of a figure whose bounds' intervals overlap there is none.
    """
    bounds = {
        one["bound"]: one
        for one in rows
        if "bound" in one and all(one[name] == row[name] for name in ("dataset", "split"))
    }
    if set(bounds) != {"lower", "upper"}:
        return {}
    places = {"ndcg10": row} | {
        name: head for name, head in row["intents"].items() if name in bounds["lower"]["intents"]
    }
    shares = {}
    for name, place in places.items():
        low, high = (
            one if name == "ndcg10" else one["intents"][name]
            for one in (bounds["lower"], bounds["upper"])
        )
        figure = name if name == "ndcg10" else main_figure(place)
        if low["ci95"][figure][1] < high["ci95"][figure][0]:
            way = high[figure] - low[figure]
            shares[name] = float((place[figure] - low[figure]) / way)
    return shares
