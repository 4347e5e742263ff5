"""What the served model is asked when its quality is judged."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from fm_intent.data import contract
from fm_intent.data.dataset import load
from intentstream.served_quality import windows
from stream.domain.event_types import Browse, Event, Playback
from stream.domain.profile_state import state_of
from stream.domain.rules import Rules
from stream.domain.version_labels import BUILT_IN
from stream.domain.window import WindowBatch, window_batch

if TYPE_CHECKING:
    from pathlib import Path

HOUR_MS = 3_600_000
TITLES = 30


def history(number: int, steps: int) -> list[Event]:
    """A profile that opens titles and plays some, again and again."""
    rng = np.random.default_rng(number)
    events: list[Event] = []
    for step in range(steps):
        common: dict[str, Any] = {
            "profile_id": f"profile-{number}",
            "title_id": f"title-{rng.integers(TITLES)}",
            "device": str(rng.choice(["tv", "mobile"])),
        }
        at = step * HOUR_MS
        if rng.random() < 0.4:
            events.append(
                Browse(
                    event_id=f"{number}-{step}",
                    occurred_at_ms=at,
                    event_type="title_open",
                    **common,
                )
            )
            continue
        for kind, later, watched in (("play_start", 0, 0.0), ("play_stop", 60_000, 45.0)):
            events.append(
                Playback(
                    event_id=f"{number}-{step}-{kind}",
                    occurred_at_ms=at + later,
                    event_type=kind,
                    playback_id=f"{number}-{step}",
                    watched_s=watched,
                    duration_s=90.0,
                    **common,
                )
            )
    return events


@pytest.fixture(scope="module")
def people() -> dict[str, list[Event]]:
    return {
        f"profile-{number}": history(number, steps)
        for number, steps in enumerate((5, 60, 64, 66, 70, 97, 130, 200))
    }


@pytest.fixture(scope="module")
def source(people: dict[str, list[Event]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    names = [f"title-{number}" for number in range(TITLES)]
    catalogue = contract.table(
        contract.CATALOGUE_SCHEMA,
        {
            "title_id": pa.array(names),
            "name": pa.array(names),
            "kind": pa.array(["movie"] * TITLES),
            "genres": pa.array([["drama"]] * TITLES),
        },
    )
    rows = [event.model_dump() for events in people.values() for event in events]
    wanted = [field.name for field in contract.EVENTS_SCHEMA if field.name in rows[0] | rows[-1]]
    events = contract.table(
        contract.EVENTS_SCHEMA,
        {
            name: pa.array([row.get(name) for row in rows], contract.EVENTS_SCHEMA.field(name).type)
            for name in wanted
        },
    )
    contract.write(folder, catalogue, contract.sorted_events(events))
    return folder


def test_each_context_is_what_the_worker_would_send_at_that_moment(
    people: dict[str, list[Event]], source: Path
) -> None:
    sequences = load(source)
    contexts = sequences.contexts("test", 64, "served")
    asked = windows(sequences, contexts).numbered(BUILT_IN)
    profiles = sequences.columns.profile_id[contexts.profile].tolist()
    before = sequences.columns.start_ms[contexts.end].tolist()
    rules = Rules()
    states = [
        (name, state_of([one for one in people[name] if one.occurred_at_ms < at], rules))
        for name, at in zip(profiles, before, strict=True)
    ]
    wanted = window_batch(states, rules).numbered(BUILT_IN)
    assert len(profiles) == len(people)
    assert {int(length) for length in wanted.length[:, 0]} >= {64}
    for column in fields(WindowBatch):
        if column.name != "sequence_no":
            one, other = getattr(asked, column.name), getattr(wanted, column.name)
            np.testing.assert_array_equal(one, other, err_msg=column.name)
            assert one.dtype == other.dtype
