"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Source = Annotated[
    str,
    typer.Option(
        help="Source of histories: ml-1m, ml-100k, movietweetings, simulator or simulator-null."
    ),
]
