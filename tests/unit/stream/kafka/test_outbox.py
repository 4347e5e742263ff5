"""What it means when Kafka does not take records."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)

from stream.exceptions import BrokerRefusedError, BrokerUnavailableError, DeliveryFailedError
from stream.kafka import outbox
from stream.kafka.outbox import Outbox, Outgoing
from stream.settings import Settings


class Producer:
    """Fails on partition 0; what goes to partition 1 takes a moment longer.

    It is its own client, too, and knows of partitions that the broker has once it was asked.
    """

    failure: Exception
    written: list[int]
    known: set[int]
    there: set[int]

    def __init__(self, **_: Any) -> None:
        self.written.clear()
        self.client = self

    async def partitions_for(self, _: str) -> set[int]:
        return self.known

    async def force_metadata_update(self) -> None:
        self.known = self.there

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def create_batch(self) -> Any:
        return self

    def append(self, **_: Any) -> bool:
        return True

    async def send_batch(self, _: Any, topic: str, partition: int) -> asyncio.Future[None]:
        assert partition in self.known, "Unrecognized partition"  # as aiokafka does

        async def deliver() -> None:
            if partition == 0:
                raise self.failure
            await asyncio.sleep(0.01)
            self.written.append(partition)

        return asyncio.ensure_future(deliver())


def deliver(
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception | None = None,
    partitions: Sequence[int] = (0, 1),
) -> None:
    Producer.failure, Producer.written = failure or KafkaConnectionError(), []
    Producer.known, Producer.there = {0, 1}, {0, 1, 2}
    monkeypatch.setattr(outbox, "AIOKafkaProducer", Producer)

    async def all_of_them() -> None:
        async with Outbox(Settings()) as box:
            await box.deliver([Outgoing("t", number, b"k", b"v") for number in partitions])

    asyncio.run(all_of_them())


@pytest.mark.parametrize("failure", [KafkaConnectionError(), KafkaTimeoutError()])
def test_a_failure_that_passes_may_be_tried_again(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BrokerUnavailableError):
        deliver(monkeypatch, failure)


def test_a_right_that_is_missing_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerRefusedError):
        deliver(monkeypatch, TopicAuthorizationFailedError())


def test_a_producer_that_the_broker_has_done_with_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DeliveryFailedError, match="started again"):
        deliver(monkeypatch, OutOfOrderSequenceNumber())


def test_nothing_is_written_any_more_once_a_failure_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(BrokerUnavailableError):
        deliver(monkeypatch, KafkaConnectionError())
    assert Producer.written == [1]


def test_a_partition_that_the_producer_does_not_know_of_yet_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deliver(monkeypatch, partitions=[2])
    assert Producer.written == [2]


def test_a_partition_that_nobody_knows_of_may_come_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerUnavailableError, match="t, partition 3"):
        deliver(monkeypatch, partitions=[3])
