"""What recovery makes of the changelog."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from stream.domain import codec
from stream.domain.profile_state import state_of
from stream.domain.rules import Rules
from stream.exceptions import BadStateError
from stream.settings import Settings
from stream.worker.app import create_app
from tests.unit.stream.domain.test_window import play

EVENTS = [event for number in range(1, 5) for event in play(number, 1)]
STATES = [codec.encode(state_of(EVENTS[:count], Rules())) for count in range(1, 5)]


def recovered(*values: bytes | None) -> tuple[bytes | None, list[BaseException]]:
    """The state of a profile of which the changelog has these, and what ended the worker."""
    app = create_app(Settings())
    ended: list[BaseException] = []

    async def crash(error: BaseException) -> None:
        ended.append(error)

    async def apply() -> None:
        app.crash = crash  # type: ignore[method-assign]
        try:
            app.table.apply_changelog_batch(changelog(values))
        except BadStateError:
            await asyncio.sleep(0)

    asyncio.run(apply())
    return app.table.fetch(b"p1"), ended


def changelog(values: tuple[bytes | None, ...]) -> list[Any]:
    return [
        SimpleNamespace(
            message=SimpleNamespace(
                topic="changelog", partition=0, offset=offset, key=b"p1", value=value, timestamp=1.0
            )
        )
        for offset, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    "values",
    [STATES, [STATES[-1], *STATES], [*STATES[::-1]], [STATES[0], None, STATES[-1]]],
    ids=["in order", "read again", "backwards", "behind a tombstone"],
)
def test_the_newest_state_comes_back_whatever_the_order(values: list[bytes | None]) -> None:
    assert recovered(*values) == (STATES[-1], [])


def test_what_two_owners_wrote_side_by_side_is_joined() -> None:
    one, other = (codec.encode(state_of(some, Rules())) for some in (EVENTS[:3], EVENTS[2:]))
    assert recovered(one, other) == (STATES[-1], [])


def test_a_state_that_can_not_be_read_ends_the_worker_with_its_place() -> None:
    _, (error,) = recovered(STATES[0], b"garbage")
    assert "offset 1" in str(error)
    assert "b'p1'" in str(error)
