"""The inference client against a running Triton."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from stream.domain.event_types import Browse
from stream.domain.prediction import Intents
from stream.domain.profile_state import state_of
from stream.domain.rules import Rules
from stream.domain.window import WindowBatch, window_batch
from stream.exceptions import (
    InferenceRefusedError,
    InferenceUnavailableError,
    VersionNotServedError,
)
from stream.inference.client import InferenceClient
from stream.ports import free_ports
from stream.settings import Settings


def windows(*lengths: int) -> WindowBatch:
    """Windows of these many interactions."""
    profiles = []
    for row, length in enumerate(lengths):
        events = [
            Browse(
                event_id=f"{row}-{n}",
                profile_id=f"p{row}",
                occurred_at_ms=1_700_000_000_000 + 60_000 * n,
                event_type="title_open",
                title_id=f"title-{(7 * row + n) % 30}",
            )
            for n in range(length)
        ]
        profiles.append((f"p{row}", state_of(events, Rules())))
    return window_batch(profiles, Rules())


def infer(settings: Settings, batch: WindowBatch) -> Intents:
    async def ask() -> Intents:
        async with InferenceClient(settings) as client:
            return await client.infer(batch)

    return asyncio.run(ask())


@pytest.fixture
def settings(isolated: Settings, served_model: str) -> Settings:
    return isolated.model_copy(update={"model_version": served_model})


def test_answers_come_in_the_order_of_the_profiles_whatever_their_lengths(
    settings: Settings,
) -> None:
    lengths = (9, 1, 64, 3, 40, 2, 17)
    together = infer(settings.model_copy(update={"inference_batch": 2}), windows(*lengths))
    one_by_one = infer(settings.model_copy(update={"inference_batch": 1}), windows(*lengths))
    assert len(np.unique(together.user_embedding[:, 0])) == len(lengths)
    for name, tensor in together.tensors().items():
        if name != "next_title_hash":
            other = one_by_one.tensors()[name]
            np.testing.assert_allclose(tensor, other, atol=1e-5, err_msg=name)


def test_each_answer_names_the_version_that_gave_it(settings: Settings, served_model: str) -> None:
    assert infer(settings, windows(1, 2)).model_version == [served_model] * 2


def test_a_version_that_is_not_loaded_may_come_later(settings: Settings) -> None:
    with pytest.raises(VersionNotServedError):
        infer(settings.model_copy(update={"model_version": "987"}), windows(1))


def test_a_server_that_is_away_may_come_back(settings: Settings) -> None:
    (port,) = free_ports(1)
    away = settings.model_copy(update={"triton_url": f"127.0.0.1:{port}"})
    with pytest.raises(InferenceUnavailableError):
        infer(away, windows(1))


def test_a_request_that_breaks_the_contract_is_refused_for_good(settings: Settings) -> None:
    batch = windows(3)
    with pytest.raises(InferenceRefusedError):
        infer(settings, replace(batch, action=batch.action + 99))


def test_profiles_are_forgotten_in_batches_of_any_size(settings: Settings) -> None:
    async def forget() -> None:
        async with InferenceClient(settings.model_copy(update={"inference_batch": 2})) as client:
            await client.forget(np.arange(5))

    asyncio.run(forget())
