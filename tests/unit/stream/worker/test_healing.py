"""A worker notices what an online store has lost, and publishes that and nothing else again."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import REGISTRY

from features.online.inspection import FencePosition
from stream.domain import codec
from stream.domain.event_types import Browse
from stream.domain.profile_state import ProfileState
from stream.domain.rules import Rules
from stream.exceptions import StoreUnavailableError
from stream.settings import Settings
from stream.worker import healing
from stream.worker.healing import Doubts, Healer, loss
from stream.worker.states import Kept

NOW_S = 1_700_000_000.0
LONG_AGO_S = NOW_S - 3600


def state_of(*times_ms: int) -> ProfileState:
    state = ProfileState()
    for number, at_ms in enumerate(times_ms):
        event = Browse(
            event_id=f"e{number}",
            profile_id="p",
            occurred_at_ms=at_ms,
            event_type="title_open",
            title_id="t",
        )
        state.apply(event, Rules())
    return state


@dataclass
class World:
    """States, store and pipeline in one; what is republished is there again."""

    states: dict[bytes, bytes] = field(default_factory=dict)
    kept: list[Kept] = field(default_factory=list)
    rows: dict[str, FencePosition] = field(default_factory=dict)
    published: list[bytes] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    server: str = "one"
    sentinels: dict[int, int] = field(default_factory=dict)
    titles_of: str | None = None
    live: str = ""
    partitions: set[int] = field(default_factory=lambda: {0, 1})
    loop: asyncio.Runner = field(default_factory=asyncio.Runner)
    """A service belongs to one event loop."""

    def keep(
        self, name: str, state: ProfileState, partition: int = 0, at_s: float = LONG_AGO_S
    ) -> None:
        self.states[name.encode()] = codec.encode(state)
        self.kept.append(Kept(partition, name.encode(), at_s))

    def store(self, name: str) -> None:
        state = codec.decode(self.states[name.encode()])
        self.rows[name] = FencePosition(state.last_at_ms or state.erased_at_ms, state.sequence_no)

    def fetch(self, key: bytes) -> bytes | None:
        return self.states.get(key)

    def newest_first(self) -> Sequence[Kept]:
        return sorted(self.kept, key=lambda kept: -kept.at_s)

    async def places(self, profile_ids: Sequence[str]) -> list[FencePosition | None]:
        if self.failures:
            raise self.failures.pop()
        return [self.rows.get(name) for name in profile_ids]

    async def servers(self) -> frozenset[str] | None:
        return frozenset([self.server])

    async def beats(self, partitions: Collection[int]) -> dict[int, int | None]:
        return {number: self.sentinels.get(number) for number in partitions}

    async def titles(self) -> str | None:
        return self.titles_of

    async def beat(self, beats: Mapping[int, int]) -> None:
        self.sentinels |= beats

    async def republish(self, profiles: Sequence[Kept]) -> None:
        for kept in profiles:
            self.published.append(kept.key)
            self.store(kept.key.decode())

    def flush(self) -> None:
        self.rows.clear()
        self.sentinels.clear()

    def healer(self, **config: Any) -> Healer:
        return Healer(
            Settings(**config),
            states=self,
            store=self,
            pipeline=self,
            live=lambda: self.live,
            owned=lambda: self.partitions,
            clock=lambda: NOW_S,
        )


def heal(world: World, healer: Healer) -> list[bytes]:
    """What is published again once the healer has looked at the sentinels and acted on it."""
    world.published.clear()

    async def act() -> None:
        await healer.look()
        if healer._doubted:
            await healer._make_whole()

    world.loop.run(act())
    return world.published


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healing, "_SETTLED_S", 0.001)


def test_a_row_is_lost_when_it_is_missing_or_older_than_its_state() -> None:
    state = state_of(1000, 2000)
    assert loss(state, None) == "missing"
    assert loss(state, FencePosition(1000, 1)) == "older"
    assert loss(state, FencePosition(2000, state.sequence_no - 1)) == "older"
    assert loss(state, FencePosition(2000, state.sequence_no)) is None
    assert loss(state, FencePosition(3000, 1)) is None


def test_of_an_erased_profile_the_store_must_hold_its_erasure() -> None:
    erased = state_of(1000).erased(5000)
    assert loss(erased, None) == "missing"
    assert loss(erased, FencePosition(1000, 1)) == "older"
    assert loss(erased, FencePosition(5000, 0)) is None


def test_of_a_profile_that_nothing_is_known_of_nothing_is_lost() -> None:
    assert loss(ProfileState(), None) is None


def test_a_store_that_goes_on_is_not_doubted() -> None:
    doubts = Doubts()
    assert doubts.observe({0: None}, frozenset("a")) == {0: "assigned"}
    doubts.written({0: 7})
    assert doubts.observe({0: 7}, frozenset("a")) == {}
    # A worker that is taken for gone may have written after this one.
    assert doubts.observe({0: 8}, frozenset("a")) == {}


@pytest.mark.parametrize(
    ("beat", "server", "cause"),
    [(None, "a", "sentinel"), (6, "a", "sentinel"), (7, "b", "server")],
)
def test_a_lost_or_older_sentinel_and_another_server_raise_doubts(
    beat: int | None, server: str, cause: str
) -> None:
    doubts = Doubts()
    doubts.observe({0: None}, frozenset("a"))
    doubts.written({0: 7})
    assert doubts.observe({0: beat}, frozenset(server)) == {0: cause}


def test_a_server_that_does_not_tell_its_name_is_no_other() -> None:
    doubts = Doubts()
    doubts.observe({0: None}, frozenset("a"))
    doubts.written({0: 7})
    assert doubts.observe({0: 7}, None) == {}
    assert doubts.observe({0: 7}, frozenset("a")) == {}


def test_what_a_flushed_store_has_lost_is_published_again_the_latest_first() -> None:
    world = World()
    for number in range(100):
        world.keep(f"p{number}", state_of(1000 + number), at_s=LONG_AGO_S + number)
        world.store(f"p{number}")
    healer = world.healer()
    assert heal(world, healer) == []
    world.flush()
    assert heal(world, healer) == [f"p{number}".encode() for number in reversed(range(100))]
    assert heal(world, healer) == []


def test_only_what_is_missing_or_older_is_published_again() -> None:
    world = World()
    for name in ("whole", "missing", "older"):
        world.keep(name, state_of(1000, 2000))
        world.store(name)
    healer = world.healer()
    heal(world, healer)
    del world.rows["missing"]
    world.rows["older"] = FencePosition(1000, 1)
    world.server = "two"
    before = REGISTRY.get_sample_value("intentstream_healed_rows_total", {"loss": "older"}) or 0
    assert sorted(heal(world, healer)) == [b"missing", b"older"]
    after = REGISTRY.get_sample_value("intentstream_healed_rows_total", {"loss": "older"})
    assert after == before + 1


def test_partitions_of_other_workers_are_left_alone() -> None:
    world = World(partitions={1})
    world.keep("mine", state_of(1000), partition=1)
    world.keep("theirs", state_of(1000), partition=0)
    assert heal(world, world.healer()) == [b"mine"]


def test_rows_that_expired_are_not_lost() -> None:
    world = World()
    world.keep("expired", state_of(1000), at_s=NOW_S - 601)
    world.keep("alive", state_of(1000), at_s=NOW_S - 599)
    assert heal(world, world.healer(feature_ttl_s=600)) == [b"alive"]


def test_a_row_that_is_on_its_way_is_not_lost() -> None:
    world = World()
    world.keep("on its way", state_of(1000), at_s=NOW_S)
    seen = 0

    async def places(profile_ids: Sequence[str]) -> list[FencePosition | None]:
        nonlocal seen
        seen += 1
        if seen > 1:
            world.store("on its way")
        return [world.rows.get(name) for name in profile_ids]

    world.places = places  # type: ignore[method-assign]
    assert heal(world, world.healer()) == []
    assert seen == 2


def test_a_row_that_was_lost_just_after_it_was_written_is_published_again() -> None:
    world = World()
    world.keep("young", state_of(1000), at_s=NOW_S)
    assert heal(world, world.healer()) == [b"young"]


def test_a_store_that_can_not_be_asked_stays_doubted() -> None:
    world = World(failures=[StoreUnavailableError("away")])
    world.keep("p", state_of(1000))
    healer = world.healer()
    with pytest.raises(StoreUnavailableError):
        heal(world, healer)
    assert heal(world, healer) == [b"p"]


def test_a_store_that_is_flushed_again_meanwhile_is_looked_through_again() -> None:
    world = World()
    for number in range(200):
        world.keep(f"p{number}", state_of(1000), at_s=LONG_AGO_S + number)
    healer = world.healer()
    republish = world.republish

    async def flushed_once(profiles: Sequence[Kept]) -> None:
        await republish(profiles)
        if len(world.published) == 96:
            world.flush()
            await healer.look()

    world.republish = flushed_once  # type: ignore[method-assign]

    async def act() -> None:
        await healer.look()
        while healer._doubted:
            await healer._make_whole()

    world.loop.run(act())
    assert len(world.rows) == 200


def test_windows_of_like_length_are_published_together() -> None:
    world = World()
    for number in range(256):
        events = 1 + number % 4
        state = state_of(*(1000 * (event + 1) for event in range(events)))
        world.keep(f"p{number}", state, at_s=LONG_AGO_S + number)
    republish, portions = world.republish, []

    async def noted(profiles: Sequence[Kept]) -> None:
        states = [codec.decode(world.states[kept.key]) for kept in profiles]
        portions.append({len(state.window) for state in states})
        await republish(profiles)

    world.republish = noted  # type: ignore[method-assign]
    assert len(heal(world, world.healer())) == 256
    assert portions == [{1}, {2}, {3}, {4}]


def test_a_sweep_finds_what_a_store_lost_that_goes_on() -> None:
    world = World()
    for number in range(3):
        world.keep(f"p{number}", state_of(1000))
        world.store(f"p{number}")
    healer = world.healer()
    heal(world, healer)
    del world.rows["p1"]
    assert heal(world, healer) == []
    healer._sweep_s = 0.01  # type: ignore[assignment]
    world.loop.run(healer._sweep())
    assert world.published == [b"p1"]


def test_a_state_that_can_not_be_read_does_not_keep_others_from_being_published() -> None:
    world = World()
    world.keep("good", state_of(1000))
    world.keep("damaged", state_of(1000))
    world.states[b"damaged"] = b"junk"
    assert heal(world, world.healer()) == [b"good"]


@pytest.mark.parametrize(
    ("live", "titles_of", "lost"),
    [("", None, 0), ("2", None, 1), ("2", "1", 1), ("2", "2", 0)],
)
def test_title_vectors_are_lost_where_the_live_version_has_none(
    live: str, titles_of: str | None, lost: int
) -> None:
    world = World(live=live, titles_of=titles_of)
    heal(world, world.healer())
    assert REGISTRY.get_sample_value("intentstream_title_vectors_lost") == lost
