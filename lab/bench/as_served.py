"""How long a historical read takes, and what memory: features as they were served, at size.

    TMPDIR=/a/disk/with/40/GB python -m lab.bench.as_served

Rows and requests (see `lab.bench.served_rows`) are written to disk, and each read runs in a process
of its own, which writes its answer as Parquet: all features of `ranker_v1`, and the match of
`search_rerank_v1`. At a size that it can take, the join in pandas that was there before answers the
same requests, taken from git at the commit `BEFORE`, and the answers are compared. Writing the rows
takes longer than reading them. Prints a table and keeps its rows in `docs/results/histories.json`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import psutil
import pyarrow.parquet as pq
from rich.table import Table

from lab.bench import served_rows
from lab.bench.results import keep_rows, result_file
from stream.home import HOME
from stream.plain_text import PlainConsole

if TYPE_CHECKING:
    from collections.abc import Iterator

BEFORE: Final = "b599cac"
"""The last commit at which the join held everything in pandas."""
PANDAS: Final = f"pandas, commit {BEFORE}"
DUCKDB: Final = "duckdb"

SERVICES: Final = ("ranker_v1", "search_rerank_v1")
SIZES: Final = (
    (1_200_000, 60_000, (DUCKDB, PANDAS)),
    (100_000_000, 5_000_000, (DUCKDB,)),
)
"""Rows, requests, and who can take them."""


_LOOK_S: Final = 0.05

_CALL: Final = """
import sys
from pathlib import Path

from lab.bench.as_served import read

folder, service, engine, out = sys.argv[1:]
read(Path(folder), service, engine, Path(out))
"""


def read(folder: Path, service: str, engine: str, out: Path) -> None:
    """Read features of the folder's requests into a file; in a process of its own."""
    if engine != DUCKDB:
        _as_before(folder)
    import pandas as pd
    from feast.infra.offline_stores.file_source import SavedDatasetFileStorage

    from features.registry.store import apply
    from stream.settings import Settings

    requests = folder / "requests.parquet"
    settings = Settings(
        online_store="sqlite", feature_registry=folder / "registry.db", offline_dir=folder
    )
    store = apply(settings)
    asked = f"FROM '{requests}'" if engine == DUCKDB else pd.read_parquet(requests)
    job = store.get_historical_features(asked, store.get_feature_service(service))
    job.persist(SavedDatasetFileStorage(str(out)), allow_overwrite=True)


def _as_before(folder: Path) -> None:
    """Put the former module in the place of the present one."""
    name = "features.offline.as_served"
    file = folder / "as_served_before.py"
    command = ["git", "show", f"{BEFORE}:{name.replace('.', '/')}.py"]
    told = subprocess.run(command, cwd=HOME, check=True, capture_output=True)  # noqa: S603 - git
    # What it imports has moved since.
    moved = told.stdout.replace(
        b"features.online.fence import", b"features.online.fenced_writes import"
    )
    file.write_bytes(moved)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    # It had no options.
    config = module.AsServedOfflineStoreConfig
    module.AsServedOfflineStoreConfig = lambda **_: config()


def measure(folder: Path, service: str, engine: str, out: Path) -> tuple[float, float]:
    """Seconds and peak memory in MiB of one read, its process's start included."""
    arguments = [str(folder), service, engine, str(out)]
    began = time.monotonic()
    process = psutil.Popen([sys.executable, "-c", _CALL, *arguments])
    peak = 0
    # The system's own peak of a child begins with what its parent held.
    while (status := process.poll()) is None:
        with suppress(psutil.NoSuchProcess):
            peak = max(peak, process.memory_info().rss)
        time.sleep(_LOOK_S)
    if status:
        raise RuntimeError(f"{engine} could not read {service}: {status}")
    return time.monotonic() - began, peak / 2**20


def are_equal(one: Path, other: Path) -> bool:
    """Whether two answers have the same values, column by name, in the same order."""
    first, second = pq.read_table(one), pq.read_table(other)
    same = {*first.column_names} == {*second.column_names} and len(first) == len(second)
    return same and all(
        first.slice(place, 10_000).to_pylist() == second.slice(place, 10_000).to_pylist()
        for place in range(0, len(first), 10_000)
    )


def compare(
    folder: Path, rows: int, requests: int, engines: tuple[str, ...]
) -> Iterator[list[dict[str, Any]]]:
    """What is measured of rows and requests that are in the folder, service by service."""
    for service in SERVICES:
        results: list[dict[str, Any]] = []
        answers: dict[str, Path] = {}
        for engine in engines:
            answers[engine] = folder / f"{service}-{len(answers)}.parquet"
            load = os.getloadavg()[0]
            seconds, peak_mib = measure(folder, service, engine, answers[engine])
            results.append(
                {
                    "what": f"features as served, {service}",
                    "engine": engine,
                    "events": rows,
                    "requests": requests,
                    "seconds": round(seconds, 1),
                    "peak_mib": round(peak_mib),
                    "identical_to": None,
                    "bytes_a_row": served_rows.BYTES,
                    "load_average": round(load, 2),
                    "cpus": os.cpu_count(),
                    "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
                    "command": "python -m lab.bench.as_served",
                }
            )
        if len(answers) == 2 and are_equal(*answers.values()):
            results[-2]["identical_to"] = PANDAS
        for answer in answers.values():
            answer.unlink()
        yield results


def main() -> None:
    """Measure, print the table, keep its rows."""
    out = result_file("as_served", __doc__, file="histories")
    results: list[dict[str, Any]] = []
    for rows, requests, engines in SIZES:
        with TemporaryDirectory() as name:
            folder = Path(name)
            landed = served_rows.land(folder, rows)
            served_rows.land_titles(folder)
            served_rows.ask(folder / "requests.parquet", requests, rows)
            for of_a_service in compare(folder, landed, requests, engines):
                results += of_a_service
                keep_rows(results, out)
    table = Table("what", "engine", "rows", "requests", "seconds", "peak MiB", "identical to")
    for row in results:
        table.add_row(
            row["what"],
            row["engine"],
            *(f"{row[name]:,}" for name in ("events", "requests", "seconds", "peak_mib")),
            row["identical_to"] or "",
        )
    console = PlainConsole()
    console.print(table)
    console.print(f"Kept in {out}.")


if __name__ == "__main__":
    main()
