"""What a profile update costs: the whole window computed again, or one position of it.

    python -m lab.bench.inference

Measures the network alone, in this process and on one thread, then the real Triton server on free
ports of loopback, and compares cached with uncached answers over 10,000 random event streams. The
networks are untrained: their arithmetic is that of trained ones. Other programs may use the
machine, so CPU time stands beside wall time, and the paths of each row take turns. Prints its
tables and writes `docs/results/inference.json`. Runtimes of others need the extra `bench`.

Where NVIDIA's `perf_analyzer` is on the PATH it puts the server under load, too. Its binary is in
tritonclient's wheels up to 2.60; that of 2.50 runs with glibc 2.34 and later, beside `libb64` and
CUDA's runtime library (Debian's `libb64-0d`, PyPI's `nvidia-cuda-runtime-cu12`).
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import onnxruntime
import openvino
import psutil
import torch
import tritonclient.grpc.aio as triton
from numpy.typing import NDArray
from rich.table import Table
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from fm_intent.data.catalogue import SourceCatalogue
from fm_intent.data.dataset import domain, title_shares
from fm_intent.export import Manifest, export
from fm_intent.model_config import TOP
from fm_intent.served.cache import Cache, profile_bytes
from fm_intent.served.compiled import Compiled
from fm_intent.served.network import (
    FIRST_ROW,
    Architecture,
    FMIntent,
    Interactions,
    TitleTable,
)
from fm_intent.served.recorded import Whole
from infra.local.stack import Stack, on_loopback
from lab.bench import streams
from lab.bench.results import keep, result_file
from stream.domain.heads import HEADS
from stream.domain.labels import ACTIONS, DEVICES, GENRES, KINDS
from stream.plain_text import PlainConsole
from stream.ports import free_ports
from stream.settings import Settings

Name = TypeVar("Name")

TITLES: Final = 3_416
"""As in MovieLens-1M."""

DEPTHS: Final = {
    2: Architecture(short_layers=0, item_layers=1),
    4: Architecture(),
    8: Architecture(item_layers=6),
}
"""By the number of layers in all; four are what the demo trains."""

SERVED_DEPTH: Final = 4
BATCHES: Final = (1, 8, 64)
LENGTHS: Final = (16, 32, 64, 128, 256)
WINDOW: Final = 64
ROUNDS: Final = 5
ROUND_S: Final = 0.06
STREAMS: Final = 10_000
EVENTS: Final = 6
PROFILES: Final = 1_536
LOAD_S: Final = 10.0
IN_FLIGHT: Final = 4
OFFERED: Final = 0.7
"""Of the rate that the server answers at most, where latencies are measured."""

OFFERED_B1: Final = (50.0, 200.0)
"""Requests of one row per second: of a server that idles most of the time, and of a busier one."""

_START_MS: Final = 1_700_000_000_000


def untrained(architecture: Architecture) -> FMIntent:
    """A network over a made-up catalogue."""
    rng = np.random.default_rng(0)
    rows = FIRST_ROW + TITLES
    hashes = rng.integers(1, 1 << 62, rows)
    hashes[:FIRST_ROW] = 0
    entries = SourceCatalogue(
        title_id=[],
        name=[],
        title_hash=hashes,
        genres=(rng.random((rows, len(GENRES))) < 0.1).astype(np.float32),
        kind=rng.integers(0, len(KINDS) + 1, rows),
        release_day=np.sort(rng.integers(0, 19_000, rows)),
        duration_ms={},
    )
    table = TitleTable(
        torch.from_numpy(hashes),
        torch.from_numpy(entries.genres),
        torch.from_numpy(entries.kind),
        torch.from_numpy(entries.release_day),
        torch.from_numpy(title_shares(entries)),
    )
    everything = domain((True,) * len(HEADS), repeats=True, vocabulary=TITLES)
    torch.manual_seed(0)
    return FMIntent(architecture, everything, table).eval()


def full_windows(rows: int, length: int) -> Interactions:
    """Random windows, all of this length."""
    draw = torch.Generator().manual_seed(0)

    def integers(low: int, high: int) -> torch.Tensor:
        return torch.randint(low, high, (rows, length), generator=draw)

    return Interactions(
        title_BL=integers(FIRST_ROW, FIRST_ROW + TITLES),
        action_BL=integers(0, len(ACTIONS)),
        start_ms_BL=_START_MS + integers(0, 10_000_000).cumsum(1),
        watched_share_BL=torch.rand((rows, length), generator=draw),
        device_BL=integers(0, len(DEVICES)),
        length_B=torch.full((rows,), length),
    )


def whole_of(model: FMIntent) -> Whole:
    """Full recompute, as a function of tensors to tensors."""
    return Whole(model, model.titles().detach(), TOP)


class Foreign:
    """Full recompute of a network in other runtimes, on one thread, from one ONNX graph."""

    def __init__(self, model: FMIntent, folder: Path) -> None:
        graph = folder / "model.onnx"
        sizes = torch.export.Dim.DYNAMIC
        example = full_windows(3, min(LENGTHS))
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                whole_of(model),
                tuple(example),
                input_names=list(Interactions._fields),
                dynamic_shapes=(tuple(dict.fromkeys(range(x.dim()), sizes) for x in example),),
                dynamo=True,
                verbose=False,
            )
        assert program is not None
        program.save(graph)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self._request = openvino.compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
            },
        ).create_infer_request()

    def paths(self, x: Interactions) -> dict[tuple[str, str], Callable[[], object]]:
        """By path and runtime, what answers `x`."""
        columns = {name: column.numpy() for name, column in x._asdict().items()}
        return {
            ("full", "ONNX Runtime"): partial(self._session.run, None, columns),
            ("full", "OpenVINO"): partial(self._request.infer, columns, share_inputs=True),
        }


class CallCost(NamedTuple):
    """Of calls, seconds each."""

    wall: list[float]
    cpu: list[float]
    """Of this process: of what else runs it only feels shared caches and cores."""


def alternate(paths: dict[Name, Callable[[], object]]) -> dict[Name, CallCost]:
    """The cost of each path; they take turns, so that all meet the same load of the machine."""
    costs = {name: CallCost([], []) for name in paths}
    for call in paths.values():
        call()
    for _ in range(ROUNDS):
        for name, call in paths.items():
            end = time.perf_counter() + ROUND_S
            while time.perf_counter() < end:
                cpu, wall = time.process_time(), time.perf_counter()
                call()
                costs[name].wall.append(time.perf_counter() - wall)
                costs[name].cpu.append(time.process_time() - cpu)
    return costs


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


@torch.inference_mode()
def measure_network() -> list[dict[str, Any]]:
    """Rows of both paths over batches, lengths and depths; each update brings one new event."""
    rows = []
    for layers, architecture in DEPTHS.items():
        model = untrained(architecture)
        with tempfile.TemporaryDirectory() as folder:
            foreign = Foreign(model, Path(folder))
        for length in LENGTHS:
            for batch in BATCHES:
                x = full_windows(batch, length)
                # More profiles than a batch, so that their slots aren't in the processor's caches.
                turns = max(1, 512 // batch)
                cache = Cache(model, TOP, length, turns * batch * profile_bytes(model, length))
                names = torch.arange(turns * batch).view(turns, batch)
                for profiles in names:
                    cache.answer(profiles, x)
                whole = whole_of(model)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the recorded shapes are the ones that follow
                    recorded = torch.jit.trace(whole, tuple(x), check_trace=False)  # type: ignore[no-untyped-call]
                costs = alternate(
                    {
                        ("full", "torch eager"): partial(whole, *x),
                        ("full", "torch recorded"): partial(recorded, *x),
                        **foreign.paths(x),
                        ("incremental", cache.way.name): _updates(cache, names, x),
                    }
                )
                for (path, runtime), cost in costs.items():
                    row = {
                        "path": path,
                        "runtime": runtime,
                        "batch": batch,
                        "L": length,
                        "layers": layers,
                        "seq_per_s": round(batch / median(cost.wall), 1),
                        "seq_per_cpu_s": round(batch / median(cost.cpu), 1),
                        **percentiles(cost.wall),
                    }
                    rows.append(row)
    return rows


def _updates(cache: Cache, names: torch.Tensor, x: Interactions) -> Callable[[], object]:
    turn = 0

    def update() -> object:
        nonlocal turn
        turn += 1
        x.watched_share_BL[:, -1] = turn % 997 / 997
        return cache.answer(names[turn % len(names)], x)

    return update


def gemm_gflops() -> float:
    """What one thread does on a large matrix product: the limit of any such network."""
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    cost = alternate({"gemm": lambda: a @ b})["gemm"]
    return round(2 * 1024**3 / min(cost.cpu) / 1e9, 1)


class Load:
    """Requests of profiles that have one new event each, then a sitting that goes on."""

    def __init__(self, model: FMIntent) -> None:
        x = full_windows(PROFILES, WINDOW)
        self._columns: dict[str, NDArray[Any]] = {
            "title_hash": model.hash_T[x.title_BL].numpy(),
            "action": x.action_BL.int().numpy(),
            "start_ms": x.start_ms_BL.numpy(),
            "watched_share": x.watched_share_BL.numpy(),
            "device": x.device_BL.int().numpy(),
        }
        self._length = np.full(PROFILES, WINDOW // 2, np.int32)
        self._next = 0

    def request(self, rows: int) -> list[triton.InferInput]:
        """The next profiles in turn, each with its newest event."""
        chosen = np.arange(self._next, self._next + rows) % PROFILES
        self._next += rows
        self._length[chosen] = np.minimum(self._length[chosen] + 1, WINDOW)
        newest = self._length[chosen] - 1
        self._columns["watched_share"][chosen, newest] = self._next % 997 / 997
        longest = int(newest.max()) + 1
        columns = {name: column[chosen, :longest] for name, column in self._columns.items()}
        columns["length"] = self._length[chosen, None]
        columns["profile_hash"] = chosen[:, None]
        columns["sequence_no"] = np.full((rows, 1), self._next)
        inputs = []
        for name, values in columns.items():
            tensor = triton.InferInput(name, values.shape, np_to_triton_dtype(values.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(values))
            inputs.append(tensor)
        return inputs

    def step_file(self, path: Path) -> None:
        """Write the newest window of each profile, for `perf_analyzer` to send again and again.

        A window that comes again costs what a new event does: its newest position is computed.
        """
        columns = {
            **self._columns,
            "length": self._length[:, None],
            "profile_hash": np.arange(PROFILES)[:, None],
            "sequence_no": np.zeros((PROFILES, 1), np.int64),
        }
        steps = [
            {
                name: {"content": values[row].tolist(), "shape": [values.shape[1]]}
                for name, values in columns.items()
            }
            for row in range(PROFILES)
        ]
        path.write_text(json.dumps({"data": steps}))


async def closed_loop(ask: Callable[[], Awaitable[object]]) -> float:
    """Requests per second with a fixed number of them in flight."""
    end = time.perf_counter() + LOAD_S
    done = 0

    async def one_after_another() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await ask()
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(one_after_another() for _ in range(IN_FLIGHT)))
    return done / (time.perf_counter() - started)


class Answered(NamedTuple):
    """What came of an open loop."""

    latencies: list[float]
    """Seconds from when a request was due to its answer, whatever became of those before."""

    refused: int
    """Requests that the server had no place for, or that waited too long."""


async def open_loop(ask: Callable[[], Awaitable[object]], per_s: float) -> Answered:
    """Send requests when they are due, however many are still in flight."""
    latencies: list[float] = []
    started = time.perf_counter()

    async def one(due: float) -> None:
        with suppress(InferenceServerException):
            await ask()
            latencies.append(time.perf_counter() - due)

    requests = int(LOAD_S * per_s)
    async with asyncio.TaskGroup() as group:
        for number in range(requests):
            due = started + number / per_s
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))
    return Answered(latencies, requests - len(latencies))


class ServerTime:
    """CPU seconds of a process and its children."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def now(self) -> float:
        """Spent so far."""
        family = (self._process, *self._process.children(recursive=True))
        return sum(one.cpu_times().user + one.cpu_times().system for one in family)


def perf_analyzer(url: str, load: Load) -> list[dict[str, Any]]:
    """The same load by NVIDIA's client, a row per run; none where its binary isn't there."""
    binary = shutil.which("perf_analyzer")
    if binary is None:
        return []
    offers = [
        *((1, f"--request-rate-range={rate:g}") for rate in OFFERED_B1),
        (1, "--concurrency-range=1"),
        (64, f"--concurrency-range={IN_FLIGHT}"),
    ]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        steps, table = Path(folder, "steps.json"), Path(folder, "table.csv")
        load.step_file(steps)
        for batch, offer in offers:
            command = [
                *(binary, "-m", "fm_intent", "-u", url, "-i", "grpc", "--async", offer),
                *("-b", str(batch), "--input-data", str(steps), "-f", str(table)),
                *("--measurement-interval", f"{1000 * LOAD_S:.0f}", "--percentile=99"),
                "--stability-percentage=100",
            ]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
            with table.open() as lines:
                found = next(csv.DictReader(lines))
            rows.append(
                {
                    "batch": batch,
                    "load": offer.removeprefix("--"),
                    "updates_per_s": float(found["Inferences/Second"]),
                    "p50_ms": float(found["p50 latency"]) / 1000,
                    "p99_ms": float(found["p99 latency"]) / 1000,
                }
            )
    return rows


async def measure_server(stack: Stack, model: FMIntent) -> dict[str, Any]:
    """The load on the running server."""
    load = Load(model)
    spent = ServerTime(stack.pid("triton"))
    async with triton.InferenceServerClient(stack.settings.triton_url) as client:

        async def ask(rows: int) -> None:
            await client.infer("fm_intent", load.request(rows), client_timeout=30)

        for _ in range(PROFILES // WINDOW):
            await ask(WINDOW)
        before = spent.now()
        peak = await closed_loop(lambda: ask(64))
        cpu = spent.now() - before
        batches = await open_loop(lambda: ask(64), OFFERED * peak)
        singles = []
        for rate in OFFERED_B1:
            before = spent.now()
            one = await open_loop(lambda: ask(1), rate)
            singles.append(
                {
                    "offered_per_s": rate,
                    **percentiles(one.latencies),
                    "refused": one.refused,
                    "server_cpu_ms_per_update": round(
                        (spent.now() - before) / len(one.latencies) * 1000, 3
                    ),
                }
            )
    batch = percentiles(batches.latencies)
    return {
        "grpc_updates_per_s_b64": round(64 * peak, 1),
        "grpc_server_cpu_us_per_update_b64": round(cpu / (64 * peak * LOAD_S) * 1e6, 1),
        "grpc_b64_p50_ms": batch["p50_ms"],
        "grpc_b64_p99_ms": batch["p99_ms"],
        "grpc_b64_offered_updates_per_s": round(64 * OFFERED * peak, 1),
        "grpc_b64_refused": batches.refused,
        "grpc_b1": singles,
        "grpc_b1_p99_ms": singles[0]["p99_ms"],
        "perf_analyzer": perf_analyzer(stack.settings.triton_url, load),
    }


def measure_through_triton() -> dict[str, Any]:
    """The same on a server that is started for it, with the committed configuration."""
    model = untrained(DEPTHS[SERVED_DEPTH])
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        repository = home / "models"
        manifest = export(model, unmeasured(), full_windows(2, WINDOW), repository)
        names = [name for name in Settings.model_fields if name.endswith("_port")]
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        settings = on_loopback(Settings().model_copy(update=ports))
        with Stack(home / "stack", settings, repository) as stack:
            stack.start("triton")
            stack.load_model(str(manifest.version))
            return asyncio.run(measure_server(stack, model))


def unmeasured() -> Manifest:
    """The manifest of a version that was never trained."""
    return Manifest(
        version=0,
        source="untrained",
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
        experiment="demo",
        seed=0,
        epochs=0,
        seconds=0.0,
        params=0,
        window=WINDOW,
        titles=TITLES,
        trained_intents=[],
        data_sha256="",
        metrics={},
        report={},
        config={},
    )


def ratios(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How much cheaper an update is than the best full recompute, and how its cost grows with L.

    Of CPU time, and by depth.
    """

    def cpu_rate(path: str, batch: int, length: int, layers: int) -> float:
        wanted = (path, batch, length, layers)
        return max(
            float(row["seq_per_cpu_s"])
            for row in rows
            if (row["path"], row["batch"], row["L"], row["layers"]) == wanted
        )

    return {
        "incremental_vs_full_L64_b64": {
            layers: round(
                cpu_rate("incremental", 64, 64, layers) / cpu_rate("full", 64, 64, layers), 1
            )
            for layers in DEPTHS
        },
        "cost_L256_vs_L32": {
            f"{layers} layers, batch {batch}": round(
                cpu_rate("incremental", batch, 32, layers)
                / cpu_rate("incremental", batch, 256, layers),
                2,
            )
            for layers in DEPTHS
            for batch in BATCHES
        },
    }


def compare_streams() -> dict[str, Any]:
    """Cached beside uncached answers of the served network."""
    compared = streams.compare(
        untrained(DEPTHS[SERVED_DEPTH]), Compiled.name, STREAMS, EVENTS, WINDOW, seed=0
    )
    return {
        "max_abs_diff": compared.max_abs_diff,
        "streams_compared": compared.streams,
        "windows_compared": compared.windows,
        "cache": asdict(compared.counts),
    }


def main() -> None:
    """Measure, print the tables, keep the result."""
    out = result_file("inference", __doc__)
    torch.set_num_threads(1)
    started, load = time.perf_counter(), os.getloadavg()[0]
    gflops = gemm_gflops()
    rows = measure_network()
    result = {
        "rows": rows,
        **ratios(rows),
        **measure_through_triton(),
        **compare_streams(),
        "gemm_gflops": gflops,
        "titles": TITLES,
        "profile_kib": profile_bytes(untrained(DEPTHS[SERVED_DEPTH]), WINDOW) / 1024,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started),
        "cpus": os.cpu_count(),
        "load_average_before": round(load, 2),
        "load_average_after": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": "python -m lab.bench.inference",
    }
    keep(result, out)
    show(result)


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    console = PlainConsole()
    table = Table(title="The network alone, one thread")
    for heading in (
        "layers",
        "L",
        "batch",
        "path",
        "runtime",
        "seq/s",
        "seq/CPU s",
        "p50 ms",
        "p99 ms",
    ):
        table.add_column(heading, justify="right")
    for row in result["rows"]:
        table.add_row(
            *(str(row[name]) for name in ("layers", "L", "batch", "path", "runtime")),
            f"{row['seq_per_s']:,.0f}",
            f"{row['seq_per_cpu_s']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
        )
    console.print(table)
    for name, value in result.items():
        if name != "rows":
            console.print(f"{name}: {value}")
    console.print(
        "Where the load average is above the number of CPUs, others had them for part of the time: "
        "wall times are then those of a busy machine."
    )


if __name__ == "__main__":
    main()
