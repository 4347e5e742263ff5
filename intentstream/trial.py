"""What a version must show before it goes live: right answers, and none too far from the live ones.

It is asked golden requests, compared with the live version on recent windows, and shadowed on live
traffic. Live traffic goes first all the while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
from aiokafka import TopicPartition

from intentstream.undoing import erasures_followed
from stream.domain import topics
from stream.domain.divergence import Divergence, Drift, divergence, drift
from stream.domain.heads import INTENTS
from stream.domain.prediction import Intents, joined
from stream.domain.version_labels import VersionLabels
from stream.domain.window import WindowBatch
from stream.exceptions import InferenceError
from stream.inference.client import InferenceClient
from stream.inference.release import Release, write_release
from stream.inference.shadow import PARTITION
from stream.inference.version_catalogue import catalogue_of
from stream.kafka.connection import running
from stream.kafka.consumer import Consumer
from stream.kafka.recent import recent_windows
from stream.settings import Settings

if TYPE_CHECKING:
    from fm_intent.exported import ExportedVersion

_RECENT: Final = 1_000
"""Profiles on whose windows a version is compared with the live one before any traffic."""

_FAILED_SHARE: Final = 0.01
"""Share of a shadow's answers that may fail: a busy server misses a deadline now and then."""

_ROWS: Final = 4
"""Windows of a request beside live traffic: a live one may have to wait for the end of it."""

_PATIENCE_S: Final = 30.0


_REMEDY: Final = (
    "Train and export another; or, where it is meant to differ that much, as after a change of "
    "data, raise INTENT_RELEASE_MAX_DIVERGENCE or lower INTENT_RELEASE_MIN_OVERLAP"
)


async def check_server(settings: Settings, exported: ExportedVersion) -> None:
    """Whether the server answers as the version does where it was validated."""
    from fm_intent.validation import differences, golden_windows, refused, violations

    version, windows = exported.manifest.version, golden_windows(exported)
    try:
        answers = await _ask_gently(
            settings, windows, str(version), labels_of=lambda _: exported.labels
        )
    except InferenceError as error:
        raise refused(version, [f"the server doesn't answer for it: {error}"]) from error
    problems = [*violations(answers), *differences(exported.answer(windows), answers)]
    if problems:
        raise refused(version, [f"the server's {problem}" for problem in problems])


async def compare_recent(
    settings: Settings, live: str, version: str, labels_of: Callable[[str], VersionLabels]
) -> Drift | None:
    """Drift on the windows of recent profiles."""
    # By itself, because a shadow may put the end of the publication off for long.
    async with erasures_followed(settings, [live, version]):
        windows = await recent_windows(settings, catalogue_of(settings, live), _RECENT)
        if not len(windows):
            return None
        one, other = [
            await _ask_gently(settings, windows, which, labels_of) for which in (live, version)
        ]
    found = drift([divergence(one, other, (labels_of(live), labels_of(version)))])
    _judge(settings, version, found, "on recent windows")
    return found


async def warm(settings: Settings, version: str, labels_of: Callable[[str], VersionLabels]) -> None:
    """Have the version answer recent windows again: most changed while it was a shadow."""
    windows = await recent_windows(settings, catalogue_of(settings, version), _RECENT)
    if len(windows):
        await _ask_gently(settings, windows, version, labels_of)


async def _ask_gently(
    settings: Settings,
    windows: WindowBatch,
    version: str,
    labels_of: Callable[[str], VersionLabels],
) -> Intents:
    """A version's answers; live traffic has the server for itself half of the time."""
    parts = []
    async with InferenceClient.patient(settings, labels_of) as client:
        for start in range(0, len(windows), _ROWS):
            began = time.monotonic()
            rows = np.arange(start, min(start + _ROWS, len(windows)))
            parts.append(await client.infer(windows.rows(rows), version))
            await asyncio.sleep(time.monotonic() - began)
    return joined(parts)


async def shadow_traffic(settings: Settings, release: Release, shadow_s: float) -> Drift | None:
    """Drift of the release's shadow on live traffic."""
    place = TopicPartition(settings.topic(topics.MODEL_SHADOW), PARTITION)
    seen = _Shadowed(release.shadow)
    async with running(Consumer, settings) as consumer:
        consumer.assign([place])
        await consumer.seek_to_end(place)
        await write_release(settings, release)
        ends = time.monotonic() + shadow_s
        while (left := ends - time.monotonic()) > 0:
            for records in (await consumer.getmany(timeout_ms=int(left * 1000) + 1)).values():
                for record in records:
                    seen.observe(orjson.loads(record.value))
    found = seen.drift()
    _judge(settings, release.shadow, found, "on live traffic", seen.complaints())
    return found


@dataclass
class _Shadowed:
    """The comparisons that workers report of a version as a shadow."""

    version: str
    compared: list[Any] = field(default_factory=list)
    failed: int = 0
    last_error: str = ""

    def observe(self, told: Any) -> None:
        """Take in a record of the topic, which may be about an earlier shadow."""
        if told.get("version") == self.version:
            self.failed += told["failed"]
            self.last_error = told["error"]
        elif "shadow" in told and told["shadow"]["model_version"] == self.version:
            self.compared.append(told)

    def drift(self) -> Drift | None:
        heads = {
            head: np.array([one["heads"][head] for one in self.compared], np.float64)
            for head in INTENTS
        }
        overlap = np.array([one["overlap"] for one in self.compared], np.float64)
        return drift([Divergence(heads, overlap)])

    def complaints(self) -> list[str]:
        asked = self.failed + len(self.compared)
        if self.failed <= _FAILED_SHARE * asked:
            return []
        return [f"{self.failed} of {asked} answers failed, the last by {self.last_error}"]


def _judge(
    settings: Settings,
    version: str,
    found: Drift | None,
    where: str,
    complaints: Iterable[str] = (),
) -> None:
    from fm_intent.validation import refused

    problems = list(complaints)
    if found is not None:
        problems += found.complaints(
            max_divergence=settings.release_max_divergence,
            min_overlap=settings.release_min_overlap,
        )
    if problems:
        raise refused(version, [f"{where}, {problem}" for problem in problems], _REMEDY)
