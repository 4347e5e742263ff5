"""The Prometheus metrics of the worker and of the sink."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

EVENTS: Final = Counter(
    "intentstream_events_total",
    "Records by what became of them: applied, unchanged, late, stateless, erased (about what "
    "happened before its profile's erasure) or dead_letter.",
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
FRESHNESS: Final = Histogram(
    "intentstream_freshness_seconds",
    "Time by leg: produced_consumed (broker timestamp to decoded), consumed_inferred, "
    "inferred_readable (written to the online store), produced_readable (all of it).",
    ["leg"],
    buckets=[0.001 * 2**n for n in range(16)],
)
PUBLISHED: Final = Counter("intentstream_published_rows_total", "Rows written to the online store.")
STALE: Final = Counter(
    "intentstream_stale_rows_total", "Rows that the online store refused because it has newer."
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
    "End offset minus committed offset, clamped to the log's start; absent while Kafka is away.",
    ["consumergroup", "topic", "partition"],
)

SINK_RECORDS: Final = Counter(
    "intentstream_sink_records_total",
    "Records of intent-features by what became of them: landed, repeated, tombstone or bad.",
    ["outcome"],
)
SINK_FILES: Final = Counter("intentstream_sink_files_total", "Parquet files that the sink wrote.")
