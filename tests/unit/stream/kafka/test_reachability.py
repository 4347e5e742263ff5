from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from stream import metrics
from stream.exceptions import BrokerUnavailableError
from stream.kafka.reachability import Reachability


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_an_outage_is_told_when_it_begins_once_a_minute_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    kafka = Reachability(clock)
    kafka.answered()
    for clock.now_s in range(10, 150, 5):
        kafka.failed(BrokerUnavailableError("Kafka at here:1 did not answer"))
        assert not kafka.is_up
    clock.now_s = 250
    kafka.answered()
    kafka.answered()
    assert kafka.is_up
    assert [record.getMessage() for record in caplog.records] == [
        "Kafka at here:1 did not answer. Not ready until it answers again",
        "Kafka has not answered for 60 s: Kafka at here:1 did not answer",
        "Kafka has not answered for 120 s: Kafka at here:1 did not answer",
        "Kafka answers again, after 240 s",
    ]


def test_the_lag_is_absent_and_not_what_it_was_while_kafka_is_away() -> None:
    place = {"consumergroup": "g", "topic": "t", "partition": "0"}
    kafka = Reachability()
    metrics.LAG.labels(*place.values()).set(7)
    assert REGISTRY.get_sample_value("kafka_consumergroup_lag", place) == 7
    kafka.failed(BrokerUnavailableError("away"))
    assert REGISTRY.get_sample_value("kafka_consumergroup_lag", place) is None
    assert REGISTRY.get_sample_value("intentstream_kafka_up") == 0
    kafka.answered()
    assert REGISTRY.get_sample_value("intentstream_kafka_up") == 1
