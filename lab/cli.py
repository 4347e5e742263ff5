"""Commands of the laboratory: simulated members, and the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from intentstream.cli.options import Source

app = typer.Typer()


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
    from lab.simulator import SimulatorParameters
    from lab.simulator import simulate as run_simulation
    from lab.simulator.broadcast import send
    from stream.settings import settings
    from stream.steps import progress

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
    source: Source = "ml-1m",
    profiles: Annotated[
        int | None, typer.Option(min=1, help="Whole histories to replay; default by source.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sample, the damage and the training.")] = 1,
    replay_s: Annotated[
        float, typer.Option(min=0, help="Seconds that sending takes; 0: as fast as it goes.")
    ] = 75.0,
) -> None:
    """Run the whole system on real histories, check every event, show live intents."""
    from lab.demo import run_demo

    run_demo(source, profiles=profiles, seed=seed, replay_s=replay_s)
