"""What the inference client does when servers fail in the middle of its work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pytest

from stream.domain.prediction import Intents
from stream.domain.profile_state import state_of
from stream.domain.rules import Rules
from stream.domain.window import FORGET, WindowBatch, window_batch
from stream.exceptions import (
    InferenceRefusedError,
    InferenceUnavailableError,
    VersionNotServedError,
)
from stream.inference import client as inference
from stream.inference.client import InferenceClient
from stream.inference.placement import placed
from stream.settings import Settings
from tests.unit.stream.domain.test_window import play
from tests.unit.stream.fakes import answer

T = TypeVar("T")

RULES = Rules()
DOWN = InferenceUnavailableError("down")
ABSENT = VersionNotServedError("absent")


@dataclass
class Server:
    """Answers each row with its profile's hash, but for what `fails` says of its nth request."""

    fails: Callable[[int], Exception | None] = lambda _: None
    requests: int = 0
    asked: int = 0
    """For intents."""
    forgot: list[tuple[str, int]] = field(default_factory=list)

    async def ask(self, batch: WindowBatch, version: str) -> Intents:
        forgets = bool((batch.sequence_no == FORGET).all())
        self.requests += 1
        self.asked += not forgets
        if failure := self.fails(self.requests):
            raise failure
        if forgets:
            self.forgot += [(version, int(profile)) for profile in batch.profile_hash[:, 0]]
        intents = answer(len(batch))
        intents.intent_cluster[:] = batch.profile_hash % 1_000
        return intents

    async def close(self) -> None:
        pass


def fleet(*servers: Server) -> dict[str, Server]:
    return {f"triton-{number}": server for number, server in enumerate(servers)}


def use(servers: dict[str, Server], work: Callable[[InferenceClient], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        settings = Settings(inference_batch=1, triton_url=",".join(servers))
        async with InferenceClient(settings, lambda address, _: servers[address]) as client:
            return await work(client)

    return asyncio.run(run())


def windows(rows: int) -> WindowBatch:
    state = state_of(play(1, 1), RULES)
    return window_batch([(f"p{row}", state) for row in range(rows)], RULES)


def infer(servers: dict[str, Server], rows: int = 3) -> None:
    """Ask for the intents of profiles, whose answers must be theirs."""
    batch = windows(rows)
    intents = use(servers, lambda client: client.infer(batch))
    np.testing.assert_array_equal(intents.intent_cluster, batch.profile_hash % 1_000)


def test_only_what_was_not_answered_is_asked_again() -> None:
    servers = fleet(Server(lambda n: DOWN if n == 2 else None))
    infer(servers)
    assert servers["triton-0"].asked == 4


def test_a_round_without_any_answer_is_given_back_to_the_caller() -> None:
    servers = fleet(Server(lambda _: DOWN))
    with pytest.raises(InferenceUnavailableError):
        infer(servers)
    assert servers["triton-0"].asked == 3


def test_a_refusal_is_not_asked_again() -> None:
    with pytest.raises(InferenceRefusedError):
        infer(fleet(Server(lambda n: InferenceRefusedError("no") if n == 2 else None)))


def test_each_profile_is_asked_at_its_own_server() -> None:
    servers = fleet(Server(), Server())
    infer(servers, rows=20)
    homes = np.bincount(placed(windows(20).profile_hash[:, 0], list(servers)))
    assert [server.asked for server in servers.values()] == homes.tolist()


@pytest.mark.parametrize("failure", [DOWN, ABSENT])
def test_profiles_of_a_server_that_answers_nothing_go_to_another(failure: Exception) -> None:
    servers = fleet(Server(lambda _: failure), Server())
    infer(servers, rows=20)
    assert servers["triton-1"].asked == 20


@pytest.mark.parametrize("failure", [DOWN, ABSENT])
def test_a_server_that_was_left_is_not_asked_again_before_it_answers_for_the_version(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_PAUSE_S", 0.001)
    servers = fleet(Server(lambda _: failure), Server())

    async def ask_twice(client: InferenceClient) -> int:
        await client.infer(windows(20))
        before = servers["triton-0"].asked
        tried = servers["triton-0"].requests
        while servers["triton-0"].requests < tried + 3:
            await asyncio.sleep(0.001)
        await client.infer(windows(20))
        return servers["triton-0"].asked - before

    assert use(servers, ask_twice) == 0


def test_a_server_that_answers_small_requests_alone_is_asked_ever_more_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Weak(Server):
        async def ask(self, batch: WindowBatch, version: str) -> Intents:
            if (batch.sequence_no != FORGET).any():
                raise DOWN
            return await super().ask(batch, version)

    weak, real_sleep, pauses = Weak(), asyncio.sleep, []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        await real_sleep(0)

    async def leave_again_and_again(client: InferenceClient) -> None:
        for times in range(1, 8):
            await client.infer(windows(20))
            while weak.requests < times:
                await real_sleep(0)
            await real_sleep(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    use(fleet(weak, Server()), leave_again_and_again)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_server_that_answers_in_part_keeps_its_profiles() -> None:
    servers = fleet(Server(lambda n: DOWN if n == 1 else None), Server())
    infer(servers, rows=20)
    homes = np.bincount(placed(windows(20).profile_hash[:, 0], list(servers)))
    assert [server.asked for server in servers.values()] == [homes[0] + 1, homes[1]]


def test_where_no_server_answers_the_caller_is_told() -> None:
    with pytest.raises(InferenceUnavailableError):
        infer(fleet(Server(lambda _: DOWN), Server(lambda _: DOWN)), rows=20)


def test_a_server_that_was_left_forgets_what_it_owes_before_it_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "_PAUSE_S", 0.001)
    down = True
    back = Server(lambda _: DOWN if down else None)
    servers = fleet(back, Server())

    async def outage(client: InferenceClient) -> None:
        nonlocal down
        await client.infer(windows(20))
        await client.forget(np.array([7, 8]), "3")
        down = False
        while back.forgot[-1:] != [("", 0)]:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
        before = servers["triton-1"].asked, back.asked
        await client.infer(windows(20))
        homes = np.bincount(placed(windows(20).profile_hash[:, 0], list(servers)))
        asked = [back.asked - before[1], servers["triton-1"].asked - before[0]]
        assert asked == homes.tolist()

    use(servers, outage)
    assert servers["triton-1"].forgot == [("3", 7), ("3", 8)]
    assert sorted(back.forgot[:2]) == [("3", 7), ("3", 8)]


def test_a_server_that_was_left_forgets_also_what_the_others_never_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "_PAUSE_S", 0.001)

    class Lacking(Server):
        async def ask(self, batch: WindowBatch, version: str) -> Intents:
            if version == "3":
                raise ABSENT
            return await super().ask(batch, version)

    servers = fleet(Server(lambda n: DOWN if n < 20 else None), Lacking())

    async def forget(client: InferenceClient) -> None:
        await client.infer(windows(20))
        with pytest.raises(VersionNotServedError):
            await client.forget(np.array([7]), "3")
        while ("3", 7) not in servers["triton-0"].forgot:
            await asyncio.sleep(0.001)

    use(servers, forget)


def test_forgetting_reaches_a_server_that_fails_just_then_once_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inference, "_PAUSE_S", 0.001)
    servers = fleet(Server(lambda n: DOWN if n == 1 else None), Server())

    async def forget(client: InferenceClient) -> None:
        await client.forget(np.array([7]), "3")
        while ("3", 7) not in servers["triton-0"].forgot:
            await asyncio.sleep(0.001)

    use(servers, forget)


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        ((DOWN,), InferenceUnavailableError),
        ((DOWN, DOWN), InferenceUnavailableError),
        ((ABSENT, ABSENT), VersionNotServedError),
        ((None, InferenceRefusedError("no")), InferenceRefusedError),
    ],
)
def test_forgetting_that_no_server_took_or_one_refused_is_a_failure(
    failures: tuple[Exception | None, ...], told: type[Exception]
) -> None:
    servers = fleet(*(Server(lambda _, failure=failure: failure) for failure in failures))
    with pytest.raises(told):
        use(servers, lambda client: client.forget(np.array([7]), "3"))


def test_a_server_without_the_version_has_nothing_to_forget() -> None:
    servers = fleet(Server(lambda _: ABSENT), Server())
    use(servers, lambda client: client.forget(np.array([7]), "3"))
    assert servers["triton-1"].forgot == [("3", 7)]
