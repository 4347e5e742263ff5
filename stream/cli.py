"""The command line `intentstream`. Each command imports what it needs when it is called."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

app = typer.Typer(
    name="intentstream",
    help="Real-time intent features: playback and browse events in, live FM-Intent out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def worker() -> None:
    """Run the Faust worker (settings: INTENT_* environment variables)."""
    import faust

    from stream.app import app as faust_app

    level = faust_app.worker_settings.log_level
    faust.Worker(faust_app, loglevel=level, redirect_stdouts=False).execute_from_commandline()


@app.command()
def topics() -> None:
    """Create the topics that are missing; check the others' partitions."""
    from infra.local.topics import create_topics
    from stream.settings import settings

    asyncio.run(create_topics(settings()))


@app.command()
def lag(
    group: Annotated[str | None, typer.Argument(help="Consumer group; default: ours.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a consumer group's lag by topic and partition."""
    from stream.lag import print_lag
    from stream.settings import settings

    asyncio.run(print_lag(settings(), group, as_json=as_json))


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
def up() -> None:
    """Start the local stack on loopback and leave it running."""
    from infra.local import commands

    commands.up()


@app.command()
def down() -> None:
    """Stop the local stack."""
    from infra.local import commands

    commands.down()


@app.command()
def status() -> None:
    """Show what of the local stack runs."""
    from infra.local import commands

    commands.status()


def main() -> None:
    """Run the command line; an error of ours ends it with its message and exit code 1."""
    from features.exceptions import FeaturesError
    from fm_intent.exceptions import ModelError
    from infra.exceptions import InfraError
    from stream.exceptions import StreamError

    try:
        app()
    except (StreamError, FeaturesError, ModelError, InfraError) as error:
        typer.secho(f"{type(error).__name__}: {error}", fg="red", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
