"""A histogram that takes many observations at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest
from prometheus_client.registry import Collector

from stream.metrics import BulkHistogram

BUCKETS = [0.5, 1.0, 2.0]


@pytest.fixture
def bulk() -> Iterator[BulkHistogram]:
    made = BulkHistogram("some_seconds", "Some.", "leg", BUCKETS)
    yield made
    REGISTRY.unregister(made)


def lines(collector: Collector) -> set[str]:
    registry = CollectorRegistry()
    registry.register(collector)
    text = generate_latest(registry).decode().splitlines()
    return {line for line in text if "_created" not in line}


def test_many_observations_at_once_are_those_of_each(bulk: BulkHistogram) -> None:
    single = Histogram("some_seconds", "Some.", ["leg"], buckets=BUCKETS, registry=None)
    for amounts in ([0.0, 0.5, 0.75], [], [1.0, 2.0, 2.5, 1000.0]):
        bulk.observe("whole", np.array(amounts))
        for amount in amounts:
            single.labels("whole").observe(amount)
    assert lines(bulk) == lines(single)


def test_a_value_that_nothing_was_observed_of_is_absent(bulk: BulkHistogram) -> None:
    bulk.observe("part", np.array([1.0]))
    assert not any("whole" in line for line in lines(bulk))
