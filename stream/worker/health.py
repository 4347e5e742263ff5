"""The worker's HTTP endpoint: `/metrics`, `/ready` and `/live`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from stream.settings import WorkerSettings


class HealthServer:
    """Serves Prometheus metrics, readiness and liveness.

    Args:
        settings: where to bind.
        is_ready: whether the worker takes events right now; `/ready` answers 503 when not.
        is_alive: whether it gets anywhere; `/live` answers 503 when not, for a supervisor to act.
    """

    def __init__(
        self, settings: WorkerSettings, is_ready: Callable[[], bool], is_alive: Callable[[], bool]
    ) -> None:
        self._settings = settings
        self._is_ready = is_ready
        self._is_alive = is_alive
        self._runner = web.AppRunner(self._app(), access_log=None)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(
            self._runner, self._settings.metrics_host, self._settings.metrics_port
        ).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/live", self._live)
        return app

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _ready(self, _: web.Request) -> web.Response:
        return _answer(self._is_ready(), "ready", "not ready")

    async def _live(self, _: web.Request) -> web.Response:
        return _answer(self._is_alive(), "alive", "stalled")


def _answer(good: bool, yes: str, no: str) -> web.Response:
    return web.Response(text=yes if good else no, status=200 if good else 503)
