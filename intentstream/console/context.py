"""What every page of the console is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from intentstream.console.readings import Readings
from intentstream.console.streams import Hub
from stream.settings import Settings


@dataclass(frozen=True, slots=True)
class Console:
    """The console of one process.

    Attributes:
        settings: everything that a page needs to know.
        readings: what metrics endpoints and Kafka tell.
        hub: the streams that are open.
    """

    settings: Settings
    readings: Readings
    hub: Hub = field(default_factory=Hub)


def console_of(app: FastAPI) -> Console:
    """The console that an app serves; for a router's lifespan."""
    console: Console = app.state.console
    return console


def _asked(request: Request) -> Console:
    return console_of(request.app)


Asked = Annotated[Console, Depends(_asked)]
"""Type of a handler's argument that takes the console."""
