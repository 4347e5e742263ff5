"""What it takes to build histories of many events, to add a day, and to begin a training on them.

    TMPDIR=/a/disk/with/12/GB python -m lab.bench.histories

Events (see `lab.bench.many_events`) are written to disk: 100 million in 20 days, then one more day
of 20 million. `intentstream data build` takes both, and a training of the experiment `served`
begins on them. A million events are then built by every engine, and by the session code that is
serving's own, an event at a time in Python, as it was before there were engines; their files are
compared byte by byte. Each of these runs in a process of its own. Prints a table and keeps its rows
in `docs/results/histories.json`.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from datetime import UTC, datetime
from filecmp import cmpfiles
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from fm_intent.data import building
from fm_intent.data.columns import GrowingColumn, GrowingIds, StoredIds
from fm_intent.data.contract import CATALOGUE_FILE
from fm_intent.data.event_files import HISTORIES_FOLDER, event_days
from fm_intent.data.histories import COLUMNS, OFFSET, histories_folder
from lab.bench.many_events import write_catalogue, write_days
from lab.bench.results import keep_rows, result_file
from stream.domain import history
from stream.domain.catalogue import read_catalogue
from stream.domain.event_types import STATELESS, event_of
from stream.domain.rules import Rules
from stream.plain_text import PlainConsole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fm_intent.data.engines import EngineName
    from stream.domain.event_types import Event

DAYS: Final = 20
EVENTS_A_DAY: Final = 5_000_000
EVENTS_OF_THE_DAY_MORE: Final = 20_000_000
COMPARED_DAYS: Final = 2
COMPARED_EVENTS_A_DAY: Final = 500_000
STEPS: Final = 200
PYTHON: Final = "python, an event at a time"
ENGINES: Final = ("duckdb", "spark")

_LOOK_S: Final = 0.2
_CALL: Final = (
    "import sys; from lab.bench import histories as h; getattr(h, sys.argv[1])(*sys.argv[2:])"
)


def write(folder: str, first: str, days: str, events_a_day: str) -> None:
    """Write days of events, and the catalogue with the first."""
    if first == "0":
        write_catalogue(Path(folder))
    write_days(Path(folder), range(int(first), int(first) + int(days)), int(events_a_day))


def build(folder: str, engine: EngineName) -> None:
    """Build the folder's histories."""
    building.build(Path(folder), engine)


def build_in_python(folder: str) -> None:
    """Build the folder's histories by the session code alone, in the files of a build."""
    data_dir = Path(folder)
    rules = Rules(durations=read_catalogue(data_dir / CATALOGUE_FILE).durations)
    found = sorted(history.histories(_events(data_dir), rules).items())
    out = histories_folder(data_dir)
    out.mkdir(parents=True)
    for name, dtype in COLUMNS.items():
        column = GrowingColumn(out / f"{name}.npy", dtype)
        column.append(np.concatenate([getattr(of_one, name) for _, of_one in found]))
        column.close()
    offset, ids = GrowingColumn(out / f"{OFFSET}.npy", np.int64), GrowingIds(out)
    offset.append(np.cumsum([0, *(len(of_one.action) for _, of_one in found)]))
    ids.append(pa.array([profile for profile, _ in found]))
    offset.close()
    ids.close()


def _events(data_dir: Path) -> Iterator[Event]:
    for path in (path for files in event_days(data_dir).values() for path in files):
        for batch in pq.ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                if row["event_type"] not in STATELESS:
                    yield event_of(row)


def begin_training(folder: str) -> None:
    """Read histories, choose windows and take the first steps, as a training of `served` does."""
    import torch

    from fm_intent.data.crops import batches
    from fm_intent.data.dataset import load
    from fm_intent.experiments import EXPERIMENTS
    from fm_intent.train import losses

    sequences, experiment = load(Path(folder)), EXPERIMENTS["served"]
    setup = experiment.training
    network = experiment.build(sequences)
    optimiser = torch.optim.AdamW(network.parameters(), lr=setup.learning_rate, fused=True)
    held_out = sequences.contexts("validation", setup.window, setup.crops)
    pooled_on = sequences.validation_interactions(setup.window, setup.crops)
    crops = sequences.crops(setup.window, setup.crops)
    for some in islice(batches(crops, setup.batch, np.random.default_rng(0)), STEPS):
        loss, _ = losses(network, sequences.batch(some), setup)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
    held = len(held_out.end) + len(pooled_on.end)
    print(f"{len(crops):,} windows, and {held:,} for validation")


def measured(what: str, engine: str, events: int, *call: object) -> dict[str, Any]:
    """A row: seconds and peak memory of a function here, in a process of its own.

    `cpu_seconds` are those of all its cores: they tell what it costs where the machine does other
    things meanwhile (Spark's Java is not in them). The peak is what it and all processes that it
    starts hold at once: Spark's are several.

    Args:
        what: is measured.
        engine: that does it.
        events: that are read.
        call: the function's name and its arguments.
    """
    load, began, peak = os.getloadavg()[0], time.monotonic(), 0
    process = _start(call)
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        peak = max(peak, _resident(process))
        time.sleep(_LOOK_S)
    _, status, usage = ended
    if status:
        raise RuntimeError(f"{what} by {engine} failed: {status}")
    return {
        "what": what,
        "engine": engine,
        "events": events,
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": max(peak >> 20, usage.ru_maxrss >> 10),
        "identical_to": None,
        "load_average": round(load, 2),
        "cpus": os.cpu_count(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m lab.bench.histories",
    }


def _start(call: tuple[object, ...]) -> psutil.Popen:
    return psutil.Popen([sys.executable, "-c", _CALL, *map(str, call)])


def _resident(process: psutil.Process) -> int:
    held = 0
    try:
        for one in (process, *process.children(recursive=True)):
            held += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # one ended meanwhile; what is looked at next is whole again
    return held


def _written(*call: object) -> None:
    if status := _start(("write", *call)).wait():
        raise RuntimeError(f"events could not be written: {status}")


def at_size(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of many events: all of them at once, a day more, and a training's start."""
    events, more = DAYS * EVENTS_A_DAY, EVENTS_OF_THE_DAY_MORE
    _written(folder, 0, DAYS, EVENTS_A_DAY)
    yield measured(f"build of {DAYS} days", "duckdb", events, "build", folder, "duckdb")
    _written(folder, DAYS, 1, more)
    yield measured(f"a day more than {events:,}", "duckdb", more, "build", folder, "duckdb")
    what = f"start of training, {STEPS} steps"
    yield measured(what, "torch", events + more, "begin_training", folder)


def compared(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of fewer events, built in every way; the others' files are compared with Python's."""
    events, what = COMPARED_DAYS * COMPARED_EVENTS_A_DAY, f"build of {COMPARED_DAYS} days"
    _written(folder, 0, COMPARED_DAYS, COMPARED_EVENTS_A_DAY)
    yield measured(what, PYTHON, events, "build_in_python", folder)
    expected = histories_folder(folder).rename(folder / "python")
    for engine in ENGINES:
        row = measured(what, engine, events, "build", folder, engine)
        names = [f"{one}.npy" for one in (*COLUMNS, OFFSET, StoredIds.TEXT, StoredIds.END)]
        same, _, _ = cmpfiles(expected, histories_folder(folder), names, shallow=False)
        shutil.rmtree(folder / HISTORIES_FOLDER)
        yield row | {"identical_to": PYTHON if same == names else None}


def main() -> None:
    """Measure, print the table, keep its rows."""
    out = result_file("histories", __doc__)
    rows = []
    for measure in (at_size, compared):
        with TemporaryDirectory() as name:
            for row in measure(Path(name)):
                rows.append(row)
                keep_rows(rows, out)
    table = Table("what", "engine", "events", "seconds", "peak MiB", "identical to")
    for row in rows:
        numbers = (f"{row[name]:,}" for name in ("events", "seconds", "peak_mib"))
        table.add_row(row["what"], row["engine"], *numbers, row["identical_to"] or "")
    console = PlainConsole()
    console.print(table)
    console.print(f"Kept in {out}.")


if __name__ == "__main__":
    main()
