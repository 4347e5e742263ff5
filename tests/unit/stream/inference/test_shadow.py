"""The shadow answers its share, and the live path waits for none of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from stream import metrics
from stream.domain.heads import INTENTS
from stream.domain.prediction import Intents
from stream.domain.profile_state import state_of
from stream.domain.rules import Rules
from stream.domain.window import WindowBatch, window_batch
from stream.exceptions import BrokerUnavailableError, InferenceUnavailableError
from stream.inference.release import Release
from stream.inference.shadow import PARTITION, Shadow, is_shadowed
from stream.kafka.outbox import Outgoing
from tests.unit.stream.domain.test_window import play
from tests.unit.stream.fakes import Edges, answer

RELEASE = Release(live="7", shadow="8", shadow_share=1.0)


def batch(rows: int) -> WindowBatch:
    state = state_of(play(1, 1), Rules())
    return window_batch([(f"p{row}", state) for row in range(rows)], Rules())


class Candidate:
    """Answers by its own titles once it is let go."""

    def __init__(self, *, failing: bool = False) -> None:
        self.failing, self.asked = failing, list[tuple[int, str]]()
        self.let_go = asyncio.Event()

    async def infer(self, windows: WindowBatch, version: str) -> Intents:
        self.asked.append((len(windows), version))
        await self.let_go.wait()
        if self.failing:
            raise InferenceUnavailableError("not loaded")
        rows = answer(len(windows))
        return replace(
            rows,
            next_title_hash=rows.next_title_hash + 10,
            model_version=[version] * len(windows),
        )


class BrokenOutbox(Edges):
    async def deliver(self, records: Sequence[Outgoing]) -> None:
        raise BrokerUnavailableError("away")


def count(outcome: str) -> float:
    return float(metrics.SHADOW_ROWS.labels(outcome)._value.get())


def told(edges: Edges) -> list[Any]:
    assert {(record.topic, record.partition) for record in edges.delivered} <= {
        ("intent-shadow", PARTITION)
    }
    return [orjson.loads(record.value or b"") for record in edges.delivered]


def shadowing(
    *offers: tuple[Release, int],
    candidate: Candidate | None = None,
    edges: Edges | None = None,
    yields: int = 0,
) -> tuple[Candidate, list[Any]]:
    """Offer batches of these rows one after another, and only then let the candidate answer.

    After each offer the loop runs `yields` times: three begin the comparison.
    """
    edges = edges or Edges()

    async def offer() -> Candidate:
        asked = candidate or Candidate()
        async with Shadow(asked, edges, most=64, gather_s=0) as shadow:
            for release, rows in offers:
                shadow.offer(release, batch(rows), answer(rows))
                for _ in range(yields):
                    await asyncio.sleep(0)
            asked.let_go.set()
            for _ in range(10):
                await asyncio.sleep(0)
        return asked

    return asyncio.run(offer()), told(edges)


def test_both_answers_and_how_far_they_are_apart_are_told() -> None:
    candidate, records = shadowing((RELEASE, 3))
    assert candidate.asked == [(3, "8")]
    assert [record["overlap"] for record in records] == [0.5] * 3
    assert records[0]["heads"] == dict.fromkeys(INTENTS, 0.0) | {"kind": None}
    assert records[0]["live"]["model_version"] == "7"
    assert records[0]["live"]["next_title_hash"] == list(range(1, 21))
    assert records[0]["shadow"]["model_version"] == "8"
    assert records[0]["shadow"]["next_title_hash"] == list(range(11, 31))
    assert records[0]["profile_hash"] == batch(1).profile_hash.item()


def test_what_is_offered_in_a_short_time_is_one_comparison() -> None:
    candidate, records = shadowing((RELEASE, 3), (RELEASE, 5))
    assert candidate.asked == [(8, "8")]
    assert [record["profile_hash"] for record in records] == [
        *batch(3).profile_hash[:, 0].tolist(),
        *batch(5).profile_hash[:, 0].tolist(),
    ]


def test_what_is_offered_while_a_comparison_runs_is_the_next_one() -> None:
    candidate, records = shadowing((RELEASE, 3), (RELEASE, 5), yields=3)
    assert candidate.asked == [(3, "8"), (5, "8")]
    assert len(records) == 8


def test_a_shadow_has_settled_when_all_that_was_offered_is_compared() -> None:
    async def settled() -> int:
        candidate, edges = Candidate(), Edges()
        candidate.let_go.set()
        async with Shadow(candidate, edges, most=64, gather_s=0.01) as shadow:
            await shadow.settle()
            shadow.offer(RELEASE, batch(3), answer(3))
            await shadow.settle()
            return len(edges.delivered)

    assert asyncio.run(settled()) == 3


def test_each_version_compares_what_was_offered_to_it() -> None:
    other = RELEASE.model_copy(update={"shadow": "9"})
    candidate, _ = shadowing((RELEASE, 3), (other, 5))
    assert candidate.asked == [(3, "8"), (5, "9")]


def test_a_comparison_has_no_more_rows_than_a_request() -> None:
    before = count("skipped")
    candidate, _ = shadowing((RELEASE, 60), (RELEASE, 40))
    assert candidate.asked == [(64, "8")]
    assert count("skipped") == before + 36


def test_without_a_shadow_nothing_is_asked() -> None:
    candidate, records = shadowing((Release(live="7"), 3), (Release(live="7", shadow="8"), 3))
    assert (candidate.asked, records) == ([], [])


def test_a_shadow_that_fails_is_told_and_counted() -> None:
    before = count("failed")

    async def failing() -> Candidate:
        return Candidate(failing=True)

    _, records = shadowing((RELEASE, 3), candidate=asyncio.run(failing()))
    assert records == [{"failed": 3, "version": "8", "error": "not loaded"}]
    assert count("failed") == before + 3


def test_a_broker_that_is_away_does_not_end_the_shadow() -> None:
    before = count("compared")
    shadowing((RELEASE, 3), edges=BrokenOutbox())
    assert count("compared") == before + 3


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_share_of_the_profiles_is_shadowed_always_the_same(share: float) -> None:
    hashes = np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 20_000)
    chosen = is_shadowed(hashes, share)
    assert chosen.mean() == pytest.approx(share, abs=0.01)
    np.testing.assert_array_equal(chosen, is_shadowed(hashes.copy(), share))
    np.testing.assert_array_equal(chosen & is_shadowed(hashes, 1.0), chosen)
