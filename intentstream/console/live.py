"""What the pages Member, Search and Map share: members, and what their model versions carry."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from fastapi import Depends, FastAPI, Request

from features.reading.intents import Freshness
from features.reading.reader import IntentReader
from features.reading.rerank import TERMS, Reranker, Weights
from intentstream.console.acting import Actor, may_act
from intentstream.console.context import console_of
from intentstream.console.feed import Feed
from intentstream.console.members import Members
from intentstream.console.titles import Titles, read_titles, version_folder
from stream.domain.feature_row import IntentRow
from stream.domain.heads import HEADS
from stream.domain.intent_map import IntentMap, read_map
from stream.domain.labels import DEVICES
from stream.domain.version_labels import BUILT_IN, LABELS_FILE, VersionLabels
from stream.exceptions import (
    BadRowError,
    BadStateError,
    BrokerError,
    LabelsError,
    NoClustersError,
    StoreError,
)
from stream.inference.release import read_release

if TYPE_CHECKING:
    from pathlib import Path

    from intentstream.console.members import Member, Moment
    from stream.settings import Settings

_log = logging.getLogger(__name__)

_VERSIONS: Final = 3
"""Of so many versions titles, labels and map are kept."""
_NEXT: Final = 10
_RELEASE_S: Final = 10.0
_EVEN: Final = Weights(*[1.0] * len(TERMS))

_Kept = TypeVar("_Kept")


class Live:
    """The members' present, in the words of their model versions.

    Args:
        settings: where everything is.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.members = Members()
        self.feed = Feed(settings, self.members)
        self.actor = Actor(settings)
        self.reader = IntentReader(settings)
        self._rerankers: dict[bool, Reranker] = {}
        self._released, self._released_until = "", 0.0
        self._titles: OrderedDict[str, Titles] = OrderedDict()
        self._maps: OrderedDict[str, IntentMap | None] = OrderedDict()
        self._labels: OrderedDict[str, VersionLabels] = OrderedDict()

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow what is published while the block runs."""
        # Loops are compiled, or read from a cache, when they are first needed: before a page is.
        warm = asyncio.create_task(asyncio.to_thread(_warm))
        try:
            async with self.feed.following():
                yield
        finally:
            await warm
            await self.actor.close()
            await self.reader.close()
            for reranker in self._rerankers.values():
                await reranker.close()

    async def titles(self, version: str) -> Titles:
        """The titles of a version."""
        return await _kept(self._titles, version, lambda: read_titles(self.settings, version))

    async def map(self, version: str) -> IntentMap | None:
        """The map of a version's clusters; None where it has none."""
        return await _kept(self._maps, version, lambda: _map_in(self._folder(version)))

    async def labels(self, row: IntentRow) -> VersionLabels | None:
        """What a row's probabilities are of; None where nobody can tell."""
        if row.labels_id == BUILT_IN.id:
            return BUILT_IN
        version = row.model_version
        try:
            return await _kept(self._labels, version, lambda: _labels_in(self._folder(version)))
        except (OSError, LabelsError) as error:
            _log.warning("The labels of model version %s aren't known: %s", version, error)
            return None

    def reranker(self, *, stale_too: bool) -> Reranker:
        """One that tells each term before it is weighted, also by an intent that isn't live."""
        if stale_too not in self._rerankers:
            fresh_for_s = math.inf if stale_too else None
            self._rerankers[stale_too] = Reranker(self.settings, _EVEN, fresh_for_s)
        return self._rerankers[stale_too]

    async def version(self) -> str:
        """The version of the newest row; before there is one the version that is to answer."""
        if newest := self.members.active(1):
            return newest[0][1].version
        if self.settings.model_version or self._released_until > time.monotonic():
            return self.settings.model_version or self._released
        try:
            self._released = (await read_release(self.settings)).live
        except BrokerError as error:
            _log.warning("The release isn't known: %s", error)
        self._released_until = time.monotonic() + _RELEASE_S
        return self._released

    async def profile(self, profile_id: str, *, from_store: bool) -> dict[str, Any]:
        """All that a page shows of one member.

        Args:
            profile_id: whose.
            from_store: read the online store, where the topic's last row isn't newer anyway.
        """
        known = self.members.get(profile_id)
        row, problem = _row_of(known), ""
        if from_store or row is None:
            try:
                (read,) = await self.reader.read_async([profile_id])
                if read.row is None or row is None or _order(read.row) >= _order(row):
                    row = read.row
            except StoreError as error:
                problem = str(error)
        answered = self.members.answered(profile_id)
        told: dict[str, Any] = {
            "profile_id": profile_id,
            "now_ms": now_ms(),
            "freshness": self._freshness(row),
            "fresh_for_ms": self.settings.session_gap_s * 1000,
            "problem": problem or self.feed.trouble,
            "answered": answered and answered._asdict(),
            "row": None,
            "steps": None,
            "moments": [],
        }
        titles = await self.titles(row.model_version if row else await self.version())
        labels = await self.labels(row) if row else BUILT_IN
        if row is not None:
            told["row"] = await self._row(row, titles, labels)
            told["moments"] = _moments(known.moments if known else (), row)
        if known and known.state:
            told["steps"] = await self._steps(known.state, titles, labels)
        return told

    def may_act(self) -> str:
        """Why nobody may act here; empty where one may."""
        return may_act(self.settings)

    def _folder(self, version: str) -> Path:
        return version_folder(self.settings, version)

    def _freshness(self, row: IntentRow | None) -> str:
        if row is None:
            return Freshness.ABSENT
        is_fresh = now_ms() - row.last_event_at_ms <= self.settings.session_gap_s * 1000
        return Freshness.FRESH if is_fresh else Freshness.STALE

    async def _row(
        self, row: IntentRow, titles: Titles, labels: VersionLabels | None
    ) -> dict[str, Any]:
        mapped = await self.map(row.model_version)
        attention = row.intent_attention or [0.0] * len(HEADS)
        return {
            "event_id": row.last_event_id,
            "event_at_ms": row.last_event_at_ms,
            "published_at_ms": row.published_at_ms,
            "sequence_no": row.sequence_no,
            "version": row.model_version,
            "session_length": row.session_length,
            "heads": [
                {
                    "name": head.name,
                    "attention": round(share, 4),
                    "labels": _labels_of(head.name, row, labels),
                    "probs": _rounded(row.probs[head.name]),
                }
                for head, share in zip(HEADS, attention, strict=False)
                if row.probs[head.name]
            ],
            "next": [
                {"title": asdict(titles.of_id(title_id)), "p": round(p, 5)}
                for title_id, p in zip(row.next_title_ids, row.next_title_scores, strict=False)
            ][:_NEXT],
            "cluster": cluster_of(row.intent_cluster, mapped),
        }

    async def _steps(
        self, state: bytes, titles: Titles, labels: VersionLabels | None
    ) -> list[dict[str, Any]] | None:
        known = labels or BUILT_IN
        devices = [*known.devices, *known.device_aliases, *DEVICES]
        try:
            steps = await asyncio.to_thread(_steps_of, state, self.settings, titles, devices)
        except BadStateError as error:
            _log.warning("A state can't be read: %s", error)
            return None
        return [asdict(step) for step in steps]

    async def look_up_state(self, profile_id: str) -> None:
        """Find a member's window in the changelog, where it hasn't been seen."""
        known = self.members.get(profile_id)
        if known and known.state:
            return
        try:
            await self.feed.look_up_state(profile_id)
        except BrokerError as error:
            _log.warning("The changelog can't be read: %s", error)


def live_of(app: FastAPI) -> Live:
    """What an app's pages share."""
    live: Live = app.state.live
    return live


@asynccontextmanager
async def living(app: FastAPI) -> AsyncIterator[None]:
    """Lifespan of what these pages share."""
    app.state.live = Live(console_of(app).settings)
    async with app.state.live.following():
        yield


def _asked(request: Request) -> Live:
    return live_of(request.app)


LiveAsked = Annotated[Live, Depends(_asked)]
"""Type of a handler's argument that takes it."""


def cluster_of(number: int, mapped: IntentMap | None) -> dict[str, Any] | None:
    """What is known of a cluster; None of none."""
    if number < 0:
        return None
    known = mapped.clusters[number] if mapped and number < len(mapped.clusters) else None
    return {
        "number": number,
        "description": known.description if known else "",
        "size": known.size if known else None,
    }


async def _kept(kept: OrderedDict[str, _Kept], version: str, read: Callable[[], _Kept]) -> _Kept:
    """What is kept of a version, else what is read of it now, by a thread."""
    if version not in kept:
        kept[version] = await asyncio.to_thread(read)
        while len(kept) > _VERSIONS:
            kept.popitem(last=False)
    return kept[version]


def _map_in(folder: Path) -> IntentMap | None:
    try:
        return read_map(folder)
    except NoClustersError:
        return None


def _labels_in(folder: Path) -> VersionLabels:
    path = folder / LABELS_FILE
    return VersionLabels.of_json(path.read_bytes(), str(path))


def _labels_of(head: str, row: IntentRow, labels: VersionLabels | None) -> list[str]:
    """The head's labels; where they aren't known the likeliest alone has its name."""
    probs = row.probs[head]
    if labels is not None:
        for one in HEADS:
            names = labels.of_head(one)
            if one.name == head and len(names) == len(probs):
                return list(names)
    best = max(range(len(probs)), key=probs.__getitem__)
    return [row.labels[head] if at == best else f"label {at}" for at in range(len(probs))]


def _row_of(known: Member | None) -> IntentRow | None:
    if known is None or not known.row:
        return None
    try:
        return IntentRow.from_json(known.row)
    except BadRowError:
        return None


def _order(row: IntentRow) -> tuple[int, int]:
    """What the online store's fence compares."""
    return row.last_event_at_ms, row.sequence_no


def _moments(moments: Sequence[Moment] | Any, row: IntentRow) -> list[dict[str, Any]]:
    """Those moments that have the row's labels, so that they can be compared with it."""
    widths = [len(row.probs[head.name]) for head in HEADS]
    told = []
    for moment in moments:
        if (moment.version, len(moment.probs)) != (row.model_version, sum(widths)):
            continue
        probs: Mapping[str, list[float]] = {}
        at = 0
        for head, width in zip(HEADS, widths, strict=True):
            probs = {**probs, head.name: _rounded(moment.probs[at : at + width].tolist())}
            at += width
        told.append(
            {
                "event_id": moment.event_id,
                "event_at_ms": moment.event_at_ms,
                "sequence_no": moment.sequence_no,
                "cluster": moment.cluster,
                "probs": probs,
            }
        )
    return told


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


def _steps_of(state: bytes, settings: Settings, titles: Titles, devices: list[str]) -> list[Any]:
    from intentstream.console.timeline import timeline
    from stream.domain import codec
    from stream.domain.rules import Rules

    rules = Rules(window_length=settings.window_length, durations=titles.durations)
    return timeline(codec.decode(state), rules, settings.session_gap_s, titles, devices)


def _warm() -> None:
    """Have the loops compiled that a timeline is made by."""
    from intentstream.console.timeline import timeline
    from stream.domain.profile_state import ProfileState
    from stream.domain.rules import Rules

    timeline(ProfileState(), Rules(), 1, Titles({}), ())


def now_ms() -> int:
    """Unix milliseconds."""
    return round(time.time() * 1000)
