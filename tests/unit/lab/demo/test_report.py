import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from features.reading.intents import Freshness, LiveIntent
from fm_intent.data import contract
from fm_intent.export import Manifest
from lab.demo.ages import Ages
from lab.demo.report import Report, sample_profiles_of, show_profiles
from lab.replay.checker import CheckResult
from lab.replay.plan import Mix, plan_replay
from lab.replay.prober import Samples
from stream.domain.feature_row import PUBLISHED, IntentRow
from stream.domain.heads import HEADS
from stream.domain.labels import GENRES

SCORES = {"hr10": 0.3, "ndcg10": 0.2, "popularity_hr10": 0.1, "popularity_ndcg10": 0.05, "mrr": 0.1}


@pytest.fixture
def report() -> Report:
    manifest = Manifest(
        version=4,
        source="ml-1m",
        trained_at="",
        experiment="demo",
        seed=0,
        epochs=1,
        seconds=1.0,
        params=1,
        window=64,
        titles=3,
        trained_intents=[],
        data_sha256="",
        metrics=SCORES,
        report={},
        config={},
    )
    check = CheckResult(events_sent=100, applied=80, duplicates=5, late=2, dead_lettered=3)
    samples = Samples(np.array([10.0, 20.0, 30.0]), superseded=1, unseen=0)
    ages = Ages(np.full(7, 1 / 7), np.eye(7)[6], profiles=9)
    return Report("ml-1m", check, samples, manifest, ages, setup_s=3.0, replay_s=4.0)


@pytest.fixture
def plan():
    watched = ["t1", "t1", "t2", "t3", "t1"]
    events = contract.table(
        contract.EVENTS_SCHEMA,
        {
            "event_id": pa.array([f"e{i}" for i in range(5)]),
            "profile_id": pa.array(["a", "a", "a", "b", "a"]),
            "event_type": pa.array(["play_start", "play_stop", *["play_complete"] * 3]),
            "occurred_at_ms": pa.array(range(5)),
            "title_id": pa.array(watched),
            "playback_id": pa.array(["s1", "s1", "s2", "s3", "s4"]),
        },
    )
    clean = Mix(repeats=0, disorder=0, too_late=0, malformed=0)
    return plan_replay(events, seed=1, now_ms=10**12, lateness_s=60, mix=clean)


def _row(**changes) -> IntentRow:
    probabilities = [0.0] * len(GENRES)
    probabilities[GENRES.index("horror")] = 0.7
    fields = dict.fromkeys(PUBLISHED, "") | {
        **{head.probs: [] for head in HEADS},
        "genre_probs": probabilities,
        "intent_attention": [float(head.name == "genre") for head in HEADS],
        "next_title_ids": ["t3", "xxh3:7"],
        "next_title_scores": [0.25, 0.125],
        "session_length": 2,
    }
    return IntentRow.of(fields | changes)


def _shown(plan, tmp_path, row: IntentRow | None) -> str:
    catalogue = contract.table(
        contract.CATALOGUE_SCHEMA,
        {
            "title_id": pa.array(["t1", "t2", "t3"]),
            "name": pa.array(["Alien", "Brazil", "Cube"]),
            "genres": pa.array([[], [], []], pa.list_(pa.string())),
        },
    )
    pq.write_table(catalogue, tmp_path / contract.CATALOGUE_FILE)
    console = Console(file=io.StringIO(), width=100)
    intent = LiveIntent("a", Freshness.FRESH, 1, row)
    show_profiles(plan, tmp_path, [intent], console)
    return console.file.getvalue()


def test_demo_json_has_exactly_the_keys_that_are_promised(report, tmp_path) -> None:
    report.write(tmp_path / "demo.json")
    written = json.loads((tmp_path / "demo.json").read_text())
    assert list(written) == [
        *("source", "events_sent", "events_applied", "duplicates", "late", "dead_lettered"),
        *("missing", "wrong", "profiles", "freshness_ms", "events_per_s", "model"),
        *("release_ages", "setup_s", "replay_s"),
    ]
    assert set(written["freshness_ms"]) == {"p50", "p95", "p99"}
    assert set(written["model"]) == {"version", *SCORES} - {"mrr"}


def test_events_per_second_are_those_taken_in_within_the_whole_replay(report) -> None:
    assert report.to_json()["events_per_s"] == 25.0


def test_the_table_shows_every_count(report) -> None:
    console = Console(file=io.StringIO(), width=120)
    report.show(console)
    shown = console.file.getvalue()
    assert all(
        text in shown
        for text in ("100", "80", "20 ms", "0.3000", "0.0500", "held out", "0.14", "1.00")
    )


def test_sample_profiles_are_those_that_played_last(plan) -> None:
    assert sample_profiles_of(plan, 1) == ["a"]
    assert sample_profiles_of(plan, 5) == ["a", "b"]


def test_a_profile_shows_what_it_watched_last_by_name_one_line_a_sitting(plan, tmp_path) -> None:
    shown = _shown(plan, tmp_path, _row())
    assert shown.index("Alien") < shown.index("Brazil")
    assert shown.count("Alien") == 2


def test_a_profile_shows_the_heads_that_were_trained_and_the_next_titles_by_name(
    plan, tmp_path
) -> None:
    shown = _shown(plan, tmp_path, _row())
    assert "horror 0.70" in shown
    assert "kind next" not in shown
    assert "Cube  0.250" in shown
    assert "xxh3:7  0.125" in shown


def test_a_profile_without_features_says_so(plan, tmp_path) -> None:
    assert "none" in _shown(plan, tmp_path, None)
