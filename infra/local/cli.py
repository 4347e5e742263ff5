"""Commands of the local stack."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer()


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
