from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from fastapi import HTTPException

from intentstream.console.streams import MOST_WAITING, Hub, Look, Send, Subject, encoded, repeated


def test_strangers_text_cannot_begin_another_event() -> None:
    told = encoded({"title": "a\n\nevent: problem\ndata: {}\r\n</script>"}, "point")
    assert told.startswith(b"event: point\ndata: ")
    assert told.endswith(b"\n\n")
    assert told.count(b"\n") == 3
    assert b"\r" not in told


def test_all_pages_share_one_producer_which_ends_with_the_last() -> None:
    begun, ended = [], []

    async def produce(send: Send) -> None:
        begun.append(1)
        try:
            send("hello")
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    async def look() -> None:
        subject = Subject(produce)
        with subject.looked_at(), subject.looked_at():
            await asyncio.sleep(0)
            assert subject.pages == 2
        await asyncio.sleep(0)
        assert (begun, ended) == ([1], [1])
        with subject.looked_at():
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(look())
    assert (len(begun), len(ended)) == (2, 2)


def test_a_page_that_does_not_keep_up_misses_the_oldest() -> None:
    async def look() -> list[bytes]:
        subject = Subject()
        with subject.looked_at() as seen:
            for number in range(MOST_WAITING + 10):
                subject.send(number)
            return await _next(seen, MOST_WAITING)

    told = asyncio.run(look())
    assert told[0] == encoded(10)
    assert told[-1] == encoded(MOST_WAITING + 9)


async def _next(look: Look, count: int) -> list[bytes]:
    messages = look.messages()
    return [await anext(messages) for _ in range(count)]


def test_a_page_begins_with_what_there_is_already() -> None:
    async def look() -> list[bytes]:
        subject = Subject(first=lambda: [([1, 2], "hour")])
        with subject.looked_at() as seen:
            subject.send(3)
            return await _next(seen, 2)

    assert asyncio.run(look()) == [encoded([1, 2], "hour"), encoded(3)]


def test_a_producer_that_fails_is_told_and_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("intentstream.console.streams._RETRY_S", 0.0)
    tries = []

    async def produce(send: Send) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("away")
        send("back")
        await asyncio.Event().wait()

    async def look() -> list[bytes]:
        with Subject(produce).looked_at() as seen:
            return await _next(seen, 2)

    assert asyncio.run(look()) == [encoded({"problem": "away"}, "problem"), encoded("back")]


def test_too_many_pages_are_told_to_come_again_and_may_once_another_has_gone() -> None:
    async def look() -> None:
        hub, subject = Hub(most=1), Subject()
        first: AsyncIterator[bytes] = hub.answer(subject).body_iterator  # type: ignore[assignment]
        await anext(first)
        with pytest.raises(HTTPException) as told:
            hub.answer(subject)
        assert told.value.status_code == 503
        await first.aclose()  # type: ignore[attr-defined]
        hub.answer(subject)

    asyncio.run(look())


def test_open_streams_end_when_the_console_does() -> None:
    async def look() -> list[bytes]:
        hub, subject = Hub(), Subject()
        stream: AsyncIterator[bytes] = hub.answer(subject).body_iterator  # type: ignore[assignment]
        told = [await anext(stream)]
        asyncio.get_running_loop().call_soon(hub.close)
        told.extend([part async for part in stream])
        assert subject.pages == 0
        return told

    assert asyncio.run(look()) == [b"retry: 1000\n\n"]


def test_what_is_read_again_and_again_is_read_once_for_all_who_look() -> None:
    reads = []

    async def read() -> int:
        reads.append(1)
        return len(reads)

    async def look() -> list[bytes]:
        subject = repeated(read, every_s=3600)
        with subject.looked_at() as first:
            told = await _next(first, 1)
            with subject.looked_at() as second:
                told += await _next(second, 1)
        await asyncio.sleep(0)
        with subject.looked_at() as third:
            return [*told, *await _next(third, 1)]

    assert asyncio.run(look()) == [encoded(1), encoded(1), encoded(2)]
