"""Model versions in service: publish one, go back, look."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

app = typer.Typer()

model = typer.Typer(no_args_is_help=True, help="Model versions: publish one, go back, look.")
app.add_typer(model, name="model")


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

    from intentstream.paths import LOCAL
    from intentstream.publishing import publish
    from intentstream.release_report import show_drift
    from intentstream.signals import unwind_on_sigterm
    from stream.plain_text import visible
    from stream.settings import settings

    os.nice(10)  # a server and workers on this machine go first
    config = settings()
    with unwind_on_sigterm():
        trial = publish(config, str(version or ""), share=share, shadow_s=shadow_s, home=LOCAL)
        done = asyncio.run(trial)
    show_drift(done)
    now = done.release
    typer.echo(visible(f"version {now.live} is live; {now.previous or 'none'} is kept"))


@model.command("rollback")
def model_rollback() -> None:
    """Make the version before the live one live again, and serve its title vectors again."""
    from intentstream.paths import LOCAL
    from intentstream.publishing import rollback
    from stream.plain_text import visible
    from stream.settings import settings

    now = asyncio.run(rollback(settings(), home=LOCAL))
    typer.echo(visible(f"version {now.live} is live again; {now.previous or 'none'} is kept"))


@model.command("status")
def model_status() -> None:
    """Show all versions, and which is live, kept for a rollback, or a shadow."""
    from intentstream.release_report import show_releases
    from stream.settings import settings

    asyncio.run(show_releases(settings()))
