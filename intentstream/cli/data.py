"""A service's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

app = typer.Typer()

data = typer.Typer(no_args_is_help=True, help="A service's own events and catalogue.")
app.add_typer(data, name="data")

_SOME_REJECTED: Final = 3


@data.command("init")
def data_init(
    paths: Annotated[
        list[str], typer.Argument(help="Files, folders, globs or URLs of events and catalogue.")
    ],
    into: Annotated[Path, typer.Option(help="The file to write.")] = Path("source.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite it.")] = False,
) -> None:
    """Write a commented source.yaml, guessed from files; say what was guessed and what wasn't."""
    from intentstream.checks import run_init

    run_init(paths, into, force=force)


@data.command("check")
def data_check(
    file: Annotated[Path, typer.Argument(help="A source.yaml.")] = Path("source.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    page: Annotated[
        Path | None, typer.Option(help="Write a page with pictures, one file of HTML.")
    ] = None,
) -> None:
    """Look for every kind of fault in a source's data before anything is trained on it.

    The exit code is 0 where nothing is wrong, 1 with warnings alone, 2 with errors, or where it
    can't be checked. Thresholds are `gates.check` of the file; docs/source-yaml.md lists them.
    """
    from intentstream.checks import run_check

    raise typer.Exit(run_check(file, as_json=as_json, page=page))


@data.command("schema")
def data_schema() -> None:
    """Print the JSON Schema of source.yaml, for editors."""
    import json

    from fm_intent.data.description import json_schema

    typer.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))


@data.command("import")
def data_import(
    files: Annotated[
        list[str], typer.Argument(help="Files, folders, globs, or URLs that fsspec opens.")
    ],
    adapter: Annotated[
        str, typer.Option(help="What reads them: docs/adapters.md lists the adapters.")
    ],
    into: Annotated[Path, typer.Option(help="Folder of canonical events; made if need be.")],
    option: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE of the adapter; a value is JSON or text. Several times."),
    ] = None,
    format: Annotated[  # noqa: A002
        Literal["auto", "parquet", "jsonl", "csv"], typer.Option(help="By the names, by default.")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one line a file.")] = False,
) -> None:
    """Turn another's events into ours, as Parquet by day; a file is imported once.

    Records that are broken are in rejected.jsonl of the folder, with their reasons; the exit code
    is 3 then.
    """
    from intentstream.imports import run_import

    done = run_import(files, into, adapter, option or (), format, as_json=as_json)
    raise typer.Exit(_SOME_REJECTED if any(one.rejected for one in done) else 0)


@data.command("build")
def data_build(
    source: Annotated[
        str, typer.Argument(help="A source.yaml, or the name of a source, prepared or of ours.")
    ] = "source.yaml",
    engine: Annotated[
        Literal["duckdb", "spark"],
        typer.Option(help="duckdb in this process, spark as its own configuration says."),
    ] = "duckdb",
) -> None:
    """Build histories from events: a day that was joined before, and didn't change, isn't again."""
    from intentstream.builds import run_build

    run_build(source, engine)
