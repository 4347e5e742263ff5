"""The command line `intentstream`. Each command imports what it needs when it is called."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

app = typer.Typer(
    name="intentstream",
    help="Real-time intent features: playback and browse events in, live FM-Intent out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

dlq = typer.Typer(no_args_is_help=True, help="Dead letters: list them, send them again.")
app.add_typer(dlq, name="dlq")

model = typer.Typer(no_args_is_help=True, help="Model versions: publish one, go back, look.")
app.add_typer(model, name="model")

_Reason = Annotated[str | None, typer.Option(help="Only those with this reason.")]
_Source = Annotated[
    str,
    typer.Option(
        help="Source of histories: ml-1m, ml-100k, movietweetings, simulator or simulator-null."
    ),
]


@app.command()
def worker() -> None:
    """Run the Faust worker (settings: INTENT_* environment variables)."""
    import faust

    from stream.app import app as faust_app

    level = faust_app.worker_settings.log_level
    faust.Worker(faust_app, loglevel=level, redirect_stdouts=False).execute_from_commandline()


@app.command()
def sink() -> None:
    """Land published features as Parquet, each row once, for training on what was served."""
    import logging

    from features.sink import run_sink
    from stream.settings import settings

    config = settings()
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(run_sink(config))


@app.command()
def titles(
    version: Annotated[
        int | None, typer.Argument(help="Model version; default: the live one, or the newest.")
    ] = None,
) -> None:
    """Publish what is known of titles, with their vectors of a model version."""
    from infra.local.paths import LOCAL
    from infra.titles import publish_chosen_titles
    from stream.settings import settings

    number, count = publish_chosen_titles(settings(), LOCAL, version)
    typer.echo(f"published {count} titles with their vectors of version {number}")


@app.command()
def topics(
    mend: Annotated[
        bool, typer.Option("--mend", help="Set what the others' configuration must be, first.")
    ] = False,
    begin_anew: Annotated[
        bool,
        typer.Option(
            "--begin-anew", help="Accept that the changelog was lost: profiles begin anew."
        ),
    ] = False,
) -> None:
    """Create the topics that are missing; check the others' partitions and configuration."""
    from infra.local.topics import create_topics, mend_topics
    from stream.settings import settings

    if mend:
        for line in asyncio.run(mend_topics(settings())):
            typer.echo(line)
    asyncio.run(create_topics(settings(), begin_anew=begin_anew))


@app.command()
def repartition(
    count: Annotated[
        int | None,
        typer.Argument(min=1, help="Partitions of every topic; default: what they have now."),
    ] = None,
    partitioner: Annotated[
        Literal["murmur2", "crc32", "fnv1a"] | None,
        typer.Option(help="Of the producers; default: the one that explains where states are."),
    ] = None,
) -> None:
    """Give the topics partitions, and move the states of profiles to where they belong then.

    Stop all workers first. If it is cut short, run it again: nothing is lost. docs/partitions.md.
    """
    from infra.steps import progress
    from stream.repartition import repartition as move
    from stream.settings import settings

    config = settings()
    done = asyncio.run(move(config, count, partitioner, progress))
    now = done.topology
    typer.echo(
        f"{done.moved:,} of {done.profiles:,} profiles moved; they are where {now.partitioner} "
        f"has them of {now.partitions} partitions. Start the workers."
    )
    if config.topic_partitions != now.partitions:
        typer.echo(f"`intentstream topics` wants INTENT_TOPIC_PARTITIONS={now.partitions} now.")


@app.command()
def lag(
    group: Annotated[str | None, typer.Argument(help="Consumer group; default: ours.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a consumer group's lag by topic and partition."""
    from stream.lag import print_lag
    from stream.settings import settings

    asyncio.run(print_lag(settings(), group, as_json=as_json))


@dlq.command("list")
def dlq_list(
    reason: _Reason = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Show dead letters and why they were turned away."""
    from stream.dlq import print_dead_letters
    from stream.settings import settings

    asyncio.run(print_dead_letters(settings(), reason=reason, limit=limit, as_json=as_json))


@dlq.command("replay")
def dlq_replay(reason: _Reason = None) -> None:
    """Send dead letters to the topics they came from, once their cause is mended."""
    from stream.dlq import replay_dead_letters
    from stream.settings import settings

    typer.echo(f"sent {asyncio.run(replay_dead_letters(settings(), reason))} records again")


@app.command()
def erase(
    profile_ids: Annotated[list[str], typer.Argument(help="Profiles to be erased.")],
) -> None:
    """Erase profiles: their state, what the model keeps of them, and their online features.

    The worker does it within moments. docs/erasure.md lists the other copies, and how they go.
    """
    from stream.erasure import request_erasure
    from stream.settings import settings

    count = asyncio.run(request_erasure(settings(), profile_ids))
    typer.echo(f"asked for {_profiles(count)} to be erased")


def _profiles(count: int) -> str:
    return "1 profile" if count == 1 else f"{count:,} profiles"


@app.command()
def republish(
    profile: Annotated[
        list[str] | None, typer.Option(help="Only this profile; may be given several times.")
    ] = None,
    per_s: Annotated[
        float, typer.Option(min=0.1, help="Profiles a second, when it is for all.")
    ] = 300.0,
) -> None:
    """Publish features again: of some profiles, or of all that have a state.

    Workers do so by themselves when the online store has lost rows; docs/failures.md says how one
    sees it. Asked by hand, a profile is scored by the live model version and its row written, also
    where the store has it. `intentstream lag` tells how many requests wait.
    """
    from infra.steps import progress
    from stream.republication import all_profiles, request_all, request_republication
    from stream.settings import settings

    config = settings()
    if profile:
        count = asyncio.run(request_republication(config, profile))
    else:
        found = asyncio.run(all_profiles(config))
        count = len(found)
        with progress("profiles", count) as advance:
            asyncio.run(request_all(config, found, per_s=per_s, advance=advance))
    typer.echo(f"asked for {_profiles(count)} to be published again")


@app.command()
def search() -> None:
    """Serve POST /search/rerank: search candidates re-ranked on live intent; GET /health, /docs.

    Settings: INTENT_SEARCH_HOST, INTENT_SEARCH_PORT, INTENT_RERANK_WEIGHTS, INTENT_REDIS_URL.
    """
    from infra.search.service import serve
    from stream.settings import settings

    serve(settings())


@model.command("publish")
def model_publish(
    version: Annotated[
        int | None, typer.Argument(help="Exported version; default: the newest.")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0, max=1, help="Of the profiles, that it answers for unseen first.")
    ] = 0.1,
    shadow_s: Annotated[float, typer.Option(min=0, help="For how many seconds.")] = 60.0,
) -> None:
    """Validate an exported version, load it, shadow live traffic, make it live with its titles."""
    import os

    from features.store import check_online
    from infra.local.paths import LOCAL
    from infra.local.signals import unwind_on_sigterm
    from infra.release import publish, show_drift
    from infra.titles import publish_live_titles
    from stream.plain_text import visible
    from stream.settings import settings

    os.nice(10)  # a server and workers on this machine go first
    config = settings()
    # Now, because a version that is live without its title vectors would be half a release.
    check_online(config)
    with unwind_on_sigterm():
        done = asyncio.run(publish(config, str(version or ""), share=share, shadow_s=shadow_s))
    show_drift(done)
    now = done.release
    typer.echo(visible(f"version {now.live} is live; {now.previous or 'none'} is kept"))
    publish_live_titles(config, LOCAL)


@model.command("rollback")
def model_rollback() -> None:
    """Make the version before the live one live again, and serve its title vectors again."""
    from infra.local.paths import LOCAL
    from infra.release import rollback
    from infra.titles import publish_live_titles
    from stream.plain_text import visible
    from stream.settings import settings

    config = settings()
    now = asyncio.run(rollback(config))
    typer.echo(visible(f"version {now.live} is live again; {now.previous or 'none'} is kept"))
    publish_live_titles(config, LOCAL)


@model.command("status")
def model_status() -> None:
    """Show all versions, and which is live, kept for a rollback, or a shadow."""
    from infra.release import show_releases
    from stream.settings import settings

    asyncio.run(show_releases(settings()))


@app.command()
def schema(
    topic: Annotated[str, typer.Argument(help="playback-events or browse-events.")],
) -> None:
    """Print the JSON Schema of a topic's events."""
    import orjson

    from stream.events import SCHEMA_TOPICS, json_schema

    if topic not in SCHEMA_TOPICS:
        raise typer.BadParameter(f"choose one of {', '.join(SCHEMA_TOPICS)}")
    typer.echo(orjson.dumps(json_schema(topic), option=orjson.OPT_INDENT_2))


@app.command()
def prepare(source: _Source = "ml-1m") -> None:
    """Fetch or make a source's catalogue and events, under .local/data."""
    from infra.local.paths import LOCAL
    from infra.sources import prepare as prepare_source

    prepare_source(source, LOCAL)


@app.command()
def train(
    source: _Source = "ml-1m",
    experiment: Annotated[str, typer.Option(help="A name in fm_intent.experiments.")] = "served",
    seed: Annotated[int, typer.Option(help="Of weights, batches and dropout.")] = 0,
    max_minutes: Annotated[float | None, typer.Option(help="Wall-clock bound.")] = None,
    device: Annotated[str, typer.Option(help="torch device: cpu or cuda.")] = "cpu",
) -> None:
    """Train FM-Intent on a source and export it as the next version in model_repo."""
    from fm_intent.train import train as train_model
    from infra.local.paths import LOCAL, MODEL_REPOSITORY
    from infra.sources import prepare as prepare_source

    manifest = train_model(
        prepare_source(source, LOCAL),
        MODEL_REPOSITORY,
        experiment=experiment,
        seed=seed,
        max_minutes=max_minutes,
        device=device,
    )
    typer.echo(f"version {manifest.version} of fm_intent, trained on {manifest.source}:")
    for name, value in manifest.metrics.items():
        typer.echo(f"  {name:22} {value:.4f}")


@app.command()
def evaluate(
    source: _Source = "ml-1m",
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

    from infra.local.paths import LOCAL, MODEL_REPOSITORY
    from infra.sources import prepare as prepare_source

    data_dir = prepare_source(source, LOCAL)
    if through_triton:
        from infra.bench.served import evaluate_served
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
    source: _Source = "ml-1m",
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
    from infra.local.paths import LOCAL
    from infra.sources import prepare as prepare_source

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


@app.command()
def compare(
    ours: Annotated[str, typer.Argument(help="A model of the source's table.")],
    theirs: Annotated[str, typer.Argument(help="Another one.")],
    source: _Source = "ml-1m",
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
    from infra.local.paths import LOCAL
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
    source: _Source = "ml-1m",
    version: Annotated[
        int | None, typer.Option(help="Model version; default: the source's newest.")
    ] = None,
) -> None:
    """Describe and draw a version's clusters of intents.

    Writes .local/runs/clusters-<source>.json, .md and .png; on a simulated source also how well
    they agree with the hidden intents.
    """
    import orjson
    import pyarrow as pa

    from fm_intent.clusters import describe
    from infra.local.paths import LOCAL, MODEL_REPOSITORY
    from infra.simulator.truth import TRUTH_FILE, intents_in_force
    from infra.sources import prepare as prepare_source
    from stream.taxonomy import INTENTS

    data_dir = prepare_source(source, LOCAL)

    def hidden(profile_id: NDArray[np.str_], start_ms: NDArray[np.int64]) -> dict[str, Any]:
        known = intents_in_force(data_dir, pa.array(profile_id), start_ms)
        return {name: known[name] for name in INTENTS}

    told = describe(
        data_dir,
        MODEL_REPOSITORY,
        LOCAL / "runs" / f"clusters-{source}.json",
        version=version,
        hidden=hidden if (data_dir / TRUTH_FILE).exists() else None,
        command=f"intentstream clusters --source {source}",
    )
    typer.echo(orjson.dumps(told, option=orjson.OPT_INDENT_2))


@app.command()
def simulate(
    out: Annotated[Path | None, typer.Argument(help="Folder for the Parquet files.")] = None,
    kafka: Annotated[bool, typer.Option("--kafka", help="Send the events to Kafka.")] = False,
    members: Annotated[int, typer.Option(min=1)] = 6_000,
    days: Annotated[int, typer.Option(min=1, help="Of event time.")] = 90,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal members.")] = 1,
    null_twin: Annotated[
        bool, typer.Option("--null-twin", help="The same members without session intents.")
    ] = False,
    events_per_s: Annotated[
        float | None, typer.Option(min=0.001, help="Rate of sending; default: all Kafka takes.")
    ] = None,
    speed_up: Annotated[
        float | None, typer.Option(min=0.001, help="Or event time, so many times as fast.")
    ] = None,
) -> None:
    """Simulate members with hidden intents over a real catalogue; write or send their events."""
    from infra.simulator import SimulatorParameters
    from infra.simulator import simulate as run_simulation
    from infra.simulator.live import send
    from infra.steps import progress
    from stream.settings import settings

    parameters = SimulatorParameters(seed=seed, members=members, days=days)
    if null_twin:
        parameters = parameters.null_twin()
    if kafka == (out is not None):
        raise typer.BadParameter("name a folder to write to, or --kafka")
    if events_per_s is not None and speed_up is not None:
        raise typer.BadParameter("choose one of --events-per-s and --speed-up")
    if out is not None:
        with progress("members", members) as advance:
            run_simulation(parameters, out, advance)
        return
    sent = send(parameters, settings(), events_per_s=events_per_s, speed_up=speed_up)
    typer.echo(f"sent {sent:,} events")


@app.command()
def demo(
    source: _Source = "ml-1m",
    profiles: Annotated[
        int | None, typer.Option(min=1, help="Whole histories to replay; default by source.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample, the damage and the training.")] = 1,
    replay_s: Annotated[
        float, typer.Option(min=0, help="Seconds that sending takes; 0: as fast as it goes.")
    ] = 75.0,
) -> None:
    """Run the whole system on real histories, check every event, show live intents."""
    from infra.demo import run_demo

    run_demo(source, profiles=profiles, seed=seed, replay_s=replay_s)


@app.command()
def up() -> None:
    """Start the local stack on loopback and leave it running."""
    from infra.local import commands

    commands.up()


@app.command()
def down(
    programs: Annotated[
        list[str] | None, typer.Argument(help="Only these, such as worker; default: all.")
    ] = None,
) -> None:
    """Stop the local stack, or some of its programs; `intentstream up` starts them again."""
    from infra.local import commands

    commands.down(programs or ())


@app.command()
def status() -> None:
    """Show what of the local stack runs."""
    from infra.local import commands

    commands.status()


def main() -> None:
    """Run the command line; an error of ours ends it with its message and exit code 1."""
    from features import typechecks
    from features.exceptions import FeaturesError
    from fm_intent.exceptions import ModelError
    from infra.exceptions import InfraError
    from infra.extras import missing_extra
    from stream.exceptions import StreamError
    from stream.logs import mute_clients
    from stream.plain_text import log_plainly

    typechecks.switch_off()
    log_plainly()
    mute_clients()
    try:
        app()
    except (StreamError, FeaturesError, ModelError, InfraError) as error:
        _end(error)
    except ImportError as error:
        if told := missing_extra(error):
            _end(told)
        raise


def _end(error: Exception) -> NoReturn:
    from stream.plain_text import visible_lines

    typer.secho(visible_lines(f"{type(error).__name__}: {error}"), fg="red", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
