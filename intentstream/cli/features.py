"""Features and titles: defined, landed, published, read by a search."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

features = typer.Typer(no_args_is_help=True, help="Feast's definitions: register them.")
app.add_typer(features, name="features")


@features.command("apply")
def features_apply() -> None:
    """Register the definitions of this release; a worker that starts does it, too.

    Settings: INTENT_FEATURE_REGISTRY, INTENT_ONLINE_STORE.
    """
    from features.registry.places import registry_of
    from features.registry.registration import is_noted
    from stream.settings import settings

    config = settings()
    registry = registry_of(config)
    # A store other than Redis may lack its tables beside a whole registry.
    if config.online_store != "redis" or not is_noted(registry):
        from features.registry.store import apply

        apply(config)
    typer.echo(f"the definitions of this release are registered in {registry}")


@features.command("init")
def features_init(
    folder: Annotated[Path, typer.Argument(help="Made if need be.")] = Path("features"),
) -> None:
    """Write a folder for `feast apply`, `feast ui` and `feast serve` to run in.

    A worker that is started beside the folder `features` registers where `feast` in it does.
    """
    from features.registry.folder import write_repository

    write_repository(folder)
    typer.echo(
        f"run `feast apply` in {folder} (with INTENT_ONLINE_STORE=sqlite, "
        "`feast -f feature_store_sqlite.yaml apply`)"
    )


@app.command()
def sink() -> None:
    """Land published features as Parquet, each row once, for training on what was served."""
    from stream.logs import set_up
    from stream.settings import settings
    from stream.worker.sink import run_sink

    config = settings()
    set_up(config)
    asyncio.run(run_sink(config))


@app.command()
def titles(
    version: Annotated[
        int | None, typer.Argument(help="Model version; default: the live one, or the newest.")
    ] = None,
) -> None:
    """Publish what is known of titles, with their vectors of a model version."""
    from intentstream.paths import LOCAL
    from intentstream.publishing import publish_titles_again
    from stream.settings import settings

    number, count = asyncio.run(publish_titles_again(settings(), LOCAL, version))
    typer.echo(f"published {count} titles with their vectors of version {number}")


@app.command()
def search() -> None:
    """Serve POST /search/rerank: search candidates re-ranked on live intent; GET /health, /docs.

    Settings: INTENT_SEARCH_HOST, INTENT_SEARCH_PORT, INTENT_RERANK_WEIGHTS, INTENT_REDIS_URL.
    """
    from features.reading.search import serve
    from stream.settings import settings

    serve(settings())
