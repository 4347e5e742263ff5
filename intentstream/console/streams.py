"""Server-sent events: one producer for each subject, however many pages look at it.

    subject = Subject(produce)          # produce(send) runs while somebody looks, or always
    return hub.answer(subject)          # an answer that lasts while the page is open

A page that doesn't keep up misses the oldest messages, and costs no more memory for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import orjson
from fastapi import HTTPException
from starlette.responses import StreamingResponse

_log = logging.getLogger(__name__)

MOST_PAGES: Final = 64
"""Streams that are open at a time; whoever comes then is told to come again."""

MOST_WAITING: Final = 64
"""Messages that wait for one page."""

BEAT_S: Final = 15.0
"""Silence after which a stream shows that it lives; proxies close those that don't."""

_RETRY_S: Final = 1.0

Send = Callable[..., None]
"""`send(value, event="message")`: to every page that looks, as JSON."""

Produce = Callable[[Send], Awaitable[None]]
"""Sends messages until it is cancelled; one that fails is started again a second later."""


class Look:
    """What waits for one page."""

    def __init__(self, first: Iterable[bytes]) -> None:
        self._waiting = deque(first, maxlen=MOST_WAITING)
        self._arrived = asyncio.Event()
        self._arrived.set()

    def put(self, message: bytes) -> None:
        """Have a message wait; of too many the oldest goes."""
        self._waiting.append(message)
        self._arrived.set()

    async def messages(self) -> AsyncIterator[bytes]:
        """What waits, as it comes, and a beat where nothing does for long."""
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._arrived.wait()
            except TimeoutError:
                yield b": beat\n\n"
            self._arrived.clear()
            while self._waiting:
                yield self._waiting.popleft()


class Subject:
    """Something to look at.

    Args:
        produce: sends what there is to see; runs from the first page that looks to the last one
            that leaves. None where the owner calls `send` itself.
        first: messages that a page begins with, each a value and the event's name.
    """

    def __init__(
        self,
        produce: Produce | None = None,
        first: Callable[[], Iterable[tuple[Any, str]]] = tuple,
    ) -> None:
        self._produce = produce
        self._first = first
        self._looks: set[Look] = set()
        self._producing: asyncio.Task[None] | None = None

    @property
    def pages(self) -> int:
        """How many pages look at it."""
        return len(self._looks)

    def send(self, value: Any, event: str = "message") -> None:
        """Send a value, as JSON, to all who look."""
        if self._looks:
            message = encoded(value, event)
            for look in self._looks:
                look.put(message)

    @contextmanager
    def looked_at(self) -> Iterator[Look]:
        """A page's look, until it goes."""
        look = Look(encoded(value, event) for value, event in self._first())
        self._looks.add(look)
        if self._produce is not None and self._producing is None:
            self._producing = asyncio.create_task(self._keep_producing(self._produce))
        try:
            yield look
        finally:
            self._looks.discard(look)
            if not self._looks and self._producing is not None:
                self._producing.cancel()
                self._producing = None

    async def _keep_producing(self, produce: Produce) -> None:
        told = ""
        while True:
            try:
                await produce(self.send)
            except Exception as error:
                if told != (told := repr(error)):
                    _log.warning("The console tries again after %s", told)
                self.send({"problem": str(error)}, "problem")
            await asyncio.sleep(_RETRY_S)


def repeated(read: Callable[[], Awaitable[Any]], every_s: float) -> Subject:
    """What `read` answers, read every so often while somebody looks; its errors as `problem`."""
    latest: list[tuple[Any, str]] = []

    async def produce(send: Send) -> None:
        try:
            while True:
                value = await read()
                latest[:] = [(value, "message")]
                send(value)
                await asyncio.sleep(every_s)
        finally:
            latest.clear()

    return Subject(produce, lambda: latest)


class Hub:
    """All open streams of the console.

    Args:
        most: streams that may be open at a time.
    """

    def __init__(self, most: int = MOST_PAGES) -> None:
        self._most = most
        self._open = 0
        self._ends = asyncio.Event()

    def close(self) -> None:
        """End all streams: the process does."""
        self._ends.set()

    def answer(self, subject: Subject) -> StreamingResponse:
        """The answer that shows a subject as long as the page stays.

        Raises:
            HTTPException: 503 when too many streams are open.
        """
        if self._open >= self._most:
            raise HTTPException(503, f"{self._most} pages are open already; close some")
        # Counted when it begins to be sent, one loop turn later: a few too many do no harm.
        return StreamingResponse(self._stream(subject), media_type="text/event-stream")

    async def _stream(self, subject: Subject) -> AsyncIterator[bytes]:
        self._open += 1
        ends = asyncio.ensure_future(self._ends.wait())
        try:
            with subject.looked_at() as look:
                yield b"retry: 1000\n\n"
                messages = look.messages()
                while not ends.done():
                    coming = asyncio.ensure_future(anext(messages))
                    await asyncio.wait((coming, ends), return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done():
                        coming.cancel()
                        break
                    yield coming.result()
        finally:
            ends.cancel()
            self._open -= 1


def encoded(value: Any, event: str = "message") -> bytes:
    """A value as one server-sent event; JSON has no line breaks of its own."""
    return b"event: " + event.encode() + b"\ndata: " + orjson.dumps(value) + b"\n\n"
