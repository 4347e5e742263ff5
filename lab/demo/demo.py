"""Runs the whole system on one source's histories and checks the outcome.

Data, model, servers, worker, replay, check, tables: each step says what it does and how long it
took. Servers that `make up` has started are used and left running; otherwise the demo starts its
own in a home of its own, empty at the start, and stops them whatever happens.
"""

from __future__ import annotations

import asyncio
import math
import shutil
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fm_intent.data.contract import CATALOGUE_FILE, EVENTS_FILE
from fm_intent.data.sources import prepare
from infra.local import commands
from infra.local.local_model import model_of
from infra.local.stack import Stack, on_loopback
from intentstream.paths import LOCAL, MODEL_REPOSITORY
from intentstream.signals import unwind_on_sigterm
from lab.demo.ages import FARTHEST, Ages, compare_ages
from lab.demo.report import Report, sample_profiles_of, show_mix, show_profiles
from lab.exceptions import CheckFailedError, DemoError, StalledError
from lab.replay.checker import SHOWN_MISMATCHES, check
from lab.replay.plan import Plan, plan_replay, sample_profiles, span_s
from lab.replay.prober import Prober
from lab.replay.producer import Replayed, replay
from stream.domain.topics import EVENT_TOPICS
from stream.kafka.admin import create_topics
from stream.kafka.lag import LagReader
from stream.patience import Patience
from stream.settings import Settings, settings
from stream.steps import console, step

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


PROFILES: Final = {"ml-1m": 240, "movietweetings": 6_000, "simulator": 67}
"""Profiles of one replay: about 75,000 events of each source."""

REPLAY_S: Final = 75.0
SAMPLE_PROFILES: Final = 3
RESULT: Final = LOCAL / "demo.json"

_LATENESS_MARGIN_S: Final = 3600
_INFERENCE_DEADLINE_S: Final = 15.0
_STALLED_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.5
_RATE_OVER_S: Final = 5.0
_PRINT_EVERY_S: Final = 10.0


def run_demo(
    source: str = "ml-1m",
    *,
    profiles: int | None = None,
    seed: int = 1,
    replay_s: float = REPLAY_S,
) -> None:
    """Run the demo and write `.local/demo.json`.

    Args:
        source: a name in `fm_intent.data.sources.sources()`.
        profiles: how many profiles' whole histories are replayed, drawn by the seed; by default
            the source's number in `PROFILES`.
        seed: of the sample, the damage mixed in and the training.
        replay_s: how long sending takes, in seconds; 0 sends as fast as Kafka takes it.

    Raises:
        CheckFailedError: when a record is missing or wrong; names the first ten.
        StalledError: when the worker stops taking in events.
        DemoError: when another demo runs.
        IntentstreamError: when a source or a server can't be had.
    """
    began = time.perf_counter()
    data_dir = prepare(source, LOCAL)
    manifest = model_of(source, seed)
    with step("plan the replay"):
        events = sample_profiles(
            pq.read_table(data_dir / EVENTS_FILE),
            seed=seed,
            profiles=profiles or PROFILES.get(source),
        )
        # Ages of titles are counted from release days, so plays stay when they happened, and the
        # worker takes them in however long ago that is.
        first_ms = pc.min(events["occurred_at_ms"]).as_py()
        lateness_s = math.ceil(time.time() - first_ms / 1000) + _LATENESS_MARGIN_S
    overrides = {
        "allowed_lateness_s": lateness_s,
        "catalogue": data_dir / CATALOGUE_FILE,
        "model_version": str(manifest.version),
        # On a busy machine a full batch may take seconds, and giving up only repeats the work.
        "inference_deadline_s": _INFERENCE_DEADLINE_S,
    }
    with unwind_on_sigterm(), ExitStack() as to_stop:
        system = _system(overrides, to_stop)
        system.start_servers(str(manifest.version), data_dir)
        with step("start the worker, the sink, the console and the prober"):
            prober = to_stop.enter_context(
                Prober(
                    system.settings,
                    output=system.home / "freshness.jsonl",
                    log=system.home / "logs" / "prober.log",
                )
            )
            system.stack.start("worker", "sink", "console")
            prober.wait()
        console.print(f"see it live at {commands.console_url(system.settings)} while this runs")
        plan = plan_replay(
            events,
            seed=seed,
            now_ms=round(time.time() * 1000),
            lateness_s=lateness_s,
            prefix=system.prefix,
            shift=False,
        )
        console.print(
            f"replay: {len(plan):,} records, {span_s(events) / 86_400:,.0f} days of event time"
        )
        show_mix(plan, console)
        setup_s = time.perf_counter() - began
        replayed, seconds = asyncio.run(_replay(plan, system.settings, prober, replay_s))
        freshness = prober.samples()
        with step("check every record"):
            replayed.write(system.home / "sent.parquet")
            outcome = check(replayed.sent, system.settings)
        with step("compare release ages"):
            ages = _compared_ages(events, plan, data_dir, system.settings)
        report = Report(source, outcome, freshness, manifest, ages, setup_s, seconds)
        report.show(console)
        _show_profiles(plan, data_dir, system.settings)
        report.write(RESULT)
    if not outcome.ok:
        raise CheckFailedError(
            f"{outcome.missing} missing, {outcome.wrong} wrong; the first of them:\n"
            + "\n".join(outcome.mismatches[:SHOWN_MISMATCHES])
            + f"\nWhat was sent is in {system.home / 'sent.parquet'}, the worker's log in "
            f"{system.home / 'logs' / 'worker.log'}."
        )
    if not ages.ok:
        raise CheckFailedError(
            f"the release ages that are served are not those of held-out plays: {ages.apart:.2f} "
            f"apart, where {FARTHEST} is the most. Look at the two in {RESULT}: either event "
            "times or release days are not those that the model was trained on."
        )
    console.print(f"nothing missing, nothing wrong; written to {RESULT}", style="green")


@dataclass(frozen=True, slots=True)
class _System:
    """The servers and the worker that a demo uses.

    Attributes:
        settings: theirs, with what the demo overrides.
        stack: runs them.
        prefix: put before profile ids, where the system may know the same profiles already.
    """

    settings: Settings
    stack: Stack
    prefix: str

    @property
    def home(self) -> Path:
        """The folder with its data and logs."""
        return self.stack.home

    def start_servers(self, version: str, data_dir: Path) -> None:
        """Start what does not run yet, all but the worker and the sink."""
        from features.registry.store import apply
        from intentstream.served_titles import serve_titles, titles_in

        with step("start Kafka, Redis and Triton"):
            self.stack.start("kafka", "redis", "triton")
        with step("create the topics, register the features"):
            asyncio.run(create_topics(self.settings))
            apply(self.settings)
        with step(f"load model version {version}"):
            self.stack.load_model(version)
        with step("publish the titles and their vectors"):
            titles = titles_in(int(version), MODEL_REPOSITORY, data_dir)
            serve_titles(self.settings, titles)


def _system(overrides: dict[str, object], to_stop: ExitStack) -> _System:
    """The running stack of this checkout, else one of our own with an empty home."""
    base = on_loopback(settings())
    if commands.local_stack().running():
        console.print("using the stack that runs; its worker gets the demo's settings meanwhile")
        config = base.model_copy(update=overrides)
        to_stop.callback(commands.up)
        return _System(config, Stack(LOCAL, config), prefix=f"demo-{int(time.time())}-")
    home = LOCAL / "demo"
    config = base.model_copy(update=overrides | {"data_dir": home / "worker", "offline_dir": home})
    stack = Stack(home, config)
    if stack.running():
        raise DemoError(f"another demo runs in {home}; wait until it ends, or stop it")
    shutil.rmtree(home, ignore_errors=True)
    return _System(config, to_stop.enter_context(stack), prefix="")


async def _replay(
    plan: Plan, config: Settings, prober: Prober, replay_s: float
) -> tuple[Replayed, float]:
    """Send the plan and wait until the worker has acknowledged all of it.

    Returns:
        What was sent, and the seconds from the first record to the last acknowledgement.
    """
    began = time.perf_counter()
    sent = 0

    def progress(records: int) -> None:
        nonlocal sent
        sent = records

    async with LagReader(config) as lag_reader:
        sending = asyncio.create_task(
            replay(
                plan,
                config,
                events_per_s=len(plan) / replay_s if replay_s else None,
                progress=progress,
            )
        )
        try:
            with _Pace(len(plan), prober) as pace:
                lag, all_sent = 0, False
                while lag or not all_sent:
                    await asyncio.sleep(_LOOK_EVERY_S)
                    # Before the lag is read, or the last records may be missing from it.
                    all_sent = sending.done()
                    lags = await lag_reader.read(
                        config.consumer_group, [config.topic(name) for name in EVENT_TOPICS]
                    )
                    lag = sum(each.lag for each in lags)
                    pace.show(sent, lag)
            return await sending, time.perf_counter() - began
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


class _Pace:
    """Shows how a replay goes: a live line on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int, prober: Prober) -> None:
        self._total = total
        self._prober = prober
        self._bar = Progress(
            TextColumn("replay"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[shown]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("replay", total=total, shown="")
        self._past = deque([(time.perf_counter(), 0)], maxlen=round(_RATE_OVER_S / _LOOK_EVERY_S))
        self._printed_at = time.perf_counter()
        self._patience = Patience(_STALLED_S)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, sent: int, lag: int) -> None:
        """Show the state of now.

        Raises:
            StalledError: when nothing has been acknowledged for long.
        """
        now, done = time.perf_counter(), max(sent - lag, 0)
        if done > self._past[-1][1]:
            self._patience = Patience(_STALLED_S)
        elif self._patience.over:
            raise StalledError(
                f"the worker has acknowledged nothing for {self._patience.waited_s:.0f} s with "
                f"{lag:,} records to go; see worker.log in the logs folder of the stack"
            )
        rate = max(done - self._past[0][1], 0) / (now - self._past[0][0])
        self._past.append((now, done))
        freshness = self._prober.samples().percentile(50)
        shown = f"{done:,}/{self._total:,} · {rate:,.0f}/s · lag {lag:,} · freshness p50 " + (
            "–" if freshness is None else f"{freshness:,.0f} ms"
        )
        self._bar.update(self._task, completed=done, shown=shown)
        if not console.is_terminal and now - self._printed_at > _PRINT_EVERY_S:
            self._printed_at = now
            console.print(f"replay {shown}")


def _compared_ages(events: pa.Table, plan: Plan, data_dir: Path, config: Settings) -> Ages:
    """Of what is served of the plan's profiles, and of the source's own events."""
    from features.reading.intents import MAX_PROFILES
    from features.reading.reader import IntentReader

    reader, profiles = IntentReader(config), pc.unique(plan.events["profile_id"]).to_pylist()
    intents = [
        intent
        for start in range(0, len(profiles), MAX_PROFILES)
        for intent in reader.read(profiles[start : start + MAX_PROFILES])
    ]
    catalogue = pq.read_table(data_dir / CATALOGUE_FILE, columns=["title_id", "release_day"])
    return compare_ages(events, catalogue, intents)


def _show_profiles(plan: Plan, data_dir: Path, config: Settings) -> None:
    from features.reading.reader import IntentReader

    chosen = sample_profiles_of(plan, SAMPLE_PROFILES)
    console.print("\nLive intents, read back with FeatureStore.get_online_features:")
    show_profiles(plan, data_dir, IntentReader(config).read(chosen), console)
