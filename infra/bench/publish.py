"""How fast rows get into Redis and out again: our writer beside what Feast offers.

    python -m infra.bench.publish

Starts a Redis of its own on a free port of loopback. All ways write the same rows of the full view
(64-wide embeddings, 20 next titles), each row newer than the stored one, so that none is refused.
Prints a table and writes `docs/results/publish.json`.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
from feast import FeatureStore, FeatureView, PushSource, RepoConfig
from feast.infra.online_stores.redis import RedisOnlineStoreConfig
from rich.console import Console
from rich.table import Table

from features import definitions
from features.encoding import row_attribute
from features.rows import IntentRow
from features.store import apply
from features.writer import IntentWriter, to_protos
from infra.local.ports import free_ports
from infra.local.stack import Stack, on_loopback
from stream.settings import Settings
from stream.taxonomy import ACTIONS, GENRES, INTENTS, KINDS, RELEASE_AGES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

RESULTS: Final = Path(__file__).parents[2] / "docs" / "results" / "publish.json"
PROFILES: Final = 10_000
BATCH: Final = 2_048
ROUNDS: Final = 5
PUSHES: Final = 100
READS: Final = 500
READ_PROFILES: Final = 100
EMBEDDING: Final = 64
NEXT_TITLES: Final = 20


def made_up_rows(count: int, seed: int) -> list[IntentRow]:
    """Rows of `count` profiles with random numbers in every field; same seed, same rows."""
    chance = random.Random(seed)  # noqa: S311 - reproducible, and no secret

    def numbers(length: int) -> list[float]:
        return [chance.random() for _ in range(length)]

    titles = [f"tt{number:07d}" for number in range(5_000)]
    return [
        IntentRow(
            profile_id=f"profile-{number}",
            action_probs=numbers(len(ACTIONS)),
            action=chance.choice(ACTIONS),
            genre_probs=numbers(len(GENRES)),
            genre=chance.choice(GENRES),
            kind_probs=numbers(len(KINDS)),
            kind=chance.choice(KINDS),
            release_age_probs=numbers(len(RELEASE_AGES)),
            release_age=chance.choice(RELEASE_AGES),
            intent_attention=numbers(len(INTENTS)),
            intent_embedding=numbers(EMBEDDING),
            next_title_ids=chance.sample(titles, NEXT_TITLES),
            next_title_scores=numbers(NEXT_TITLES),
            user_embedding=numbers(EMBEDDING),
            session_id=f"session-{number}",
            session_length=chance.randrange(1, 40),
            intent_cluster=chance.randrange(-1, 64),
            model_version="7",
            sequence_no=number + 1,
            last_event_id=f"event-{number}",
            last_event_at_ms=1_700_000_000_000 + number,
            published_at_ms=1_700_000_000_500 + number,
        )
        for number in range(count)
    ]


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


def frame(row: IntentRow) -> pd.DataFrame:
    """A row as `push` takes it."""
    values: dict[str, Any] = {
        feature.name: getattr(row, row_attribute(feature))
        for feature in definitions.profile_intent.features
    }
    times = {
        "last_event_at": pd.to_datetime(row.last_event_at_ms, unit="ms", utc=True),
        "published_at": pd.to_datetime(row.published_at_ms, unit="ms", utc=True),
    }
    stamps = {
        "event_timestamp": times["last_event_at"],
        "created_timestamp": times["published_at"],
    }
    return pd.DataFrame([{"profile_id": row.profile_id, **values, **times, **stamps}])


async def writes_per_s(
    batches: list[list[Any]], write: Callable[[list[Any]], Awaitable[Any]]
) -> float:
    """Rows per second of writing `batches` one after the other."""
    started = time.perf_counter()
    for batch in batches:
        await write(batch)
    return sum(map(len, batches)) / (time.perf_counter() - started)


def batched(rows: list[Any]) -> list[list[Any]]:
    """`rows` in batches of `BATCH`."""
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


async def measure_writes(settings: Settings, feast: FeatureStore) -> dict[str, float]:
    """Median rows per second over the rounds; the ways take turns within each round."""
    writer = IntentWriter(settings)
    await writer.start()
    view = feast.get_feature_view(definitions.profile_intent.name)

    async def with_protos(protos: list[Any]) -> None:
        await feast.provider.online_write_batch_async(feast.config, view, protos, None)

    async def from_rows(rows: list[IntentRow]) -> None:
        await with_protos(list(map(to_protos, rows)))

    rates: dict[str, list[float]] = {}
    rows = made_up_rows(PROFILES, seed=1)
    for _ in range(ROUNDS):
        rows = newer(rows)
        rates.setdefault("ours", []).append(await writes_per_s(batched(rows), writer.write))
        rows = newer(rows)
        protos = batched(list(map(to_protos, rows)))
        rates.setdefault("online_write_batch_async", []).append(
            await writes_per_s(protos, with_protos)
        )
        rows = newer(rows)
        rates.setdefault("online_write_batch_async_from_rows", []).append(
            await writes_per_s(batched(rows), from_rows)
        )
        rows = newer(rows)
        frames = [frame(row) for row in rows[:PUSHES]]
        started = time.perf_counter()
        for single in frames:
            feast.push("intent_push", single)
        rates.setdefault("push", []).append(PUSHES / (time.perf_counter() - started))
    await writer.close()
    await feast.close()
    return {way: round(median(values), 1) for way, values in rates.items()}


def measure_reads(stores: dict[str, FeatureStore]) -> dict[str, dict[str, float]]:
    """Milliseconds of reading all features of 100 random profiles; the stores take turns."""
    chance = random.Random(2)  # noqa: S311
    features = [
        f"{definitions.profile_intent.name}:{feature.name}"
        for feature in definitions.profile_intent.features
    ]
    times: dict[str, list[float]] = {name: [] for name in stores}
    for _ in range(READS):
        numbers = chance.sample(range(PROFILES), READ_PROFILES)
        asked = {"profile_id": [f"profile-{number}" for number in numbers]}
        for name, store in stores.items():
            started = time.perf_counter()
            store.get_online_features(features, asked)
            times[name].append(1000 * (time.perf_counter() - started))
    percentiles = {name: quantiles(values, n=100) for name, values in times.items()}
    return {
        name: {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2)}
        for name, cuts in percentiles.items()
    }


def measure() -> dict[str, Any]:
    """All measurements, on a Redis that is started for them."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (port,) = free_ports(1)
        settings = on_loopback(Settings(redis_port=port, feature_registry=home / "registry.db"))
        with Stack(home, settings) as stack:
            stack.start("redis")
            feast = feast_store(settings, home / "feast.db")
            rates = asyncio.run(measure_writes(settings, feast))
            reads = measure_reads({"ours": apply(settings), "feast_redis": feast})
    return {
        "rows_per_s": rates,
        "read_100_p50_ms": {name: values["p50"] for name, values in reads.items()},
        "read_100_p99_ms": {name: values["p99"] for name, values in reads.items()},
        "profiles": PROFILES,
        "rows_per_write": BATCH,
        "rounds": ROUNDS,
        "reads": READS,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "command": "python -m infra.bench.publish",
    }


def main() -> None:
    """Measure, print the table, keep the result."""
    result = measure()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    console = Console()
    table = Table("way to write", "rows/s", "ours is faster by", title="Publishing into Redis")
    ours = result["rows_per_s"]["ours"]
    for way, rate in result["rows_per_s"].items():
        table.add_row(way, f"{rate:,.0f}", f"{ours / rate:.1f}x")
    console.print(table)
    table = Table("store", "p50 ms", "p99 ms", title="Reading 100 profiles, all features")
    for store, p99 in result["read_100_p99_ms"].items():
        table.add_row(store, f"{result['read_100_p50_ms'][store]:.1f}", f"{p99:.1f}")
    console.print(table)
    console.print(f"Kept in {RESULTS.name}; load average {result['load_average']}.")


if __name__ == "__main__":
    main()
