"""Models under a published protocol, as rows of `docs/results/models-<source>.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from fm_intent import metrics
from fm_intent.baselines import Popularity
from fm_intent.dataset import Catalogue, Sequences, data_sha256, read_plays
from fm_intent.evaluate import evaluate, next_title_ranks
from fm_intent.exceptions import DataUnusableError
from fm_intent.experiments import EXPERIMENTS
from fm_intent.train import fit, parameters


class _Size(NamedTuple):
    profiles: int
    titles: int
    plays: int


_PUBLISHED: Final = {"ml-1m": _Size(6_040, 3_416, 999_611)}
"""What is left of a source under the published protocol."""

_MIN_PLAYS: Final = 5
SPLIT: Final = "leave-one-out"


def published_split(data_dir: Path) -> Sequences:
    """The source under the protocol of "Turning Dross Into Gold Loss" (arXiv 2309.07602).

    Plays in file order, sorted by time and stable; titles with at least five plays; the last play
    of each profile is for testing and the one before for validation; all titles are ranked but
    those seen.

    Raises:
        DataUnusableError: when the files are missing, or a known source comes out at another size.
    """
    sequences = Sequences(read_plays(data_dir, _MIN_PLAYS), Catalogue.read(data_dir))
    size = _Size(sequences.profiles, sequences.domain.vocabulary, len(sequences.row))
    wanted = _PUBLISHED.get(data_dir.name, size)
    if size != wanted:
        raise DataUnusableError(
            f"{data_dir} gives {size} where the published split has {wanted}; prepare it again"
        )
    return sequences


def benchmark(
    data_dir: Path, results: Path, *, experiment: str, seed: int, device: str, run_dir: Path
) -> dict[str, Any]:
    """Train and test one experiment; its row takes the place of an earlier one of the same kind.

    A run that was killed goes on where it was when called again with the same arguments.

    Args:
        data_dir: the source's folder.
        results: JSON file with a list of rows, made when it isn't there.
        experiment: a name in `EXPERIMENTS`, or `popularity`.
        seed: of weights, batches and dropout.
        device: of torch.
        run_dir: folder of checkpoint, log and learning curve.

    Returns:
        The row.

    Raises:
        DataUnusableError: as `published_split` does.
        CheckpointMismatchError: when `run_dir` holds another run.
    """
    sequences = published_split(data_dir)
    row: dict[str, Any] = {
        "model": experiment,
        "dataset": data_dir.name,
        "split": SPLIT,
        "seed": seed,
        "target_time": False,
        "data_sha256": data_sha256(data_dir),
    }
    if experiment == "popularity":
        rank = next_title_ranks(
            Popularity(sequences), sequences, sequences.contexts("test", 1, "recent")
        )
        row |= {"epochs": 0, "seconds": 0.0, "params": 0, **metrics.next_title_metrics(rank)}
    else:
        chosen = EXPERIMENTS[experiment]
        fitted = fit(
            sequences,
            chosen,
            seed=seed,
            run_dir=run_dir,
            data_sha256=row["data_sha256"],
            device=device,
        )
        report = evaluate(
            fitted.model,
            sequences,
            window=chosen.training.window,
            crops=chosen.training.crops,
            device=device,
        )
        row |= {
            "epochs": fitted.epochs,
            "seconds": round(fitted.seconds, 1),
            "params": parameters(fitted.model),
            "validation_ndcg10": fitted.validation_ndcg10,
            **report,
        }
    _put(row, results)
    return row


def _put(row: dict[str, Any], results: Path) -> None:
    key = ("model", "dataset", "split", "seed", "target_time")
    rows = json.loads(results.read_text()) if results.exists() else []
    others = [one for one in rows if [one[name] for name in key] != [row[name] for name in key]]
    results.parent.mkdir(parents=True, exist_ok=True)
    part = results.with_suffix(".part")
    part.write_text(json.dumps([*others, row], indent=1) + "\n")
    part.replace(results)
