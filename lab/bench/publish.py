"""How fast rows get into Redis and out again: our writer beside what Feast offers.

    python -m lab.bench.publish

Starts a Redis of its own on a free port of loopback. All ways write the same rows of the full view
(64-wide embeddings, 20 next titles), each row newer than the stored one, so that none is refused.
They write 2,048 at once; Feast's `push` is measured with as many and, on fewer rows, with one at a
time, as who pushes each event calls it. Prints a table and writes `docs/results/publish.json`.
"""

from __future__ import annotations

import asyncio
import math
import os
import platform
import random
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pandas as pd
import pyarrow as pa
from feast import FeatureStore, FeatureView, PushSource, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStoreConfig
from rich.table import Table

from features import definitions
from features.online.feast_rows import to_protos
from features.online.titles import title_rows
from features.online.writer import IntentWriter
from features.reading.rerank import Candidate, Order, Reranker
from features.registry.store import apply
from features.schema import views
from infra.local.stack import Stack, on_loopback
from lab.bench.results import keep, result_file
from stream.domain.feature_row import IntentRow
from stream.domain.heads import HEADS
from stream.domain.labels import GENRES, KINDS
from stream.plain_text import PlainConsole
from stream.ports import free_ports
from stream.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

PROFILES: Final = 10_000
BATCH: Final = 2_048
ROUNDS: Final = 5
PUSHES: Final = 100
READS: Final = 500
TURN: Final = 50
READ_PROFILES: Final = 100
EMBEDDING: Final = 64
NEXT_TITLES: Final = 20
TITLES: Final = 5_000
CANDIDATES: Final = 100
MODEL_VERSION: Final = "7"
ONE_BY_ONE: Final = "push_one_by_one"


def made_up_rows(count: int, seed: int) -> list[IntentRow]:
    """Rows of `count` profiles with random numbers in every field; same seed, same rows."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, and no secret

    def numbers(length: int) -> list[float]:
        return [chance.random() for _ in range(length)]

    titles = [f"tt{number:07d}" for number in range(TITLES)]

    def row(number: int) -> IntentRow:
        said = {
            head.name: (numbers(len(head.labels)), chance.choice(head.labels)) for head in HEADS
        }
        return IntentRow(
            profile_id=f"profile-{number}",
            probs={name: probs for name, (probs, _) in said.items()},
            labels={name: label for name, (_, label) in said.items()},
            intent_attention=numbers(len(HEADS)),
            intent_embedding=numbers(EMBEDDING),
            next_title_ids=chance.sample(titles, NEXT_TITLES),
            next_title_scores=numbers(NEXT_TITLES),
            title_log_norm=chance.random(),
            user_embedding=numbers(EMBEDDING),
            session_id=f"session-{number}",
            session_length=chance.randrange(1, 40),
            intent_cluster=chance.randrange(-1, 64),
            model_version=MODEL_VERSION,
            sequence_no=number + 1,
            last_event_id=f"event-{number}",
            last_event_at_ms=1_700_000_000_000 + number,
            published_at_ms=1_700_000_000_500 + number,
        )

    return [row(number) for number in range(count)]


def newer(rows: Iterable[IntentRow]) -> list[IntentRow]:
    """The same rows after one more event each, a minute later."""
    return [
        replace(
            row,
            sequence_no=row.sequence_no + 1,
            last_event_id=f"{row.last_event_id}+",
            last_event_at_ms=row.last_event_at_ms + 60_000,
            published_at_ms=row.published_at_ms + 60_000,
        )
        for row in rows
    ]


def feast_store(settings: Settings, registry: Path) -> FeatureStore:
    """Feast's own Redis store on the same server, with a view that takes a push."""
    store = FeatureStore(
        config=RepoConfig(
            project=definitions.project.name,
            registry=str(registry),
            online_store=RedisOnlineStoreConfig(
                connection_string=settings.redis_url.get_secret_value()
            ),
            entity_key_serialization_version=3,
        )
    )
    source = PushSource(name="intent_push", batch_source=definitions.intent_features)
    view = FeatureView(
        name=definitions.profile_intent.name,
        entities=[definitions.profile],
        schema=definitions.profile_intent.schema,
        source=source,
    )
    store.apply([definitions.profile, source, view])
    return store


def frame(rows: list[IntentRow]) -> pd.DataFrame:
    """Rows as `push` takes them."""
    published = [row.published() for row in rows]
    values: dict[str, list[Any]] = {
        feature.name: [row[feature.row_field] for row in published]
        for feature in views.profile_intent.features
    }
    times = {
        "last_event_at": pd.to_datetime(
            [row.last_event_at_ms for row in rows], unit="ms", utc=True
        ),
        "published_at": pd.to_datetime([row.published_at_ms for row in rows], unit="ms", utc=True),
    }
    stamps = {
        "event_timestamp": times["last_event_at"],
        "created_timestamp": times["published_at"],
    }
    ids = {"profile_id": [row.profile_id for row in rows]}
    return pd.DataFrame({**ids, **values, **times, **stamps})


class WriteCost(NamedTuple):
    """What writing some rows took."""

    rows_per_s: float
    cpu_us_per_row: float
    """Of the writing process alone, so it hardly depends on what else runs on the machine."""


async def cost(batches: list[Any], write: Callable[[Any], Awaitable[Any]]) -> WriteCost:
    """What writing `batches` one after the other takes."""
    rows = sum(map(len, batches))
    started, cpu_started = time.perf_counter(), time.process_time()
    for batch in batches:
        await write(batch)
    cpu_s = time.process_time() - cpu_started
    return WriteCost(rows / (time.perf_counter() - started), 1e6 * cpu_s / rows)


def batched(rows: list[Any], size: int = BATCH) -> list[list[Any]]:
    """`rows` in batches of `size`."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


async def measure_writes(
    settings: Settings, feast: FeatureStore
) -> tuple[dict[str, float], dict[str, float]]:
    """Medians of `WriteCost`'s two numbers; the ways take turns within each round."""
    writer = IntentWriter(settings)
    await writer.start()
    view = feast.get_feature_view(definitions.profile_intent.name)

    async def with_protos(protos: list[Any]) -> None:
        await feast.provider.online_write_batch_async(feast.config, view, protos, None)

    async def from_rows(rows: list[IntentRow]) -> None:
        await with_protos(list(map(to_protos, rows)))

    async def push(frame_of_rows: pd.DataFrame) -> None:
        feast.push("intent_push", frame_of_rows)

    rows = made_up_rows(PROFILES, seed=1)
    ways: dict[str, Callable[[], Awaitable[WriteCost]]] = {
        "ours": lambda: cost(batched(rows), writer.write),
        "online_write_batch_async": lambda: cost(batched(list(map(to_protos, rows))), with_protos),
        "online_write_batch_async_from_rows": lambda: cost(batched(rows), from_rows),
        "push_in_batches": lambda: cost(list(map(frame, batched(rows))), push),
        ONE_BY_ONE: lambda: cost(list(map(frame, batched(rows[:PUSHES], 1))), push),
    }
    costs: dict[str, list[WriteCost]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, measured in ways.items():
            rows = newer(rows)
            costs[way].append(await measured())
    await writer.close()
    await feast.close()
    return (
        {way: round(median(one.rows_per_s for one in all_), 1) for way, all_ in costs.items()},
        {way: round(median(one.cpu_us_per_row for one in all_), 1) for way, all_ in costs.items()},
    )


def measure_reads(stores: dict[str, FeatureStore]) -> dict[str, dict[str, float]]:
    """Milliseconds of reading all features of 100 random profiles; the stores take turns."""
    chance = random.Random(2)  # noqa: S311
    features = [
        f"{definitions.profile_intent.name}:{feature.name}"
        for feature in definitions.profile_intent.features
    ]

    def read(store: FeatureStore) -> float:
        numbers = chance.sample(range(PROFILES), READ_PROFILES)
        asked = {"profile_id": [f"profile-{number}" for number in numbers]}
        started = time.perf_counter()
        store.get_online_features(features, asked)
        return 1000 * (time.perf_counter() - started)

    times: dict[str, list[float]] = {name: [] for name in stores}
    for _ in range(READS // TURN):
        for name, store in stores.items():
            # Feast forgets what it knows of the features when another store of the process is
            # asked, so a turn's first read takes longer than any where there is one store.
            read(store)
            times[name] += [read(store) for _ in range(TURN)]
    return {name: percentiles(values) for name, values in times.items()}


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile."""
    cuts = quantiles(milliseconds, n=100)
    return {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2)}


def measure_reranking(store: FeatureStore, settings: Settings) -> dict[str, float]:
    """Milliseconds of re-ranking 100 candidate titles on a profile's intent, with the reasons."""
    chance = random.Random(3)  # noqa: S311
    titles = [f"tt{number:07d}" for number in range(TITLES)]
    catalogue = pa.table(
        {
            "title_id": titles,
            "genres": [chance.sample(GENRES, 2) for _ in titles],
            "kind": [chance.choice(KINDS) for _ in titles],
            "release_day": pa.array([0] * TITLES, pa.int32()),
        }
    )
    vectors = {title: [chance.random() for _ in range(EMBEDDING)] for title in titles}
    now = datetime.now(UTC)
    landed = title_rows(catalogue, vectors, MODEL_VERSION, now, now).to_pandas()
    store.write_to_online_store("title_profile", landed[landed["title_embedding"].notna()])
    reranker = Reranker(settings, fresh_for_s=math.inf)
    times = []
    for _ in range(READS):
        candidates = [
            Candidate(title, chance.random()) for title in chance.sample(titles, CANDIDATES)
        ]
        profile_id = f"profile-{chance.randrange(PROFILES)}"
        started = time.perf_counter()
        answer = reranker.rerank(profile_id, candidates)
        times.append(1000 * (time.perf_counter() - started))
        if answer.order is not Order.INTENT:
            raise ValueError(f"{profile_id} was not re-ranked: its intent is {answer.freshness}")
    return percentiles(times)


def measure() -> dict[str, Any]:
    """All measurements, on a Redis that is started for them."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (port,) = free_ports(1)
        settings = on_loopback(Settings(redis_port=port, feature_registry=home / "registry.db"))
        with Stack(home, settings) as stack:
            stack.start("redis")
            feast = feast_store(settings, home / "feast.db")
            rates, cpu = asyncio.run(measure_writes(settings, feast))
            ours = apply(settings)
            reads = measure_reads({"ours": ours, "feast_redis": feast})
            reranking = measure_reranking(ours, settings)
    return {
        "rows_per_s": rates,
        "cpu_us_per_row": cpu,
        "read_100_p50_ms": {name: values["p50"] for name, values in reads.items()},
        "read_100_p99_ms": {name: values["p99"] for name, values in reads.items()},
        "rerank_100_ms": reranking,
        "profiles": PROFILES,
        "rows_per_write": {way: 1 if way == ONE_BY_ONE else BATCH for way in rates},
        "rounds": ROUNDS,
        "reads": READS,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "command": "python -m lab.bench.publish",
    }


def main() -> None:
    """Measure, print the table, keep the result."""
    out = result_file("publish", __doc__)
    result = measure()
    keep(result, out)
    console = PlainConsole()
    table = Table(
        "way to write",
        "rows at once",
        "rows/s",
        "ours is faster by",
        "CPU µs/row",
        title="Publishing into Redis",
    )
    ours = result["rows_per_s"]["ours"]
    for way, rate in result["rows_per_s"].items():
        at_once, cpu_us = result["rows_per_write"][way], result["cpu_us_per_row"][way]
        faster = f"{ours / rate:.1f}x"
        table.add_row(way, f"{at_once:,}", f"{rate:,.0f}", faster, f"{cpu_us:,.0f}")
    console.print(table)
    table = Table("store", "p50 ms", "p99 ms", title="Reading 100 profiles, all features")
    for store, p99 in result["read_100_p99_ms"].items():
        table.add_row(store, f"{result['read_100_p50_ms'][store]:.1f}", f"{p99:.1f}")
    console.print(table)
    reranking = result["rerank_100_ms"]
    console.print(f"Re-ranking 100: p50 {reranking['p50']:.1f} ms, p99 {reranking['p99']:.1f} ms.")
    console.print(f"Kept in {out}; load average {result['load_average']}.")


if __name__ == "__main__":
    main()
