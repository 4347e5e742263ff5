"""What Prometheus tells: the lines of the last hour, and the state of the alerts."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Self

import httpx

from intentstream.console.alerts import Alert, told_by_prometheus
from stream.exceptions import MetricsUnavailableError

_PATIENCE_S: Final = 3.0
_HOUR_S: Final = 3600
_STEP_S: Final = 10

_WHOLE: Final = 'intentstream_freshness_seconds_bucket{leg="produced_readable"}'
LINES: Final = {
    "events_per_s": "sum(rate(intentstream_events_total[1m]))",
    "published_per_s": "sum(rate(intentstream_published_rows_total[1m]))",
    "freshness_p50": f"histogram_quantile(0.5, sum by (le) (rate({_WHOLE}[1m])))",
    "freshness_p99": f"histogram_quantile(0.99, sum by (le) (rate({_WHOLE}[1m])))",
    "lag": "sum(max by (consumergroup, topic, partition) (kafka_consumergroup_lag))",
}
"""The query of each line."""


class Prometheus:
    """A client of Prometheus.

    Args:
        url: where it is.
        transport: of the client, for tests.
    """

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._client = httpx.AsyncClient(
            base_url=url, timeout=_PATIENCE_S, trust_env=False, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def alerts(self) -> list[Alert]:
        """All alerts and their states.

        Raises:
            MetricsUnavailableError: when it doesn't answer.
        """
        return told_by_prometheus(await self._ask("/api/v1/rules", {"type": "alert"}))

    async def last_hour(self, now_s: float) -> list[dict[str, float | None]]:
        """The points of the lines, as `figures.point` makes them, one every ten seconds.

        Raises:
            MetricsUnavailableError: when it doesn't answer.
        """
        answers = await asyncio.gather(*(self._line(query, now_s) for query in LINES.values()))
        lines = dict(zip(LINES, answers, strict=True))
        times = sorted({at_s for line in answers for at_s in line})
        return [
            {"at_ms": at_s * 1000, **{name: line.get(at_s) for name, line in lines.items()}}
            for at_s in times
        ]

    async def _line(self, query: str, now_s: float) -> dict[float, float | None]:
        asked: dict[str, Any] = {
            "query": query,
            "start": now_s - _HOUR_S,
            "end": now_s,
            "step": _STEP_S,
        }
        answer = await self._ask("/api/v1/query_range", asked)
        return {
            float(at_s): None if value == "NaN" else float(value)
            for series in answer["data"]["result"]
            for at_s, value in series["values"]
        }

    async def _ask(self, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            answer = await self._client.get(path, params=parameters)
            answer.raise_for_status()
            told: dict[str, Any] = answer.json()
            if told.get("status") != "success":
                raise ValueError(told.get("error", "no success"))
        except (httpx.HTTPError, ValueError) as error:
            raise MetricsUnavailableError(
                f"Prometheus at {self._client.base_url} can't be asked ({error!r}); check that it "
                "runs, and INTENT_CONSOLE_PROMETHEUS_URL"
            ) from error
        return told
