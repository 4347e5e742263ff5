"""What it means when Kafka does not take records."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)

from stream import outbox
from stream.exceptions import BrokerRefused, BrokerUnavailable, DeliveryFailed
from stream.outbox import Outbox, Outgoing
from stream.settings import Settings


class Producer:
    """Fails on partition 0; what goes to partition 1 takes a moment longer."""

    failure: Exception
    written: list[int]

    def __init__(self, **_: Any) -> None:
        self.written.clear()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def create_batch(self) -> Any:
        return self

    def append(self, **_: Any) -> bool:
        return True

    async def send_batch(self, _: Any, topic: str, partition: int) -> asyncio.Future[None]:
        async def deliver() -> None:
            if partition == 0:
                raise self.failure
            await asyncio.sleep(0.01)
            self.written.append(partition)

        return asyncio.ensure_future(deliver())


def deliver(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    Producer.failure, Producer.written = failure, []
    monkeypatch.setattr(outbox, "AIOKafkaProducer", Producer)

    async def both() -> None:
        async with Outbox(Settings()) as box:
            await box.deliver([Outgoing("t", number, b"k", b"v") for number in (0, 1)])

    asyncio.run(both())


@pytest.mark.parametrize("failure", [KafkaConnectionError(), KafkaTimeoutError()])
def test_a_failure_that_passes_may_be_tried_again(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BrokerUnavailable):
        deliver(monkeypatch, failure)


def test_a_right_that_is_missing_may_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerRefused):
        deliver(monkeypatch, TopicAuthorizationFailedError())


def test_a_producer_that_the_broker_has_done_with_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DeliveryFailed, match="started again"):
        deliver(monkeypatch, OutOfOrderSequenceNumber())


def test_nothing_is_written_any_more_once_a_failure_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(BrokerUnavailable):
        deliver(monkeypatch, KafkaConnectionError())
    assert Producer.written == [1]
