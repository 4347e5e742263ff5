"""`intentstream console`: the pages, what they are made of, and who may see them.

The browser gets one document and a module for each page; what they show comes from `/api/<page>`.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import uvicorn
from fastapi import FastAPI
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from intentstream.console.context import Console, console_of
from intentstream.console.pages import dead_letters, member, models, now, search
from intentstream.console.pages import map as map_page
from intentstream.console.readings import Readings
from intentstream.console.security import Guard, check_exposure
from stream.exceptions import PortTakenError
from stream.logs import set_up, throttle_clients
from stream.ports import is_free

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stream.settings import Settings

PAGES: Final = (now, member, search, map_page, models, dead_letters)
"""Each module has a `router`, with its lifespan."""

_MOST_CONNECTIONS: Final = 256
_CLOSING_S: Final = 2


def create_app(settings: Settings) -> FastAPI:
    """The console; what its pages need runs while the app does.

    Raises:
        InvalidSettingsError: when it would be open to others than it should be.
    """
    check_exposure(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with console_of(app).readings:
            yield

    # Its documentation would load scripts of other sites.
    app = FastAPI(
        title="intentstream console",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.console = Console(settings, Readings(settings))
    app.add_middleware(Guard, settings=settings)
    for page in PAGES:
        app.include_router(page.router)
    static = files("intentstream.console") / "static"
    document = (static / "index.html").read_text()

    @app.get("/")
    async def index() -> HTMLResponse:
        return HTMLResponse(document)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    app.mount("/static", StaticFiles(packages=[("intentstream.console", "static")]))
    return app


class _Server(uvicorn.Server):
    """Ends the open streams when it is to stop, which would else wait for their pages to go."""

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        app: FastAPI = self.config.app  # type: ignore[assignment]
        console_of(app).hub.close()
        await super().shutdown(sockets)  # type: ignore[arg-type]


def serve(settings: Settings) -> None:
    """Serve until stopped, at `console_host` and `console_port`.

    Raises:
        InvalidSettingsError: when it would be open to others than it should be.
        PortTakenError: when another process listens there.
    """
    set_up(settings)
    throttle_clients()
    app = create_app(settings)
    if not is_free(settings.console_port):
        raise PortTakenError("the console", settings.console_port, "INTENT_CONSOLE_PORT")
    config = uvicorn.Config(
        app,
        host=settings.console_host,
        port=settings.console_port,
        log_config=None,
        log_level=settings.log_level.lower(),
        access_log=False,
        # Who is trusted to say who asks is the guard's business.
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_CLOSING_S,
    )
    _Server(config).run()
