"""Sources of histories, and models that are trained, tested and compared on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from intentstream.cli.options import Source

app = typer.Typer()


@app.command()
def prepare(source: Source = "ml-1m") -> None:
    """Fetch or make a source's catalogue and events, under .local/data; say where."""
    from fm_intent.data.sources import prepare as prepare_source
    from intentstream.paths import LOCAL

    prepare_source(source, LOCAL)


@app.command()
def train(
    source: Source = "ml-1m",
    data: Annotated[
        Path | None,
        typer.Option(
            help="A service's source.yaml, which says what is trained and how: --source, "
            "--experiment, --seed and --max-minutes don't count then, but its `training`."
        ),
    ] = None,
    init: Annotated[
        str, typer.Option(help="With --data: begin with the weights of a version, or of `live`.")
    ] = "",
    refit: Annotated[
        bool, typer.Option(help="With --data: once judged, train on everything before exporting.")
    ] = True,
    experiment: Annotated[str, typer.Option(help="A name in fm_intent.experiments.")] = "served",
    seed: Annotated[int, typer.Option(help="Of weights, batches and dropout.")] = 0,
    max_minutes: Annotated[float | None, typer.Option(help="Wall-clock bound.")] = None,
    device: Annotated[str, typer.Option(help="torch device: cpu or cuda.")] = "cpu",
) -> None:
    """Train FM-Intent on a source, or on a service's own data; export it to model_repo.

    With --data the model is judged on the newest days, told in a report beside baselines, held
    against the gates of source.yaml, trained on everything, and exported with its titles and
    labels. Under `torchrun` several processes train together:

        torchrun --nproc-per-node 2 -m intentstream train --data source.yaml --device cuda
    """
    if data is not None:
        from intentstream.trainings import run_training

        run_training(data, init=init, refit=refit, device=device)
        return
    from fm_intent.data.sources import prepare as prepare_source
    from fm_intent.train import train as train_model
    from intentstream.paths import LOCAL, MODEL_REPOSITORY

    manifest = train_model(
        prepare_source(source, LOCAL),
        MODEL_REPOSITORY,
        experiment=experiment,
        seed=seed,
        max_minutes=max_minutes,
        device=device,
    )
    folder = MODEL_REPOSITORY / "fm_intent" / str(manifest.version)
    typer.echo(f"version {manifest.version} of fm_intent, trained on {manifest.source}, {folder}:")
    for name, value in manifest.metrics.items():
        typer.echo(f"  {name:22} {value:.4f}")


@app.command()
def evaluate(
    source: Source = "ml-1m",
    version: Annotated[
        int | None, typer.Option(help="Model version; default: the source's newest.")
    ] = None,
    through_triton: Annotated[
        bool,
        typer.Option(
            "--through-triton",
            help="Ask the running Triton, with the worker's windows; put the row among those of "
            "`benchmark`.",
        ),
    ] = False,
) -> None:
    """Test an exported version on what its source held out; print the report as JSON."""
    import orjson

    from fm_intent.data.sources import prepare as prepare_source
    from intentstream.paths import LOCAL, MODEL_REPOSITORY

    data_dir = prepare_source(source, LOCAL)
    if through_triton:
        from intentstream.served_quality import evaluate_served
        from stream.settings import settings

        told = evaluate_served(
            settings(),
            data_dir,
            MODEL_REPOSITORY,
            LOCAL / "runs" / f"models-{source}.json",
            version=version,
        )
    else:
        from fm_intent.evaluate import evaluate_version

        manifest, report = evaluate_version(data_dir, MODEL_REPOSITORY, version)
        told = {"version": manifest.version, "source": manifest.source, **report}
    typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2))


@app.command()
def benchmark(
    model: Annotated[
        str,
        typer.Argument(
            help="popularity, gru, sasrec, transact, sasrec-metadata, transact-metadata, v0, v1, "
            "v2, fm-intent, or another experiment in fm_intent.experiments."
        ),
    ],
    source: Source = "ml-1m",
    split: Annotated[
        Literal["leave-one-out", "global-time"], typer.Option(help="What is held out.")
    ] = "leave-one-out",
    seed: Annotated[int, typer.Option(help="Of weights, batches and dropout.")] = 0,
    device: Annotated[str, typer.Option(help="torch device: cpu or cuda.")] = "cpu",
) -> None:
    """Train and test a model under the protocol of its source's table; a killed run goes on.

    Rows, tables and picture of a source are .local/runs/models-<source>.json, .md and .png,
    checkpoints stand beside them. Takes up to hours.
    """
    import orjson

    from fm_intent.benchmark import benchmark as run_benchmark
    from fm_intent.data.sources import prepare as prepare_source
    from intentstream.paths import LOCAL

    runs = LOCAL / "runs"
    name = model.removeprefix(f"{source}-")
    period = "" if split == "leave-one-out" else f"-{split}"
    row = run_benchmark(
        prepare_source(source, LOCAL),
        runs / f"models-{source}.json",
        model=name,
        split=split,
        seed=seed,
        device=device,
        run_dir=runs / f"{source}-{name}{period}-{seed}",
    )
    typer.echo(orjson.dumps(row, option=orjson.OPT_INDENT_2))
    typer.echo(f"the table is {runs / f'models-{source}.md'}", err=True)


@app.command()
def compare(
    ours: Annotated[str, typer.Argument(help="A model of the source's table.")],
    theirs: Annotated[str, typer.Argument(help="Another one.")],
    source: Source = "ml-1m",
    split: Annotated[
        Literal["leave-one-out", "global-time", "as-served"], typer.Option(help="Of the table.")
    ] = "leave-one-out",
    results: Annotated[
        Path | None,
        typer.Option(help="Folder with models-<source>.json; default: where `benchmark` writes."),
    ] = None,
) -> None:
    """Hold two models against each other, profile by profile, without training them again.

    By next title and by each intent that both tell; the mean over the seeds that both have, and
    Student's paired test over profiles.
    """
    from rich.table import Table

    from fm_intent.benchmark import compare as compare_models
    from intentstream.paths import LOCAL
    from stream.plain_text import PlainConsole

    folder = results or LOCAL / "runs"
    table = Table("figure", "seeds", ours, theirs, "gain", "p")
    for one in compare_models(folder / f"models-{source}.json", ours, theirs, split):
        table.add_row(
            one.figure,
            ", ".join(map(str, one.seeds)),
            f"{one.ours:.4f}",
            f"{one.theirs:.4f}",
            f"{one.paired.delta_pct:+.2f} %",
            f"{one.paired.p:.2g}",
        )
    PlainConsole().print(table)


@app.command()
def clusters(
    source: Source = "ml-1m",
    version: Annotated[
        int | None, typer.Option(help="Model version; default: the source's newest.")
    ] = None,
) -> None:
    """Describe and draw a version's clusters of intents.

    Writes .local/runs/clusters-<source>.json, .md and .png; on a simulated source also how well
    they agree with the hidden intents.
    """
    from functools import partial

    import orjson

    from fm_intent.clusters import describe
    from fm_intent.data.sources import prepare as prepare_source
    from fm_intent.data.sources import sources
    from intentstream.paths import LOCAL, MODEL_REPOSITORY

    data_dir = prepare_source(source, LOCAL)
    hidden = sources()[source].hidden
    at = LOCAL / "runs" / f"clusters-{source}.json"
    told = describe(
        data_dir,
        MODEL_REPOSITORY,
        at,
        version=version,
        hidden=partial(hidden, data_dir) if hidden else None,
        command=f"intentstream clusters --source {source}",
    )
    typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    typer.echo(f"the description is {at}", err=True)
