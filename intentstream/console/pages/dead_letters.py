"""Dead letters: how many of which reason, one of them in full, and the command that replays it.

Keys and values are what members sent, so they are told only when they are asked for.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, FastAPI, HTTPException, Request
from starlette.responses import StreamingResponse

from intentstream.console.context import Asked, console_of
from intentstream.console.streams import repeated
from stream.exceptions import UnavailableError
from stream.kafka.deadletters import CUT_HEADER
from stream.kafka.dlq import DeadLetter, dead_letter_at, newest_dead_letters
from stream.settings import Settings

_EVERY_S: Final = 10.0

MOST: Final = 500
"""Dead letters that are listed."""

_MOST_CHARACTERS: Final = 20_000


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    app.state.dead_letters = repeated(partial(_listed, console_of(app).settings), _EVERY_S)
    yield


router = APIRouter(prefix="/api/dead-letters", lifespan=_running)


@router.get("/live")
async def live(console: Asked, request: Request) -> StreamingResponse:
    """The newest, with their counts by reason and by the topic that they came from."""
    return console.hub.answer(request.app.state.dead_letters)


async def _listed(settings: Settings) -> dict[str, Any]:
    found = await newest_dead_letters(settings, MOST)
    counts = Counter((one.reason, one.source_topic) for one in found.letters)
    return {
        "letters": [_place(one) for one in found.letters],
        "standing": found.standing,
        "counts": [
            {"reason": reason, "source_topic": topic, "count": count, "replay": replay(reason)}
            for (reason, topic), count in counts.most_common()
        ],
    }


@router.get("/{topic}/{partition}/{offset}")
async def in_full(
    console: Asked, topic: str, partition: int, offset: int, payload: bool = False
) -> dict[str, Any]:
    """One record; its key, value and headers only with `payload`."""
    try:
        letter = await dead_letter_at(console.settings, topic, partition, offset)
    except UnavailableError as error:
        raise HTTPException(503, str(error)) from error
    if letter is None:
        raise HTTPException(404, "there is no such dead letter, or not any more")
    told = _place(letter)
    told["value_bytes"] = len(letter.value or b"")
    told["replay"] = replay(letter.reason)
    told["can_be_replayed"] = bool(letter.source_topic) and CUT_HEADER not in dict(letter.headers)
    if payload:
        told["key"] = _text(letter.key)
        told["value"] = _text(letter.value)
        told["headers"] = [[name, _text(value)] for name, value in letter.headers]
    return told


def replay(reason: str) -> str:
    """The command that sends dead letters of a reason again, whatever somebody wrote into it."""
    if not reason:
        return "intentstream dlq replay"
    return f"intentstream dlq replay --reason {shlex.quote(reason)}"


def _place(letter: DeadLetter) -> dict[str, Any]:
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp_ms": letter.timestamp_ms,
        "source_topic": letter.source_topic,
        "reason": letter.reason,
        "message": letter.message[:_MOST_CHARACTERS],
    }


def _text(data: bytes | None) -> str | None:
    if data is None:
        return None
    return data[:_MOST_CHARACTERS].decode(errors="backslashreplace")
