"""The command line `intentstream`. Each command imports what it needs when it is called.

A package adds commands by an entry point of the group `intentstream.commands`, a Typer.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from intentstream.cli import data, features, models, streaming, training
from stream.plugins import plugins

app = typer.Typer(
    name="intentstream",
    help="Real-time intent features: playback and browse events in, live FM-Intent out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for group in (streaming, features, models, training, data):
    app.add_typer(group.app)
for commands in plugins("intentstream.commands"):
    app.add_typer(commands)


def main() -> None:
    """Run the command line; an error of ours ends it with its message and exit code 1."""
    from features.registry import typechecks
    from intentstream.extras import missing_extra
    from stream.exceptions import IntentstreamError
    from stream.logs import mute_clients
    from stream.plain_text import log_plainly

    typechecks.switch_off()
    log_plainly()
    mute_clients()
    try:
        app()
    except IntentstreamError as error:
        _end(error)
    except ImportError as error:
        if told := missing_extra(error):
            _end(told)
        raise


def _end(error: Exception) -> NoReturn:
    from stream.plain_text import visible_lines

    typer.secho(visible_lines(f"{type(error).__name__}: {error}"), fg="red", err=True)
    sys.exit(1)
