"""The inference client keeps what a slow server answered in time."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from stream.exceptions import InferenceRefused, InferenceUnavailable
from stream.inference import InferenceClient
from stream.intents import Intents
from stream.session import Rules, state_of
from stream.settings import Settings
from stream.window import WindowBatch, window_batch
from tests.unit.stream.fakes import answer
from tests.unit.stream.test_window import play

RULES = Rules()


class FlakyClient(InferenceClient):
    """Fails the requests whose turn is in `failing`; answers each row with its profile's hash."""

    def __init__(self, failing: dict[int, Exception]) -> None:
        super().__init__(Settings(inference_batch=1))
        self.failing, self.asked = failing, 0

    async def _request(self, batch: WindowBatch, version: str) -> Intents:
        self.asked += 1
        if self.asked in self.failing:
            raise self.failing[self.asked]
        intents = answer(len(batch))
        intents.intent_cluster[:] = batch.profile_hash % 1_000
        return intents


def infer(failing: dict[int, Exception], rows: int = 3) -> tuple[FlakyClient, Intents, Any]:
    state = state_of(play(1, 1), RULES)
    batch = window_batch([(f"p{row}", state) for row in range(rows)], RULES)

    async def ask() -> tuple[FlakyClient, Intents]:
        async with FlakyClient(failing) as client:
            return client, await client.infer(batch)

    return *asyncio.run(ask()), batch.profile_hash % 1_000


def test_only_what_was_not_answered_is_asked_again() -> None:
    client, intents, expected = infer({2: InferenceUnavailable("slow")})
    assert client.asked == 4
    np.testing.assert_array_equal(intents.intent_cluster, expected)


def test_a_round_without_any_answer_is_given_back_to_the_caller() -> None:
    with pytest.raises(InferenceUnavailable):
        infer({n: InferenceUnavailable("down") for n in range(1, 4)})


def test_a_refusal_is_not_asked_again() -> None:
    with pytest.raises(InferenceRefused):
        infer({2: InferenceRefused("no")})
