"""Commands of the local stack."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def up(
    servers: Annotated[
        bool, typer.Option("--servers", help="Kafka, Redis and Triton alone, for your own model.")
    ] = False,
) -> None:
    """Start the local stack on loopback and leave it running.

    Where no model is live the newest is made so; where there is none, a small one is trained first.
    """
    from infra.local import commands

    commands.up(servers_alone=servers)


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
