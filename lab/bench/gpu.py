"""What a GPU brings: training steps and answers, beside the same machine's CPU.

    python -m lab.bench.gpu

Trains FM-Intent and SASRec with metadata for some steps on MovieLens-1M (`intentstream prepare`),
on the CPU and on the GPU, in float32 and in bfloat16 by `torch.autocast`; then answers windows of
64 with one new interaction each, as the model behind Triton does, without the server. Prints its
tables and writes `docs/results/gpu.json`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from itertools import islice
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from rich.table import Table

from fm_intent.benchmark import source
from fm_intent.data.crops import batches
from fm_intent.data.dataset import Sequences, TrainingBatch
from fm_intent.experiments import EXPERIMENTS, Experiment
from fm_intent.model_config import TOP
from fm_intent.served.cache import Cache, profile_bytes
from fm_intent.served.network import FMIntent, Interactions
from fm_intent.train import losses
from intentstream.paths import LOCAL
from lab.bench.results import keep, result_file
from stream.plain_text import PlainConsole

DATA: Final = LOCAL / "data" / "ml-1m"
MODELS: Final = ("fm-intent", "sasrec-metadata")
WINDOW: Final = 64
ROWS: Final = (1, 8, 64, 256)
STEPS: Final = 24
"""Of a way; the first third warms up."""

ROUNDS: Final = 60
CPU_SHARE: Final = 4
"""The CPU takes a fraction of the steps."""

WAYS: Final[dict[str, tuple[str, Callable[[], AbstractContextManager[Any]]]]] = {
    "cpu": ("cpu", nullcontext),
    "cpu, bf16": ("cpu", lambda: torch.autocast("cpu", torch.bfloat16)),
    "cuda": ("cuda", nullcontext),
    "cuda, bf16": ("cuda", lambda: torch.autocast("cuda", torch.bfloat16)),
}
"""Device and precision of each way to train."""


def step_ms(experiment: Experiment, sequences: Sequences, way: str) -> tuple[float, float]:
    """Milliseconds of a training step, median, and the mean loss of the last ones."""
    device, precision = WAYS[way]
    setup = experiment.training
    torch.manual_seed(0)
    model = experiment.build(sequences).to(device).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=setup.learning_rate, fused=True)
    rng = np.random.default_rng(0)
    crops = batches(sequences.random_cuts(setup.window, rng), setup.batch, rng)
    count = STEPS // CPU_SHARE if device == "cpu" else STEPS
    prepared: list[TrainingBatch] = [sequences.batch(one) for one in islice(crops, count)]
    took, reached = [], []
    for batch in prepared:
        began = time.perf_counter()
        with precision():
            loss, item = losses(model, batch.to(device), setup)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        reached.append(item.item())  # waits for the device
        took.append(1000 * (time.perf_counter() - began))
    return median(took[count // 3 :]), float(np.mean(reached[-3:]))


@torch.inference_mode()
def answer_ms(model: FMIntent, windows: Interactions, device: str) -> tuple[float, float]:
    """Milliseconds until the answers to windows with one new interaction are on the host."""
    rows, length = windows.title_BL.shape
    cache = Cache(model, TOP, length, rows * profile_bytes(model, length))
    profiles = torch.arange(rows, device=device)
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        answer = cache.answer(profiles, windows.to(device))
        for one in (*answer.intent_probs, *answer[1:]):
            one.cpu()
        took.append(1000 * (time.perf_counter() - began))
    return median(took[5:]), float(np.percentile(took[5:], 99))


def measure() -> dict[str, Any]:
    """All figures."""
    sequences = source(DATA)
    training, answers = [], []
    for name in MODELS:
        for way in WAYS:
            ms, loss = step_ms(EXPERIMENTS[f"ml-1m-{name}"], sequences, way)
            training.append({"model": name, "way": way, "step_ms": ms, "item_loss": loss})
    contexts = sequences.contexts("test", WINDOW, "served")
    full = np.flatnonzero(contexts.end - contexts.start >= WINDOW // 2)
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = EXPERIMENTS["served"].build(sequences).eval().to(device)
        assert isinstance(model, FMIntent)
        for rows in ROWS:
            chosen = type(contexts)(*(column[full[:rows]] for column in contexts))
            p50, p99 = answer_ms(model, sequences.windows(chosen), device)
            answers.append({"device": device, "rows": rows, "p50_ms": p50, "p99_ms": p99})
    return {
        "training": training,
        "answers": answers,
        "gpu": torch.cuda.get_device_name(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "python -m lab.bench.gpu",
    }


def main() -> None:
    """Measure, print the tables, keep the result."""
    out = result_file("gpu", __doc__)
    if not torch.cuda.is_available():
        sys.exit("torch finds no GPU here; run this on a machine that has one")
    result = measure()
    keep(result, out)
    console = PlainConsole()
    steps = Table("model", "way", "step, ms", "faster by", "item loss")
    for one in result["training"]:
        base = next(
            other["step_ms"]
            for other in result["training"]
            if (other["model"], other["way"]) == (one["model"], "cpu")
        )
        faster = f"{base / one['step_ms']:.1f}x"
        steps.add_row(
            one["model"], one["way"], f"{one['step_ms']:.1f}", faster, f"{one['item_loss']:.3f}"
        )
    console.print(steps)
    rows = Table("device", "rows", "p50, ms", "p99, ms", "rows/s")
    for one in result["answers"]:
        rate = f"{1000 * one['rows'] / one['p50_ms']:,.0f}"
        rows.add_row(
            one["device"], str(one["rows"]), f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}", rate
        )
    console.print(rows)


if __name__ == "__main__":
    main()
