"""What starting costs: reading a feature, the command line with nothing to do, a worker.

    python -m lab.bench.start [--before REV]

Each line is a process of its own, run some times beside a Kafka, a Redis and a Triton of the
benchmark's, after one run that doesn't count: it registers the definitions, and what Python and
numba compile is kept. Told are the medians: seconds on the clock and of CPU until the process ends,
or until the worker is ready, and the most memory that it held, of the worker what it holds then.
`--before` measures the code of a revision beside it, in turn, with the same packages. Prints a
table and writes `docs/results/start.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import torch
from rich.table import Table

from features.online.writer import IntentWriter
from features.registry.places import registry_of
from infra.local.programs import worker_environment
from intentstream.publishing import publish
from lab.bench.publish import made_up_rows
from lab.bench.results import keep
from lab.bench.revisions import code_of
from lab.bench.running_worker import exported, servers
from stream.home import HOME
from stream.plain_text import PlainConsole
from stream.settings import Settings
from stream.steps import step

RUNS: Final = 3
WORKER: Final = "worker, until it is ready"
READ: Final = """
from intentstream import IntentReader, Settings

intent = IntentReader(Settings()).read(["{profile}"])[0]
print(intent.freshness, intent.age_ms)
print(intent.row and (intent.row.labels, intent.row.next_title_ids))
assert intent.row
"""
COMMANDS: Final = (
    ("--help",),
    ("dlq", "list"),
    ("lag",),
    ("topics",),
    ("model", "status"),
    ("features", "apply"),
    ("schema", "browse-events"),
)
"""Each has nothing to do: topics are there and empty, definitions are registered."""

_PATIENCE_S: Final = 120.0
_MIB: Final = 2**20


class Cost(NamedTuple):
    """Of one process."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def of_command(command: tuple[str, ...], home: Path, environment: dict[str, str]) -> Cost:
    """What a process costs until it ends, which must be well."""
    began = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, *command],
        cwd=home,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    seen, peak = psutil.Process(process.pid), 0
    # The system's own peak of a child begins with what its parent held.
    while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        peak = max(peak, seen.memory_info().rss)
        time.sleep(0.01)
    wall_s = time.perf_counter() - began
    _, status, used = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise AssertionError(f"{command} failed: {process.stderr.read().decode()}")
    return Cost(wall_s, used.ru_utime + used.ru_stime, peak / _MIB)


def of_worker(settings: Settings, home: Path, environment: dict[str, str]) -> Cost:
    """What a worker costs until it is ready. It is ended then."""
    began = time.perf_counter()
    process = psutil.Popen(
        [sys.executable, "-m", "intentstream", "worker"],
        cwd=home,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _is_ready(settings):
            if process.poll() is not None or time.perf_counter() - began > _PATIENCE_S:
                raise AssertionError("the worker was never ready")
            time.sleep(0.02)
        wall_s = time.perf_counter() - began
        spent, memory = process.cpu_times(), process.memory_info()
    finally:
        process.terminate()
        process.wait()
    return Cost(wall_s, spent.user + spent.system, memory.rss / _MIB)


def _is_ready(settings: Settings) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{settings.metrics_port}/ready") as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


async def _write(settings: Settings) -> str:
    """Put features of a profile into the store; its id."""
    (row,) = made_up_rows(1, seed=0)
    writer = IntentWriter(settings)
    await writer.start()
    await writer.write([row])
    await writer.close()
    return row.profile_id


def measure(settings: Settings, homes: dict[str, Path]) -> list[dict[str, Any]]:
    """The costs of every process, of each code in turn.

    Args:
        settings: Where the servers are.
        homes: The folder of each code, by its name.
    """
    profile = asyncio.run(_write(settings))
    registered = registry_of(settings)
    processes = {
        "read a feature": ("-c", READ.format(profile=profile)),
        **{f"intentstream {' '.join(one)}": ("-m", "intentstream", *one) for one in COMMANDS},
        WORKER: (),
    }
    rows = []
    for name, command in processes.items():
        costs: dict[str, list[Cost]] = {code: [] for code in homes}
        with step(name):
            for _ in range(1 + RUNS):
                for code, home in homes.items():
                    # The registry of one code would be another's to write anew.
                    registry = registered.with_name(f"{code}.db")
                    of_code = settings.model_copy(update={"feature_registry": registry})
                    environment = {**os.environ, **worker_environment(of_code)}
                    # Ahead of the editable installation, which is of the code of now.
                    environment["PYTHONPATH"] = str(home)
                    if command:
                        cost = of_command(command, home, environment)
                    else:
                        cost = of_worker(settings, home, environment)
                    costs[code].append(cost)
        rows += [
            {"process": name, "code": code, **_medians(found[1:])} for code, found in costs.items()
        ]
    return rows


def _medians(costs: list[Cost]) -> dict[str, float]:
    wall, cpu, peak = (median(one) for one in zip(*costs, strict=True))
    return {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "peak_mib": round(peak)}


def main() -> None:
    """Measure, print the table, keep the result."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.bench.start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    out = HOME / "docs" / "results" / "start.json"
    parser.add_argument("--before", metavar="REV", help="also measure the code of a revision")
    parser.add_argument("--out", type=Path, default=out, help="the result's file")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    torch.set_num_threads(1)
    with servers("kafka", "redis", "triton", "guard") as (stack, exports):
        (version,) = exported(exports, 0.0)
        asyncio.run(publish(stack.settings, version, exports=exports))
        if asked.before:
            with code_of(asked.before) as tree:
                rows = measure(stack.settings, {asked.before: tree, "now": HOME})
        else:
            rows = measure(stack.settings, {"now": HOME})
    result = {
        "rows": rows,
        "runs": RUNS,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "load_average_before": round(load, 2),
        "python": platform.python_version(),
        "command": "python -m lab.bench.start"
        + (f" --before {asked.before}" if asked.before else ""),
    }
    keep(result, asked.out)
    table = Table("process", "code", "seconds", "of CPU", "MiB")
    for row in rows:
        numbers = (f"{row['wall_s']:.2f}", f"{row['cpu_s']:.2f}", f"{row['peak_mib']:,}")
        table.add_row(row["process"], row["code"], *numbers)
    console = PlainConsole()
    console.print(table)
    console.print(f"Kept in {asked.out}; load average before {result['load_average_before']}.")


if __name__ == "__main__":
    main()
