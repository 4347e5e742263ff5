from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fm_intent import benchmark as module
from fm_intent import ranking_metrics
from fm_intent.benchmark import benchmark, compare, record
from fm_intent.evaluate import Judged
from fm_intent.experiments import EXPERIMENTS, Experiment, Training
from fm_intent.served.network import Architecture
from stream.exceptions import DataUnusableError, UnknownExperimentError

if TYPE_CHECKING:
    from pathlib import Path

    from fm_intent.benchmark import Row
    from fm_intent.data.dataset import Split

QUICK = Experiment(
    Architecture(width=16, hidden=16, item_layers=1),
    Training(epochs=2, batch=512, learning_rate=1e-2, warmup_steps=5),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERIMENTS, "quick", QUICK)


def run(data_dir: Path, model: str, split: Split = "leave-one-out") -> Row:
    home = data_dir.parent.parent
    return benchmark(
        data_dir,
        home / "models.json",
        model=model,
        split=split,
        seed=0,
        device="cpu",
        run_dir=home / f"{model}-{split}",
    )


def rows(home: Path) -> list[Row]:
    found: list[Row] = json.loads((home / "models.json").read_text())
    return found


def judged(rank: list[int], **intents: list[float]) -> Judged:
    found = np.array(rank)
    report: dict[str, Any] = {
        "profiles": len(rank),
        **ranking_metrics.next_title_metrics(found),
        "ci95": {
            "hr10": ranking_metrics.ci95(ranking_metrics.hits(found, 10)),
            "ndcg10": ranking_metrics.ci95(ranking_metrics.gains(found, 10)),
        },
        "by_action": {},
        "intents": {},
    }
    names = np.array([f"profile-{number}" for number in range(len(rank))])
    return Judged(
        names,
        found,
        {name: np.array(values) for name, values in intents.items()},
        np.full(len(rank), "discover"),
        np.zeros(len(rank), np.bool_),
        report,
    )


def row(model: str, **other: Any) -> Row:
    return {
        "model": model,
        "dataset": "made-up",
        "split": "leave-one-out",
        "seed": 0,
        "target_time": False,
        "baseline": True,
        "epochs": 1,
        "seconds": 60.0,
        "params": 1000,
        "data_sha256": "0" * 64,
        "command": f"intentstream benchmark {model}",
        **other,
    }


def test_a_row_takes_the_place_of_the_one_before(source: Path, tmp_path: Path) -> None:
    for model in ("popularity", "quick", "quick"):
        run(source, model)
    assert {one["model"] for one in rows(tmp_path)} == {"popularity", "quick"}
    assert len(rows(tmp_path)) == 2


def test_a_row_says_what_it_is_and_what_made_it(source: Path, tmp_path: Path) -> None:
    run(source, "popularity")
    made = run(source, "quick")
    wanted = ["model", "dataset", "split", "seed", "target_time", "epochs", "seconds", "params"]
    wanted += ["data_sha256", "hr10", "ndcg10", "mrr", "recall100", "intents", "ci95"]
    wanted += ["vs_best_baseline", "command"]
    assert set(wanted) <= set(made)
    assert made in rows(tmp_path)
    assert {"genre", "release_age"} <= set(made["intents"])
    assert made["vs_best_baseline"]["model"] == "popularity"


def test_both_splits_stand_apart(source: Path, tmp_path: Path) -> None:
    # Each profile plays at its own time; by global time all must play throughout.
    interleave(source)
    for split in ("leave-one-out", "global-time"):
        run(source, "popularity", split)
        run(source, "quick", split)
    assert [one["split"] for one in rows(tmp_path)] == ["leave-one-out"] * 2 + ["global-time"] * 2
    text = (tmp_path / "models.md").read_text()
    assert "## The last play of each profile held out" in text
    assert "## Plays after one moment held out" in text


def interleave(data_dir: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    events = pq.read_table(data_dir / "events.parquet")
    order = np.arange(len(events)).reshape(-1, 15).T.flatten()
    times = events["occurred_at_ms"]
    events = events.take(pa.array(order))
    place = events.schema.get_field_index("occurred_at_ms")
    pq.write_table(events.set_column(place, "occurred_at_ms", times), data_dir / "events.parquet")


def test_the_best_baseline_is_what_all_others_are_held_against(tmp_path: Path) -> None:
    results = tmp_path / "models.json"
    rng = np.random.default_rng(0)
    rank = rng.integers(30, size=200)
    record(results, row("weak"), judged((rank + 3).tolist()))
    record(results, row("ours", baseline=False), judged(np.maximum(rank - 2, 0).tolist()))
    record(results, row("strong"), judged(rank.tolist()))
    versus = {one["model"]: one["vs_best_baseline"] for one in rows(tmp_path)}
    assert versus["strong"] is None
    assert versus["ours"]["model"] == versus["weak"]["model"] == "strong"
    assert versus["ours"]["delta_pct"] > 0 > versus["weak"]["delta_pct"]
    assert versus["ours"]["p"] < 1e-6


def test_models_of_more_seeds_are_compared_by_their_means_too(tmp_path: Path) -> None:
    results = tmp_path / "models.json"
    rng = np.random.default_rng(0)
    for seed in (0, 1):
        rank = rng.integers(30, size=200)
        ours = judged(np.maximum(rank - 2, 0)[::-1].tolist())
        ours = ours._replace(profile_id=ours.profile_id[::-1])
        record(results, row("ours", baseline=False, seed=seed), ours)
        record(results, row("theirs", seed=seed), judged(rank.tolist()))
    record(results, row("once"), judged([0] * 200))
    found = {(one["model"], one["seed"]): one for one in rows(tmp_path)}
    mean = (found["ours", 0]["ndcg10"] + found["ours", 1]["ndcg10"]) / 2
    over_seeds = found["ours", 1]["over_seeds"]
    assert over_seeds["seeds"] == [0, 1]
    assert over_seeds["ndcg10"] == pytest.approx(mean)
    assert over_seeds["vs_best_baseline"]["model"] == "theirs"
    assert over_seeds["vs_best_baseline"]["p"] < 1e-6
    assert found["theirs", 0]["over_seeds"]["vs_best_baseline"] is None
    assert found["once", 0]["over_seeds"] is None
    text = (tmp_path / "models.md").read_text()
    assert f"| **ours** | 0, 1 | {mean:.4f} (" in text


def test_profiles_are_paired_by_name_not_by_place(tmp_path: Path) -> None:
    results = tmp_path / "models.json"
    rank = np.arange(50) % 20
    backwards = judged(rank[::-1].tolist())
    backwards = backwards._replace(profile_id=backwards.profile_id[::-1])
    record(results, row("one"), judged(rank.tolist()))
    record(results, row("same", baseline=False), backwards)
    assert (
        rows(tmp_path)[-1]["vs_best_baseline"] is None
        or {one["model"]: one["vs_best_baseline"] for one in rows(tmp_path)}["same"]["p"] == 1.0
    )


def test_a_model_told_the_time_is_not_held_against_one_that_is_not(tmp_path: Path) -> None:
    results = tmp_path / "models.json"
    record(results, row("baseline"), judged([0, 1, 2]))
    record(results, row("told", baseline=False, target_time=True), judged([0, 0, 0]))
    assert all(one["vs_best_baseline"] is None for one in rows(tmp_path))


def test_a_comparison_with_what_is_gone_stays_as_it_was(tmp_path: Path) -> None:
    results = tmp_path / "models.json"
    for seed in (0, 1):
        record(results, row("baseline", seed=seed), judged([0, 4, 2], kind=[1, 0, 1]))
        record(results, row("ours", seed=seed, baseline=False), judged([0, 1, 2], kind=[1, 1, 1]))
    before = [one for one in rows(tmp_path) if one["model"] == "ours"]
    assert all(one["vs_best_baseline"] and one["over_seeds"] for one in before)
    for kept in (tmp_path / "models").glob("*baseline*.npz"):
        kept.unlink()
    record(results, row("weak"), judged([9, 9, 9], kind=[0, 0, 0]))
    assert [one for one in rows(tmp_path) if one["model"] == "ours"] == before


def test_with_what_is_gone_there_is_no_new_comparison(tmp_path: Path) -> None:
    results = tmp_path / "models.json"
    record(results, row("baseline"), judged([0, 4, 2]))
    (tmp_path / "models" / "leave-one-out-baseline-0.npz").unlink()
    record(results, row("ours", baseline=False), judged([0, 1, 2]))
    assert {one["model"] for one in rows(tmp_path)} == {"baseline", "ours"}
    assert all(one["vs_best_baseline"] is None for one in rows(tmp_path))


def test_what_each_row_got_right_is_kept(tmp_path: Path) -> None:
    results = tmp_path / "models.json"
    record(results, row("ours"), judged([0, 4, 2], kind=[1.0, np.nan]))
    with np.load(tmp_path / "models" / "leave-one-out-ours-0.npz") as kept:
        assert kept["rank"].tolist() == [0, 4, 2]
        assert kept["profile_id"].tolist() == ["profile-0", "profile-1", "profile-2"]
        np.testing.assert_array_equal(kept["intent_kind"], [1.0, np.nan])


def test_the_tables_show_every_row_and_the_picture_is_drawn(source: Path, tmp_path: Path) -> None:
    run(source, "popularity")
    made = run(source, "quick")
    text = (tmp_path / "models.md").read_text()
    assert f"| **quick** | 0 | {made['hr10']:.4f} (" in text
    assert f"{made['intents']['genre']['map']:.4f} (" in text
    assert "*by titles*" in text
    assert made["command"] in text
    assert (tmp_path / "models.png").read_bytes().startswith(b"\x89PNG")


def test_an_unknown_model_is_an_error_that_names_the_known(source: Path) -> None:
    with pytest.raises(UnknownExperimentError, match="popularity"):
        run(source, "quack")


def test_a_model_of_the_source_comes_before_one_of_all(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = replace(QUICK, training=replace(QUICK.training, epochs=1))
    monkeypatch.setitem(EXPERIMENTS, "made-up-quick", own)
    assert run(source, "made-up-quick")["epochs"] == 1


def test_a_source_of_another_size_than_the_published_split_is_refused(source: Path) -> None:
    renamed = source.rename(source.with_name("ml-1m"))
    with pytest.raises(DataUnusableError, match="the published split has"):
        module.source(renamed)


def test_a_source_with_more_than_plays_is_read_as_it_is_served(source: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert len(module.source(source).row) == 180
    events = pq.read_table(source / "events.parquet")
    types = ["title_open", *events["event_type"].to_pylist()[1:]]
    place = events.schema.get_field_index("event_type")
    opened = events.set_column(place, "event_type", pa.array(types))
    place = opened.schema.get_field_index("playback_id")
    ids = [None, *opened["playback_id"].to_pylist()[1:]]
    pq.write_table(
        opened.set_column(place, "playback_id", pa.array(ids)), source / "events.parquet"
    )
    assert (module.source(source).columns.action == 4).sum() == 1


def bounded(home: Path, lower: float, upper: float) -> dict[str, dict[str, float]]:
    """What each row says of its headroom, where bounds hit these shares of 400 profiles."""

    def hitting(share: float) -> Judged:
        rank = np.where(np.arange(400) < 400 * share, 0, 50)
        return judged(rank.tolist())

    results = home / "models.json"
    record(results, row("lower", bound="lower", target_time=True), hitting(lower))
    record(results, row("ours", baseline=False), hitting(0.6))
    record(results, row("upper", bound="upper", target_time=True), hitting(upper))
    return {one["model"]: one["headroom"] for one in rows(home)}


def test_a_model_between_two_bounds_says_how_far_it_has_gone(tmp_path: Path) -> None:
    found = bounded(tmp_path, 0.5, 0.9)
    assert found["ours"]["ndcg10"] == pytest.approx(0.25)
    assert found["lower"]["ndcg10"] == 0.0
    assert found["upper"]["ndcg10"] == 1.0
    assert ", 25%" in (tmp_path / "models.md").read_text()


def test_bounds_that_can_not_be_told_apart_leave_no_headroom(tmp_path: Path) -> None:
    found = bounded(tmp_path, 0.6, 0.61)
    assert found == {"lower": {}, "ours": {}, "upper": {}}


def told(right: int) -> Judged:
    """Of 100 profiles, of which the first have their next kind told right, and one is unknown."""
    kind = np.where(np.arange(101) < right, 1.0, 0.0)
    kind[100] = np.nan
    accuracy = right / 100
    found = judged([0, 1, 2])._replace(intents={"kind": kind})
    found.report["intents"]["kind"] = {
        "accuracy": accuracy,
        "ci95": {"accuracy": [accuracy - 0.01, accuracy + 0.01]},
        "commonest_accuracy": 0.1,
        "newest_accuracy": 0.1,
        "through_titles": False,
    }
    return found


def test_of_an_intent_the_headroom_is_that_of_its_own_figure(tmp_path: Path) -> None:
    results = tmp_path / "models.json"
    record(results, row("lower", bound="lower"), told(20))
    record(results, row("upper", bound="upper"), told(60))
    record(results, row("ours"), told(50))
    shares = {one["model"]: one["headroom"] for one in rows(tmp_path)}
    assert shares["ours"] == pytest.approx({"kind": 0.75})


def test_an_intent_is_held_against_the_baseline_that_tells_it_best(tmp_path: Path) -> None:
    results = tmp_path / "models.json"
    record(results, row("titles-only"), judged([0, 0, 0]))
    record(results, row("weak"), told(30))
    record(results, row("strong"), told(40))
    record(results, row("ours", baseline=False), told(60))
    versus = {
        one["model"]: one["intents"]["kind"]["vs_best_baseline"]
        for one in rows(tmp_path)
        if "kind" in one["intents"]
    }
    assert versus["strong"] is None
    assert versus["ours"]["model"] == versus["weak"]["model"] == "strong"
    assert versus["ours"]["delta_pct"] == pytest.approx(50)
    assert versus["ours"]["p"] < 0.001 < versus["weak"]["p"]
    assert "; +50.0 %, p < 0.001 (strong)" in (tmp_path / "models.md").read_text()


def test_two_models_are_compared_by_the_seeds_and_figures_that_both_have(tmp_path: Path) -> None:
    results = tmp_path / "models.json"
    for seed, right in ((0, 60), (1, 80), (2, 90)):
        record(results, row("ours", seed=seed, baseline=False), told(right))
    for seed, right in ((0, 50), (1, 50)):
        record(results, row("theirs", seed=seed), told(right))
    ndcg10, kind = compare(results, "ours", "theirs", "leave-one-out")
    assert (ndcg10.figure, ndcg10.seeds, ndcg10.paired) == ("ndcg10", [0, 1], (0.0, 1.0))
    assert (kind.figure, kind.seeds) == ("kind", [0, 1])
    assert (kind.ours, kind.theirs) == pytest.approx((0.7, 0.5))
    assert kind.paired.delta_pct == pytest.approx(40)
    assert kind.paired.p < 0.001


@pytest.mark.parametrize("reason", ["no such model", "no seed in common", "not kept"])
def test_what_can_not_be_compared_is_an_error_that_says_so(tmp_path: Path, reason: str) -> None:
    results = tmp_path / "models.json"
    record(results, row("ours"), judged([0, 1]))
    if reason != "no such model":
        seed = 1 if reason == "no seed in common" else 0
        record(results, row("theirs", seed=seed), judged([0, 2]))
    if reason == "not kept":
        (tmp_path / "models" / "leave-one-out-theirs-0.npz").unlink()
    with pytest.raises(UnknownExperimentError, match="ours and theirs by the same seed"):
        compare(results, "ours", "theirs", "leave-one-out")


def test_rows_of_runs_that_end_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    names = [f"model-{number}" for number in range(6)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: record(tmp_path / "models.json", row(name), judged([0])), names))
    assert sorted(one["model"] for one in rows(tmp_path)) == names
