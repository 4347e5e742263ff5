"""The worker, its topics, and what is asked of it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import typer

app = typer.Typer()

dlq = typer.Typer(no_args_is_help=True, help="Dead letters: list them, send them again.")
app.add_typer(dlq, name="dlq")

_Reason = Annotated[str | None, typer.Option(help="Only those with this reason.")]


@app.command()
def worker() -> None:
    """Run the Faust worker (settings: INTENT_* environment variables)."""
    import faust

    from stream.worker.app import app as faust_app

    config = faust_app.worker_settings
    faust.Worker(
        faust_app,
        loglevel=config.log_level,
        redirect_stdouts=False,
        quiet=config.log_format == "json",
    ).execute_from_commandline()


@app.command()
def bridge() -> None:
    """Carry another's events from their topic to ours, through an adapter, until SIGTERM.

    Settings: INTENT_BRIDGE_TOPIC, INTENT_BRIDGE_ADAPTER, INTENT_BRIDGE_OPTIONS,
    INTENT_BRIDGE_FORMAT, INTENT_SCHEMA_REGISTRY_URL. docs/adapters.md.
    """
    from intentstream.bridge.service import run_bridge
    from stream.logs import set_up
    from stream.settings import settings

    config = settings()
    set_up(config)
    asyncio.run(run_bridge(config))


@app.command()
def console() -> None:
    """Serve the console: a live page on the pipeline, its members, models and dead letters.

    Settings: INTENT_CONSOLE_HOST, INTENT_CONSOLE_PORT, INTENT_CONSOLE_TOKEN. docs/console.md.
    """
    from intentstream.console.app import serve
    from stream.settings import settings

    serve(settings())


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
    from stream.kafka.admin import create_topics, mend_topics
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
    from stream.kafka.repartition import repartition as move
    from stream.settings import settings
    from stream.steps import progress

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
    from stream.kafka.lag import print_lag
    from stream.settings import settings

    asyncio.run(print_lag(settings(), group, as_json=as_json))


@dlq.command("list")
def dlq_list(
    reason: _Reason = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
) -> None:
    """Show dead letters and why they were rejected."""
    from stream.kafka.dlq import print_dead_letters
    from stream.settings import settings

    asyncio.run(print_dead_letters(settings(), reason=reason, limit=limit, as_json=as_json))


@dlq.command("replay")
def dlq_replay(reason: _Reason = None) -> None:
    """Send dead letters to the topics they came from, once their cause is mended."""
    from stream.kafka.dlq import replay_dead_letters
    from stream.settings import settings

    typer.echo(f"sent {asyncio.run(replay_dead_letters(settings(), reason))} records again")


@app.command()
def erase(
    profile_ids: Annotated[list[str], typer.Argument(help="Profiles to be erased.")],
) -> None:
    """Erase profiles: their state, what the model keeps of them, and their online features.

    The worker does it within moments. docs/erasure.md lists the other copies, and how they go.
    """
    from stream.kafka.erasure import request_erasure
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
    from stream.kafka.republication import all_profiles, request_all, request_republication
    from stream.settings import settings
    from stream.steps import progress

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
def schema(
    topic: Annotated[str, typer.Argument(help="playback-events or browse-events.")],
) -> None:
    """Print the JSON Schema of a topic's events."""
    import orjson

    from stream.domain.events import SCHEMA_TOPICS, json_schema

    if topic not in SCHEMA_TOPICS:
        raise typer.BadParameter(f"choose one of {', '.join(SCHEMA_TOPICS)}")
    typer.echo(orjson.dumps(json_schema(topic), option=orjson.OPT_INDENT_2))
