"""The command line of the benchmark."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fm_intent.data.contract import EVENTS_FILE
from intentstream.paths import LOCAL
from lab.bench.downstream import report
from lab.bench.downstream.experiment import Setup, measure
from stream.steps import console


def main(
    source: Annotated[str, typer.Option(help="A source that is prepared: ml-1m, simulator …")],
    profiles: Annotated[
        int, typer.Option(min=50, help="Profiles whose intents are published, at most.")
    ] = 3_000,
    requests: Annotated[
        int, typer.Option(min=100, help="Requests of each part of each comparison, at most.")
    ] = 6_000,
    minutes: Annotated[
        float, typer.Option(min=0.5, help="That training the intent model may take.")
    ] = 8.0,
    experiment: Annotated[
        str, typer.Option(help="The intent model: a name in fm_intent.experiments.")
    ] = "demo",
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 1,
) -> None:
    """Measure what intents are worth to a ranker and to a search; docs/results/downstream.*.

    Trains the intent model on what came before T1, once: a training that was killed goes on, and
    one that is over is used again. The rest takes some minutes.
    """
    data_dir = LOCAL / "data" / source
    if not (data_dir / EVENTS_FILE).exists():
        console.print(f"{data_dir} has no events; run `intentstream prepare --source {source}`")
        raise typer.Exit(1)
    home = LOCAL / "runs" / "downstream" / source
    result = measure(Setup(data_dir, home, profiles, requests, minutes, experiment, seed))
    result["command"] = f"python -m lab.bench.downstream {' '.join(sys.argv[1:])}"
    report.keep(source.replace("-", ""), result)
    for task in report.TASKS:
        lift = result[task]
        console.print(
            f"{source} {task}: NDCG@10 {lift['ndcg10_without']} → {lift['ndcg10_with']}, "
            f"{lift['lift_pct']:+.1f} % ({lift['ci95'][0]} to {lift['ci95'][1]}), p {lift['p']:.4f}"
        )


if __name__ == "__main__":
    typer.run(main)
