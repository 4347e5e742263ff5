"""Batches follow each other without one waiting for all of the one ahead, and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from stream.exceptions import InferenceRefusedError, ShuttingDownError
from stream.worker.agent import serve

FULL = 4


@dataclass(eq=False)
class Delivered:
    """A message of the current generation, and who took note of its acknowledgement."""

    offset: int
    log: list[str]
    generation_id: int = 1
    tp: int = 0

    def ack(self, _: object) -> None:
        self.log.append(f"ack {self.offset}")


@dataclass
class Worker:
    """As much of the app as the agent needs; its pipeline is itself, and ends the worker by itself.

    The model answers for a batch only when `answers` is set.
    """

    events: int
    fails: dict[str, Exception] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    crashed: BaseException | None = None
    should_stop: bool = False
    consumer_generation_id: int = 1
    batch_max_events: int = FULL

    def __post_init__(self) -> None:
        self.answers = asyncio.Event()
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.arrive(self.events)
        self.consumer = SimpleNamespace(unacked=set())
        self.pipeline = self

    def arrive(self, events: int) -> None:
        for offset in range(events):
            self.queue.put_nowait(Delivered(offset, self.log, self.consumer_generation_id))

    async def decode(self, records: Sequence[Delivered]) -> str:
        return f"{records[0].offset}-{records[-1].offset}"

    async def session(self, name: str) -> None:
        self.log_step(f"session {name}")

    async def infer(self, name: str) -> str:
        self.log.append(f"infer {name}")
        await self.answers.wait()
        self.log_step(f"answer {name}")
        return f"intents {name}"

    async def publish(self, name: str, intents: str) -> str:
        assert intents == f"intents {name}"
        self.log.append(f"publish {name}")
        await asyncio.sleep(0)
        self.log_step(f"published {name}")
        return f"rows {name}"

    async def announce(self, name: str, rows: str) -> None:
        assert rows == f"rows {name}"
        self.log.append(f"announce {name}")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.log_step(f"announced {name}")

    async def leave(self, name: str) -> None:
        assert set(range(*self.offsets(name))) <= {one.offset for one in self.consumer.unacked}

    @staticmethod
    def offsets(name: str) -> tuple[int, int]:
        first, last = name.split("-")
        return int(first), int(last) + 1

    def answer(self) -> None:
        """Have the model answer, from now on."""
        self.log.append("answers")
        self.answers.set()

    def log_step(self, step: str) -> None:
        self.log.append(step)
        if step in self.fails:
            raise self.fails[step]

    async def crash(self, error: BaseException) -> None:
        self.crashed = error
        self.should_stop = True

    async def serve(self, then: Callable[[], None]) -> None:
        """Serve until nothing moves any more, do something, and serve what is left."""
        serving = asyncio.create_task(serve(self, self.queue))  # type: ignore[arg-type]
        await settled()
        then()
        await settled()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def served(events: int, fails: dict[str, Exception] | None = None) -> Worker:
    worker = Worker(events, fails or {})
    asyncio.run(worker.serve(worker.answer))
    return worker


def test_a_whole_batch_that_waits_is_begun_while_the_one_ahead_is_with_the_model() -> None:
    log = served(5 * FULL).log
    begun = {"session 0-3", "session 4-7", "session 8-11", "session 12-15"}
    assert set(log[: log.index("answers")]) == {"infer 0-3", *begun}


def test_the_model_is_asked_for_a_batch_while_the_one_ahead_is_published() -> None:
    log = served(3 * FULL).log
    assert log.index("publish 0-3") < log.index("infer 4-7") < log.index("published 0-3")


def test_a_batch_is_published_while_the_one_ahead_is_announced() -> None:
    log = served(3 * FULL).log
    assert log.index("announce 0-3") < log.index("publish 4-7") < log.index("announced 0-3")


def test_no_step_takes_a_batch_before_the_one_ahead() -> None:
    log = served(6 * FULL).log
    steps_of_a_batch = (
        ("session", "session"),
        ("infer", "answer"),
        ("publish", "published"),
        ("announce", "announced"),
    )
    for first, last in steps_of_a_batch:
        steps = [step for step in log if step.split()[0] in (first, last)]
        names = [step.split()[1] for step in steps]
        assert names == sorted(names, key=lambda name: int(name.split("-")[0]))
        assert len(steps) == (6 if first == last else 12)


def test_less_than_a_whole_batch_waits_for_more_to_come() -> None:
    log = served(2 * FULL - 1).log
    assert log[: log.index("answers")] == ["session 0-3", "infer 0-3"]


def test_batches_are_finished_and_acknowledged_in_order() -> None:
    log = served(4 * FULL).log
    finished = [step for step in log if step.startswith("announced")]
    assert finished == ["announced 0-3", "announced 4-7", "announced 8-11", "announced 12-15"]
    assert [step for step in log if step.startswith("ack")] == [f"ack {n}" for n in range(4 * FULL)]


@pytest.mark.parametrize("step", ["session 0-3", "answer 0-3", "published 0-3", "announced 0-3"])
def test_what_was_begun_behind_a_batch_that_was_given_up_is_not_acknowledged(step: str) -> None:
    worker = served(3 * FULL, {step: ShuttingDownError("leaving")})
    assert not [one for one in worker.log if one.startswith("ack")]
    assert worker.consumer.unacked == set()
    assert worker.crashed is None


def test_the_next_generation_goes_on_behind_a_batch_that_was_given_up() -> None:
    worker = Worker(3 * FULL, {"published 0-3": ShuttingDownError("leaving")})

    def rebalance() -> None:
        assert not [step for step in worker.log if step.startswith("ack")]
        worker.fails.clear()
        worker.consumer_generation_id = 2
        worker.arrive(3 * FULL)

    worker.answers.set()
    asyncio.run(worker.serve(rebalance))
    acknowledged = [step for step in worker.log if step.startswith("ack")]
    assert acknowledged == [f"ack {offset}" for offset in range(3 * FULL)]


def test_a_worker_that_stops_finishes_what_it_has_begun() -> None:
    async def run() -> Worker:
        worker = Worker(3 * FULL)
        serving = asyncio.create_task(serve(worker, worker.queue))  # type: ignore[arg-type]
        await settled()
        worker.should_stop = True
        worker.answer()
        await serving
        return worker

    worker = asyncio.run(run())
    begun = sum(step.startswith("session") for step in worker.log)
    assert begun > 1
    assert sum(step.startswith("ack") for step in worker.log) == begun * FULL
    assert worker.consumer.unacked == set()


@pytest.mark.parametrize("step", ["session 0-3", "answer 0-3", "published 0-3", "announced 0-3"])
def test_an_error_that_nobody_expects_ends_the_worker(step: str) -> None:
    worker = served(3 * FULL, {step: InferenceRefusedError("no such input")})
    assert isinstance(worker.crashed, InferenceRefusedError)
    assert not [one for one in worker.log if one.startswith("ack")]


def test_messages_of_a_generation_that_is_over_are_left() -> None:
    worker = Worker(2)
    worker.consumer_generation_id = 2
    asyncio.run(worker.serve(worker.answer))
    assert worker.log == ["answers"]
