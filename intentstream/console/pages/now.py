"""Now: the figures of the pipeline as they are, the last hour, and the alerts."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import StreamingResponse

from intentstream.console.alerts import Judge, read_rules
from intentstream.console.context import Asked, Console, console_of
from intentstream.console.event_types import EventTypes
from intentstream.console.figures import figures, point
from intentstream.console.prometheus import Prometheus
from intentstream.console.streams import Send, Subject
from stream.exceptions import MetricsUnavailableError

_POINTS: Final = 360
_POINT_EVERY_S: Final = 10.0
_ALERTS_EVERY_S: Final = 10.0


class Now:
    """What there is to see of now; one for all pages that look.

    Args:
        console: what it is made of.
        prometheus: asked for the last hour and the alerts, where there is one.
    """

    def __init__(self, console: Console, prometheus: Prometheus | None) -> None:
        self._readings = console.readings
        self._prometheus = prometheus
        rules = console.settings.console_alert_rules
        self._judge = Judge(read_rules(rules)) if rules and not prometheus else None
        self._types = EventTypes(console.settings, console.readings.now_s)
        self._hour: deque[dict[str, float | None]] = deque(maxlen=_POINTS)
        self._latest: dict[str, Any] | None = None
        self._alerts: dict[str, Any] = {"alerts": [], "from": "", "problem": ""}
        self.subject = Subject(self._follow_types, self._first)

    async def run(self) -> None:
        """Tell the figures of each reading, until cancelled."""
        while True:
            await self._readings.next()
            self.tell()

    def tell(self) -> None:
        """Send what is so now, and keep a point of it now and then."""
        told = figures(self._readings, self._readings.now_s())
        told["types"] = self._types.per_s() if self.subject.pages else {}
        self._latest = told
        if self._judge:
            alerts = self._judge.judged(self._readings, self._readings.now_s())
            self._tell_alerts({"alerts": [asdict(one) for one in alerts], "from": "console"})
        elif not self._prometheus:
            self._tell_alerts({"from": "nobody"})
        if (
            not self._hour
            or told["at_ms"] - (self._hour[-1]["at_ms"] or 0) >= 1000 * _POINT_EVERY_S
        ):
            self._hour.append(point(told))
            self.subject.send(self._hour[-1], "point")
        self.subject.send(told)

    async def follow_prometheus(self, prometheus: Prometheus) -> None:
        """Keep up with the alerts, and with the last hour once it can be asked, until cancelled."""
        has_hour = False
        while True:
            try:
                if not has_hour:
                    self._hour.clear()
                    self._hour.extend(await prometheus.last_hour(self._readings.now_s()))
                    self.subject.send([*self._hour], "hour")
                    has_hour = True
                alerts = [asdict(one) for one in await prometheus.alerts()]
                self._tell_alerts({"alerts": alerts, "from": "prometheus"})
            except MetricsUnavailableError as error:
                self._tell_alerts({**self._alerts, "problem": str(error)})
            await asyncio.sleep(_ALERTS_EVERY_S)

    def _tell_alerts(self, told: dict[str, Any]) -> None:
        told = {"alerts": [], "problem": ""} | told
        if told != self._alerts:
            self._alerts = told
            self.subject.send(told, "alerts")

    async def _follow_types(self, _: Send) -> None:
        await self._types.follow()

    def _first(self) -> list[tuple[Any, str]]:
        first: list[tuple[Any, str]] = [([*self._hour], "hour"), (self._alerts, "alerts")]
        return [*first, (self._latest, "message")] if self._latest else first


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    console = console_of(app)
    url = console.settings.console_prometheus_url
    async with AsyncExitStack() as edges:
        prometheus = await edges.enter_async_context(Prometheus(url)) if url else None
        now = Now(console, prometheus)
        for work in (now.run(), *([now.follow_prometheus(prometheus)] if prometheus else [])):
            edges.callback(asyncio.create_task(work).cancel)
        app.state.now = now
        yield


router = APIRouter(prefix="/api/now", lifespan=_running)


@router.get("/live")
async def live(console: Asked, request: Request) -> StreamingResponse:
    """The figures every two seconds (`message`), the last hour (`hour`, `point`), `alerts`."""
    now: Now = request.app.state.now
    return console.hub.answer(now.subject)
