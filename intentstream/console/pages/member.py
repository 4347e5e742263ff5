"""`/api/member`: who is active, what a member wants now and why, and acting as one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import StreamingResponse

from intentstream.console.acting import event_for
from intentstream.console.context import Asked
from intentstream.console.live import Live, LiveAsked, living, now_ms
from intentstream.console.streams import Subject
from stream.domain.event_types import LONGEST_ID
from stream.exceptions import ActingRefusedError, BadRecordError, BrokerError

if TYPE_CHECKING:
    from intentstream.console.streams import Send

router = APIRouter(prefix="/api/member", lifespan=living)

_MOST_ACTIVE: Final = 60
_PACE_S: Final = 0.05
"""Between two messages to one page."""
_LOOK_EVERY_S: Final = 5.0
"""How often the store is read where nothing happens: who is erased, or flushed, is gone."""
_ACTIVE_PACE_S: Final = 1.0

ProfileId = Annotated[str, Query(min_length=1, max_length=LONGEST_ID)]


class Acted(BaseModel):
    """What somebody does in a member's name."""

    model_config = ConfigDict(extra="forbid")

    profile_id: str = Field(min_length=1, max_length=LONGEST_ID)
    act: str = Field(max_length=16)
    title_id: str | None = None
    query: str | None = None
    playback_id: str | None = None


@router.get("/active")
async def active(console: Asked, live: LiveAsked) -> StreamingResponse:
    """Who was active last, newest first; once a second while anybody is."""

    async def produce(send: Send) -> None:
        with live.members.all_watched() as watch:
            while True:
                send(await active_now(live))
                await asyncio.sleep(_ACTIVE_PACE_S)
                await watch.news(_LOOK_EVERY_S)

    return console.hub.answer(Subject(produce))


@router.get("/live")
async def follow(console: Asked, live: LiveAsked, profile: ProfileId) -> StreamingResponse:
    """One member, as it changes."""

    async def produce(send: Send) -> None:
        with live.members.watched(profile) as watch:
            looking = asyncio.create_task(live.look_up_state(profile))
            looking.add_done_callback(lambda _: watch.tell())
            try:
                is_news = False
                while True:
                    told = await live.profile(profile, from_store=not is_news)
                    send(told | {"looking": not looking.done()})
                    await asyncio.sleep(_PACE_S)
                    is_news = await watch.news(_LOOK_EVERY_S)
            finally:
                looking.cancel()

    return console.hub.answer(Subject(produce))


@router.get("/acting")
async def acting(live: LiveAsked) -> dict[str, str]:
    """Why nobody may act here; empty where one may."""
    return {"refused": live.may_act()}


@router.post("/act")
async def act(live: LiveAsked, acted: Acted) -> dict[str, Any]:
    """Send a real event. The features that know of it come by the member's stream."""
    titles = await live.titles(await live.version())
    duration_s = titles.of_id(acted.title_id).duration_s if acted.title_id else None
    try:
        event = event_for(**acted.model_dump(), now_ms=now_ms(), duration_s=duration_s)
        live.members.wait_for(event.profile_id, event.event_id)
        sent_ms = await live.actor.send(event)
    except ActingRefusedError as error:
        raise HTTPException(403, str(error)) from error
    except BadRecordError as error:
        raise HTTPException(422, str(error)) from error
    except BrokerError as error:
        raise HTTPException(503, str(error)) from error
    return {
        "event_id": event.event_id,
        "event_type": event.event_type,
        "playback_id": getattr(event, "playback_id", None),
        "sent_ms": sent_ms,
    }


async def active_now(live: Live) -> dict[str, Any]:
    """Who was active last, and what each of them wants most."""
    found = []
    for profile_id, moment in live.members.active(_MOST_ACTIVE):
        known = live.members.get(profile_id)
        labels = known.labels if known else {}
        found.append(
            {
                "profile_id": profile_id,
                "event_at_ms": moment.event_at_ms,
                "published_at_ms": moment.published_at_ms,
                "cluster": moment.cluster,
                "labels": labels,
            }
        )
    return {"now_ms": now_ms(), "members": found, "problem": live.feed.trouble}
