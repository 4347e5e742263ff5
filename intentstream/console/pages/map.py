"""`/api/map`: clusters of intents in the plane, active members among them, segments over time."""

from __future__ import annotations

import asyncio
import csv
from datetime import UTC, datetime
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from intentstream.console.context import Asked
from intentstream.console.live import Live, LiveAsked, now_ms
from intentstream.console.streams import Subject

if TYPE_CHECKING:
    from intentstream.console.members import Moment
    from intentstream.console.streams import Send
    from stream.domain.intent_map import IntentMap

router = APIRouter(prefix="/api/map")

MOST_DOTS: Final = 500
_PACE_S: Final = 0.25
_QUIET_S: Final = 10.0

_COLUMNS: Final = ("minute", "model_version", "cluster", "description", "members", "rows")


@router.get("")
async def follow(console: Asked, live: LiveAsked) -> StreamingResponse:
    """The map of the version that answers, then who moved."""

    async def produce(send: Send) -> None:
        drawn: dict[str, Moment] = {}
        shown = None
        with live.members.all_watched() as watch:
            while True:
                version = await live.version()
                if shown != version:
                    shown, drawn = version, {}
                    send(described(version, await live.map(version), live.feed.trouble), "map")
                mapped = await live.map(version)
                if mapped is not None:
                    send(moved(live, version, mapped, drawn), "dots")
                await asyncio.sleep(_PACE_S)
                await watch.news(_QUIET_S)

    return console.hub.answer(Subject(produce))


@router.get("/segments.csv")
async def segments(live: LiveAsked) -> Response:
    """Members by cluster and minute since the console began to look, a day at most."""
    maps: dict[str, IntentMap | None] = {}
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for one in live.members.segments:
        if one.version not in maps:
            maps[one.version] = await live.map(one.version)
        mapped = maps[one.version]
        known = mapped is not None and 0 <= one.cluster < len(mapped.clusters)
        rows.writerow(
            (
                datetime.fromtimestamp(one.minute_ms / 1000, UTC).isoformat(timespec="minutes"),
                _harmless(one.version),
                one.cluster,
                _harmless(mapped.clusters[one.cluster].description) if mapped and known else "",
                one.members,
                one.rows,
            )
        )
    return Response(
        text.getvalue(),
        media_type="text/csv",
        headers={"Content-Disposition": 'attachment; filename="segments.csv"'},
    )


def described(version: str, mapped: IntentMap | None, problem: str) -> dict[str, Any]:
    """What a page draws once: the clusters of a version."""
    return {
        "version": version,
        "problem": problem,
        "clusters": None
        if mapped is None
        else [
            {
                "number": number,
                "at": one.at,
                "size": one.size,
                "description": one.description,
                "traits": {name: traits.model_dump() for name, traits in one.traits.items()},
            }
            for number, one in enumerate(mapped.clusters)
        ],
    }


def moved(live: Live, version: str, mapped: IntentMap, drawn: dict[str, Moment]) -> dict[str, Any]:
    """Who moved since `drawn`, which is brought up to date, and who left.

    Args:
        live: members.
        version: of the map; rows of another have other embeddings.
        mapped: where embeddings lie.
        drawn: the moment that each dot shows.
    """
    now = {
        profile_id: moment
        for profile_id, moment in live.members.active(MOST_DOTS)
        if moment.version == version
    }
    gone = [profile_id for profile_id in drawn if profile_id not in now]
    changed = [
        (profile_id, moment, known.embedding)
        for profile_id, moment in now.items()
        if drawn.get(profile_id) is not moment
        and (known := live.members.get(profile_id))
        and len(known.embedding) == len(mapped.mean)
    ]
    drawn.clear()
    drawn.update(now)
    places: list[list[float]] = []
    if changed:
        embeddings = np.array([embedding for *_, embedding in changed], np.float32)
        places = mapped.places(embeddings).round(4).tolist()
    return {
        "now_ms": now_ms(),
        "gone": gone,
        "moved": [
            [profile_id, *place, moment.cluster, moment.event_at_ms]
            for (profile_id, moment, _), place in zip(changed, places, strict=True)
        ],
    }


def _harmless(text: str) -> str:
    """A cell's text, so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
