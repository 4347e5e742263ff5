"""What the served network's pass over new positions costs: CPU of a row, by batch and window.

    python -m lab.bench.model_pass --before REV

Answers windows from a cache, in a process of its own on one thread, as the model behind Triton
does, of which one position, two or all are new; profiles take turns, so that their slots aren't in
the processor's caches. With `--before`, the code of that commit takes turns with this one, from a
worktree and with the same packages. The network is untrained: its arithmetic is that of a trained
one. Prints its table and writes `docs/results/model_pass.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import torch
from rich.table import Table

from fm_intent.model_config import TOP
from fm_intent.served.cache import Cache, profile_bytes
from fm_intent.served.network import FMIntent
from lab.bench.inference import DEPTHS, SERVED_DEPTH, full_windows, gemm_gflops, untrained
from lab.bench.results import keep
from lab.bench.revisions import code_of
from stream.home import HOME
from stream.plain_text import PlainConsole

BATCHES: Final = (1, 8, 64, 256)
WINDOWS: Final = (64, 256)
NEW: Final = (1, 2)
PROFILES: Final = 512
WHOLE_BATCH: Final = 8
ROUNDS: Final = 7
TURN_S: Final = 0.15
"""Of one figure in one round."""

Ask = Callable[[], object]


def questions(model: FMIntent) -> Iterator[tuple[dict[str, Any], Callable[[], None], Ask]]:
    """What is measured: its row of the result, what goes before each call, and the call."""
    for window in WINDOWS:
        room = PROFILES * profile_bytes(model, window)
        for batch in BATCHES:
            cache = Cache(model, TOP, window, room)
            x = full_windows(batch, window)
            groups = torch.arange(PROFILES).view(-1, batch)
            for profiles in groups:
                cache.answer(profiles, x)
            for new in NEW:
                turn, share = iter(range(1 << 40)), x.watched_share_BL

                def change(share: torch.Tensor = share, new: int = new) -> None:
                    share[:, -new] = time.perf_counter() % 1

                def ask(
                    cache: Cache = cache, x: Any = x, groups: Any = groups, turn: Any = turn
                ) -> object:
                    return cache.answer(groups[next(turn) % len(groups)], x)

                yield {"window": window, "batch": batch, "new": new}, change, ask
            if batch == WHOLE_BATCH:

                def forget(cache: Cache = cache, groups: Any = groups) -> None:
                    cache.forget(groups[0].tolist())

                def whole(cache: Cache = cache, x: Any = x, groups: Any = groups) -> object:
                    return cache.answer(groups[0], x)

                yield {"window": window, "batch": batch, "new": window}, forget, whole


def take_turns() -> None:
    """Measure everything once for each line that comes in, and answer with a line of JSON."""
    torch.set_num_threads(1)
    with torch.inference_mode():
        model = untrained(DEPTHS[SERVED_DEPTH])
        kib = {window: profile_bytes(model, window) / 1024 for window in WINDOWS}
        asked = list(questions(model))
        print(json.dumps(kib), flush=True)
        for _ in sys.stdin:
            took = [_cpu_us(row["batch"], before, ask) for row, before, ask in asked]
            print(json.dumps(took), flush=True)


def _cpu_us(batch: int, before: Callable[[], None], ask: Ask) -> float:
    spent: list[float] = []
    end = time.perf_counter() + TURN_S
    while len(spent) < 2 or time.perf_counter() < end:
        before()
        began = time.process_time()
        ask()
        spent.append(time.process_time() - began)
    return median(spent) / batch * 1e6


@contextmanager
def measuring(code: Path) -> Iterator[tuple[dict[str, float], Callable[[], list[float]]]]:
    """This benchmark on some code, in a process: KiB of a profile by window, and a turn to take."""
    command = [sys.executable, __file__, "--turns"]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    with subprocess.Popen(  # noqa: S603
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines, go = process.stdout, process.stdin

        def turn() -> list[float]:
            go.write("\n")
            go.flush()
            took: list[float] = json.loads(lines.readline())
            return took

        yield json.loads(lines.readline()), turn
        go.close()


def measure(revision: str | None) -> dict[str, Any]:
    """All figures; of the code of before, too, where a commit is named."""
    load, took = os.getloadavg()[0], datetime.now(UTC)
    with ExitStack() as stack:
        codes = {"": HOME}
        if revision is not None:
            codes["before_"] = stack.enter_context(code_of(revision))
        running = {name: stack.enter_context(measuring(code)) for name, code in codes.items()}
        spent: dict[str, list[list[float]]] = {name: [] for name in codes}
        for _ in range(ROUNDS):
            for name, (_, turn) in running.items():
                spent[name].append(turn())
        profile_kib = {f"{name}profile_kib": kib for name, (kib, _) in running.items()}
    rows = []
    labels = [
        {"window": window, "batch": batch, "new": new}
        for window in WINDOWS
        for batch in BATCHES
        for new in (*NEW, *([window] if batch == WHOLE_BATCH else []))
    ]
    for place, row in enumerate(labels):
        figures = {
            f"{name}cpu_us_per_row": median(turn[place] for turn in turns)
            for name, turns in spent.items()
        }
        if revision is not None:
            figures["ratio"] = figures["cpu_us_per_row"] / figures["before_cpu_us_per_row"]
        rows.append({**row, **{name: round(one, 3) for name, one in figures.items()}})
    return {
        "rows": rows,
        **profile_kib,
        "before": revision,
        "rounds": ROUNDS,
        "gemm_gflops": gemm_gflops(),
        "cpus": os.cpu_count(),
        "load_average_before": round(load, 2),
        "load_average_after": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "measured_at": took.isoformat(timespec="seconds"),
        "command": "python -m lab.bench.model_pass" + (f" --before {revision}" if revision else ""),
    }


def main() -> None:
    """Measure, print the table, keep the result."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.bench.model_pass",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--before", metavar="REV", help="a commit whose code takes turns")
    parser.add_argument("--turns", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HOME / "docs" / "results" / "model_pass.json")
    given = parser.parse_args()
    if given.turns:
        take_turns()
        return
    torch.set_num_threads(1)
    result = measure(given.before)
    keep(result, given.out)
    table = Table("window", "batch", "new", "CPU, µs a row", "before", "ratio")
    for row in result["rows"]:
        before, ratio = row.get("before_cpu_us_per_row"), row.get("ratio")
        table.add_row(
            *(str(row[name]) for name in ("window", "batch", "new")),
            f"{row['cpu_us_per_row']:,.1f}",
            "" if before is None else f"{before:,.1f}",
            "" if ratio is None else f"{ratio:.2f}",
        )
    console = PlainConsole()
    console.print(table)
    for name, value in result.items():
        if name != "rows":
            console.print(f"{name}: {value}")


if __name__ == "__main__":
    main()
