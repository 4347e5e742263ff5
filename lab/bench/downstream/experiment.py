"""One source from its events to the lifts."""

from __future__ import annotations

import asyncio
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.progress import Progress

from fm_intent.data.contract import CATALOGUE_FILE, EVENTS_FILE
from fm_intent.data.event_files import data_sha256
from fm_intent.exported import exported_vectors
from infra.local.stack import Stack, on_loopback
from lab.bench.downstream import published_intents
from lab.bench.downstream.baseline import Baseline
from lab.bench.downstream.comparison import Part, compare_engines, compare_rankers
from lab.bench.downstream.live_features import Live
from lab.bench.downstream.requests import Cuts, Requests, Task, sample
from lab.bench.downstream.source_history import DAY_MS, SourceHistory
from stream.domain.catalogue import read_catalogue
from stream.inference.client import InferenceClient
from stream.ports import free_ports
from stream.settings import Settings
from stream.steps import console, step

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.random import Generator

    from fm_intent.export import Manifest
    from stream.domain.feature_row import IntentRow

PER_PROFILE: Final = 10
"""Requests of one profile in each part at most, so that the busiest don't decide."""

_TASKS: Final[tuple[Task, ...]] = ("ranker", "search")


@dataclass(frozen=True, slots=True)
class Setup:
    """What is measured.

    Attributes:
        data_dir: the source's folder; its name is the source's.
        home: folder for the cut source, its model and the offline store.
        profiles: whose intents are published, at most.
        requests: of each part of each comparison, at most.
        minutes: that training the intent model may take.
        experiment: a name in `fm_intent.experiments.EXPERIMENTS`.
        seed: of all that is drawn.
    """

    data_dir: Path
    home: Path
    profiles: int
    requests: int
    minutes: float
    experiment: str
    seed: int


def measure(setup: Setup) -> dict[str, Any]:
    """The lifts of one source, and what they stand on."""
    rng = np.random.default_rng(setup.seed)
    with step("read the history"):
        history = SourceHistory.read(setup.data_dir)
        cuts = Cuts.of(history.plays)
    t1 = published_intents.utc(cuts.t1_ms)
    with step(f"a model of what came before {t1:%Y-%m-%d %H:%M}"):
        cut = published_intents.cut_source(setup.data_dir, setup.home, cuts.t1_ms)
        manifest, repository = published_intents.model_before(
            cut, setup.home, experiment=setup.experiment, minutes=setup.minutes, seed=setup.seed
        )
    with step("draw requests and candidates"):
        active = np.unique(history.plays.profile[history.plays.start_ms >= cuts.t1_ms])
        codes = np.sort(rng.permutation(active)[: setup.profiles])
        asked = {
            task: sample(
                history,
                cuts,
                task,
                among=codes,
                count=setup.requests,
                per_profile=PER_PROFILE,
                rng=rng,
            )
            for task in _TASKS
        }
    offline = published_intents.Offline(setup.home / "repository")
    with step(f"publish the intents of {len(codes):,} profiles from then on"):
        catalogue = pq.read_table(setup.data_dir / CATALOGUE_FILE)
        vectors = exported_vectors(published_intents.model_file(repository, manifest), catalogue)
        offline.land_titles(catalogue, vectors, str(manifest.version), t1)
        profiles = [history.profiles[code] for code in codes]
        rows = _publish(setup, profiles, cuts.t1_ms, manifest, repository, offline)
    baseline = Baseline(history, cuts.t1_ms)
    live = Live(history.titles, offline.titles(history.titles.ids, t1))
    parts = {}
    for task, (training, test) in asked.items():
        with step(f"join and compute features: {task}"):
            parts[task] = tuple(
                _part(one, offline, history, cuts.t1_ms, baseline, live, rng)
                for one in (training, test)
            )
    with step("train rankers and compare them"):
        ranker = compare_rankers(*parts["ranker"], seed=setup.seed)
    with step("train an engine, learn weights, compare the orders"):
        search = compare_engines(
            *parts["search"], fresh_s=Settings().session_gap_s, seed=setup.seed
        )
    test = asked["ranker"][1]
    return {
        "search": search,
        "ranker": ranker,
        "t1": t1.isoformat(timespec="seconds"),
        "t2": published_intents.utc(cuts.t2_ms).isoformat(timespec="seconds"),
        "requests": {task: [len(one) for one in two] for task, two in asked.items()},
        "profiles": len(codes),
        "rows": rows,
        "test_profiles_unknown_before_t1": _newcomers(history, cuts, test),
        "model": _described(manifest, cut),
        "data_sha256": data_sha256(setup.data_dir),
        "setup": {name: asdict(setup)[name] for name in ("profiles", "requests", "seed")},
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }


def _publish(
    setup: Setup,
    profiles: list[str],
    t1_ms: int,
    manifest: Manifest,
    repository: Path,
    offline: published_intents.Offline,
) -> int:
    """Land what would have been published of these profiles; the number of rows."""
    events = pq.read_table(setup.data_dir / EVENTS_FILE)
    events = events.filter(pc.is_in(events["profile_id"], pa.array(profiles)))
    http, grpc, metrics = free_ports(3)
    settings = on_loopback(
        Settings(
            triton_http_port=http,
            triton_grpc_port=grpc,
            triton_metrics_port=metrics,
            inference_deadline_s=30,  # nothing waits for these answers, and the machine may be busy
        )
    )

    async def land(progress: Progress) -> int:
        bar = progress.add_task("profiles", total=len(profiles))
        waiting: list[IntentRow] = []
        count = 0
        async with InferenceClient(settings) as inference:
            async for rows in published_intents.published_rows(
                events,
                read_catalogue(setup.data_dir / CATALOGUE_FILE),
                inference,
                settings,
                t1_ms,
                lambda done: progress.advance(bar, done),
            ):
                waiting += rows
                count += len(rows)
                if len(waiting) >= published_intents.ROWS_PER_FILE:
                    offline.land(waiting)
                    waiting = []
        offline.land(waiting)
        return count

    with (
        Stack(setup.home / "stack", settings, repository) as stack,
        Progress(console=console) as progress,
    ):
        stack.start("triton")
        stack.load_model(str(manifest.version))
        return asyncio.run(land(progress))


def _part(
    requests: Requests,
    offline: published_intents.Offline,
    history: SourceHistory,
    t1_ms: int,
    baseline: Baseline,
    live: Live,
    rng: Generator,
) -> Part:
    found = offline.intents(history.profiles, requests, requests.at_ms)
    # Rows there are from T1 on.
    midnight = np.maximum(requests.at_ms // DAY_MS * DAY_MS, t1_ms)
    nightly = offline.intents(history.profiles, requests, midnight)
    others = found.iloc[others_of(requests, rng)].reset_index(drop=True)
    return Part(
        requests,
        baseline(requests),
        live(requests, found),
        live(requests, nightly),
        live(requests, others),
    )


def others_of(requests: Requests, rng: Generator) -> np.ndarray[Any, np.dtype[np.intp]]:
    """For each request another one, `[R]`, of another profile."""
    # Grouped by profile in a random order of profiles, and shifted by half of all.
    shuffled = rng.permutation(int(requests.profile.max()) + 1)
    grouped = np.argsort(shuffled[requests.profile], kind="stable")
    others = np.empty(len(requests), np.intp)
    others[grouped] = np.roll(grouped, len(requests) // 2)
    return others


def _newcomers(history: SourceHistory, cuts: Cuts, test: Requests) -> int:
    plays = history.plays
    known = np.unique(plays.profile[plays.start_ms < cuts.t1_ms])
    return int((~np.isin(np.unique(test.profile), known)).sum())


def _described(manifest: Manifest, cut: Path) -> dict[str, Any]:
    events = pq.read_metadata(cut / EVENTS_FILE).num_rows
    return {
        "version": manifest.version,
        "experiment": manifest.experiment,
        "seed": manifest.seed,
        "seconds": manifest.seconds,
        "epochs": manifest.epochs,
        "trained_at": manifest.trained_at,
        "trained_intents": manifest.trained_intents,
        "events_before_t1": events,
        "validation_ndcg10": manifest.metrics["validation_ndcg10"],
        "ndcg10": manifest.metrics["ndcg10"],
        "data_sha256": manifest.data_sha256,
    }
