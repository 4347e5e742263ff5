"""The Prometheus metrics of the worker, the sink and the bridge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class BulkHistogram(Collector):
    """A histogram with one label that takes many observations at once.

    The client's own takes each by itself, under a lock; here the caller is one thread.

    Args:
        name: of the metric.
        documentation: what it tells.
        label: the label's name.
        buckets: upper bounds, ascending; another one without a bound is added.
    """

    def __init__(self, name: str, documentation: str, label: str, buckets: Sequence[float]) -> None:
        self._family = (name, documentation, label)
        self._bounds = np.array([*buckets, np.inf])
        self._counts: dict[str, NDArray[np.int64]] = {}
        self._sums: dict[str, float] = {}
        REGISTRY.register(self)

    def observe(self, value: str, amounts: NDArray[np.float64]) -> None:
        """Observe `[N]` amounts of one value of the label."""
        found = np.bincount(np.searchsorted(self._bounds, amounts), minlength=len(self._bounds))
        self._counts[value] = self._counts.get(value, 0) + found
        self._sums[value] = self._sums.get(value, 0.0) + float(amounts.sum())

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """The metric, without its values."""
        name, documentation, label = self._family
        yield HistogramMetricFamily(name, documentation, labels=[label])

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The metric as it is now."""
        (family,) = self.describe()
        bounds = [*map(floatToGoString, self._bounds)]
        for value, counts in tuple(self._counts.items()):
            cumulated = zip(bounds, counts.cumsum().tolist(), strict=True)
            family.add_metric([value], [*cumulated], self._sums[value])
        yield family


EVENTS: Final = Counter(
    "intentstream_events_total",
    "Records by what became of them: applied, unchanged, late, stateless, erased (about what "
    "happened before its profile's erasure), forwarded (to the partition of its profile's state) "
    "or dead_letter.",
    ["topic", "outcome"],
)
DEAD_LETTERS: Final = Counter(
    "intentstream_dead_letters_total", "Dead letters by reason.", ["topic", "reason"]
)
EXPIRED: Final = Counter(
    "intentstream_expired_profiles_total", "Profiles whose state was dropped for being idle."
)
BATCH_EVENTS: Final = Histogram(
    "intentstream_batch_events", "Records in a micro-batch.", buckets=[4**n for n in range(8)]
)
BATCH_PROFILES: Final = Histogram(
    "intentstream_batch_profiles",
    "Profiles scored in a micro-batch.",
    buckets=[4**n for n in range(8)],
)
FRESHNESS: Final = BulkHistogram(
    "intentstream_freshness_seconds",
    "Time by leg: produced_consumed (broker timestamp to decoded), consumed_inferred, "
    "inferred_readable (written to the online store), produced_readable (all of it).",
    "leg",
    buckets=[0.001 * 2**n for n in range(16)],
)
PUBLISHED: Final = Counter("intentstream_published_rows_total", "Rows written to the online store.")
STALE: Final = Counter(
    "intentstream_stale_rows_total",
    "Rows that the online store refused because it has newer. Absent where it has no fence: how "
    "many were stale, and are stored, is not known.",
    ["store"],
)
STORE_FENCED: Final = Gauge(
    "intentstream_store_fenced",
    "1 where the online store refuses older rows, 0 where they may overwrite newer ones.",
)
STORE_CHECKS: Final = Counter(
    "intentstream_store_checks_total",
    "Looks at whether the online store has all rows, by cause: assigned (partitions came to this "
    "worker), sentinel (its sentinel row was gone or had gone back), server (another server "
    "answered) or sweep (now and then).",
    ["cause"],
)
STORE_CHECK_LEFT: Final = Gauge(
    "intentstream_store_check_profiles_left", "Profiles still to be looked at; 0 between two looks."
)
HEALED: Final = Counter(
    "intentstream_healed_rows_total",
    "Rows that the online store had lost and got again, by what it had instead: missing or older.",
    ["loss"],
)
TITLES_LOST: Final = Gauge(
    "intentstream_title_vectors_lost",
    "1 while the online store lacks the title vectors of the live model version.",
)
RETRIES: Final = Counter(
    "intentstream_retries_total", "Attempts that a dependency failed.", ["dependency"]
)
BACK_PRESSURE: Final = Gauge(
    "intentstream_back_pressure", "1 while a dependency is down and the worker holds its batch."
)
MODEL_SERVERS_LEFT: Final = Gauge(
    "intentstream_model_server_left",
    "Clients of this worker, for live and for shadow requests, that go on without a Triton because "
    "it answers nothing.",
    ["server"],
)
MODEL_RELEASE: Final = Gauge(
    "intentstream_model_release",
    "1 for the live model version; for the shadow, its share of the profiles.",
    ["role", "version"],
)
UNKNOWN_LABELS: Final = Counter(
    "intentstream_unknown_labels_total",
    "Names in events that the live model version has no label for, which count as other.",
    ["kind"],
)
SHADOW_ROWS: Final = Counter(
    "intentstream_shadow_rows_total",
    "Answers of the shadow version: compared, failed, or skipped because another comparison ran.",
    ["outcome"],
)
SHADOW_DIVERGENCE: Final = Histogram(
    "intentstream_shadow_divergence_bits",
    "Jensen-Shannon divergence of the shadow's answer from the live one, by head.",
    ["head"],
    buckets=[0.5**n for n in range(12, -1, -1)],
)
SHADOW_OVERLAP: Final = Histogram(
    "intentstream_shadow_overlap",
    "Share of the live next titles that the shadow proposes too.",
    buckets=[n / 10 for n in range(11)],
)
KAFKA_UP: Final = Gauge(
    "intentstream_kafka_up", "1 while Kafka answers what the group's lag is made of, else 0."
)
LAG: Final = Gauge(
    "kafka_consumergroup_lag",
    "End offset minus committed offset, clamped to the log's start; before an open transaction the "
    "log ends. Absent while Kafka is away.",
    ["consumergroup", "topic", "partition"],
)
OPEN: Final = Gauge(
    "intentstream_open_transaction_records",
    "Records that nobody may read yet, as a transaction is open before or among them.",
    ["topic", "partition"],
)
LOG_RESETS: Final = Counter(
    "intentstream_log_resets_total",
    "How often the log was another than the one that an offset was committed in.",
    ["topic", "partition"],
)
TOPICS_MISSING: Final = Gauge(
    "intentstream_missing_topics", "Topics of the product that Kafka doesn't have."
)

BRIDGE_RECORDS: Final = Counter(
    "intentstream_bridge_records_total",
    "Records of another's topic: bridged, passed_over or dead_letter.",
    ["outcome"],
)
BRIDGE_EVENTS: Final = Counter(
    "intentstream_bridge_events_total", "Events that were made of them.", ["topic"]
)
BRIDGE_PASSED_OVER: Final = Counter(
    "intentstream_bridge_passed_over_total",
    "Records that are no event of ours, by why.",
    ["why"],
)

SINK_RECORDS: Final = Counter(
    "intentstream_sink_records_total",
    "Records of intent-features: landed, repeated, erased, tombstone or bad.",
    ["outcome"],
)
SINK_ERASED_ROWS: Final = Counter(
    "intentstream_sink_erased_rows_total",
    "Rows of erased profiles that were taken out of landed files.",
)
SINK_ERASURES: Final = Gauge(
    "intentstream_sink_erasures", "Erased profiles whose rows may still be in landed files."
)
SINK_OLDEST_ERASURE: Final = Gauge(
    "intentstream_sink_oldest_erasure_timestamp_seconds",
    "Unix time at which the sink learnt of the first of them; 0 where there is none.",
)
SINK_FILES: Final = Counter("intentstream_sink_files_total", "Parquet files that the sink wrote.")
