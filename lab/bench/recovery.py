"""How fast a worker reads the states of its profiles back from the changelog.

    python -m lab.bench.recovery

What Faust's recovery does with each record, without Kafka: the table takes a changelog in, once
into an empty table, as after a restart, and once into the table that wrote it, as after a
rebalance. Beside it stands a table that joins every record row by row. CPU time; the two take
turns. Prints a table and writes `docs/results/recovery.json`.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from statistics import median
from types import SimpleNamespace
from typing import Any, Final

from rich.table import Table

from lab.bench.results import keep, result_file
from stream.domain import codec
from stream.domain.event_types import Browse
from stream.domain.profile_state import ProfileState
from stream.domain.rules import Rules
from stream.plain_text import PlainConsole
from stream.settings import Settings
from stream.worker.app import create_app
from stream.worker.table import SessionTable

PROFILES: Final = 20
EVENTS: Final = 200
TITLES: Final = 50
ROUNDS: Final = 5


def changelog() -> list[Any]:
    """One record of each state that the profiles went through, theirs in turn."""
    states = [ProfileState() for _ in range(PROFILES)]
    records: list[Any] = []
    for number in range(EVENTS):
        for profile, state in enumerate(states):
            event = Browse(
                event_id=f"{profile}-{number}",
                profile_id=f"p{profile}",
                occurred_at_ms=1_700_000_000_000 + 60_000 * number,
                event_type="title_open",
                title_id=f"t{7 * number % TITLES}",
            )
            state.apply(event, Rules())
            record = SimpleNamespace(
                topic="changelog",
                partition=0,
                offset=len(records),
                key=event.profile_id.encode(),
                value=codec.encode(state),
                timestamp=event.occurred_at_ms / 1000,
            )
            records.append(SimpleNamespace(message=record))
    return records


def joins_every_record(table: SessionTable, records: list[Any]) -> None:
    """Take records in by the join alone."""
    for record in records:
        message = record.message
        state = known = table.fetch(message.key)
        if known is None or known == message.value:
            state = message.value
        else:
            other = codec.decode(message.value)
            state = codec.encode(codec.decode(known).joined(other, table.rules))
        table.keep(message.partition, message.key, state, message.timestamp)


def asks_first(table: SessionTable, records: list[Any]) -> None:
    """Take records in as the worker does."""
    table.apply_changelog_batch(records)


def measure() -> dict[str, Any]:
    """Records for each second of CPU, by way and occasion."""
    records = changelog()
    ways = {"ours": asks_first, "join every record": joins_every_record}
    costs: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS):
        for way, take_in in ways.items():
            table = create_app(Settings()).table
            for occasion in ("restart", "rebalance"):
                began = time.process_time()
                take_in(table, records)
                costs.setdefault((occasion, way), []).append(time.process_time() - began)
                if any(
                    table.fetch(one.message.key) != one.message.value for one in records[-PROFILES:]
                ):
                    raise AssertionError(f"{way} came to other states after a {occasion}")
    return {
        "records_per_cpu_s": {
            occasion: {way: round(len(records) / median(costs[occasion, way])) for way in ways}
            for occasion in ("restart", "rebalance")
        },
        "records": len(records),
        "rounds": ROUNDS,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "command": "python -m lab.bench.recovery",
    }


def main() -> None:
    """Measure, print the table, keep the result."""
    out = result_file("recovery", __doc__)
    result = measure()
    keep(result, out)
    table = Table("after a", "ours, records/CPU s", "join every record", "faster by")
    for occasion, rates in result["records_per_cpu_s"].items():
        ours, joined = rates["ours"], rates["join every record"]
        table.add_row(occasion, f"{ours:,}", f"{joined:,}", f"{ours / joined:.1f}x")
    console = PlainConsole()
    console.print(table)
    console.print(f"Kept in {out}; load average {result['load_average']}.")


if __name__ == "__main__":
    main()
