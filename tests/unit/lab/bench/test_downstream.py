"""The downstream benchmark: nothing of the future gets in, and lifts are judged fairly."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.definitions import title_profile
from lab.bench.downstream import baseline, live_features, report
from lab.bench.downstream.baseline import Baseline
from lab.bench.downstream.comparison import Part, compare_engines, compare_rankers
from lab.bench.downstream.experiment import others_of
from lab.bench.downstream.live_features import Live
from lab.bench.downstream.published_intents import PUBLISH_MS, moments
from lab.bench.downstream.requests import CANDIDATES, FEWEST, Cuts, Requests, sample
from lab.bench.downstream.significance import lift, ndcg
from lab.bench.downstream.source_history import (
    DAY_MS,
    NO_TITLE,
    UNKNOWN_DAY,
    Looks,
    Plays,
    SourceHistory,
    TitleColumns,
)
from stream.domain.labels import GENRES
from stream.domain.rules import Rules
from stream.domain.topics import PLAYBACK_EVENTS
from tests.unit.features.samples import SAMPLE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_OF_A_PLAY = ("profile", "title", "start_ms")
TITLES = 60
PROFILES = 12
DAYS = 20


def history(
    *,
    seed: int = 0,
    plays: int = 1200,
    repeats: bool = True,
    until_ms: int = DAYS * DAY_MS,
) -> SourceHistory:
    """Random plays and looks; of the same seed those before `until_ms`."""
    rng = np.random.default_rng(seed)
    genres = np.zeros((TITLES, len(GENRES)), np.float32)
    primary = rng.integers(0, 2, TITLES)
    genres[np.arange(TITLES), primary] = 1
    start = np.sort(rng.integers(0, DAYS * DAY_MS, plays))
    end = start + rng.integers(1000, 3_600_000, plays)
    profile, title = rng.integers(0, PROFILES, plays), rng.integers(0, TITLES, plays)
    progress = rng.random(plays).astype(np.float32)
    if not repeats:
        first = np.sort(np.unique(profile * TITLES + title, return_index=True)[1])
        start, end, profile, title, progress = (
            one[first] for one in (start, end, profile, title, progress)
        )
    looked = np.sort(rng.integers(0, DAYS * DAY_MS, plays))
    by, at = rng.integers(0, PROFILES, plays), rng.integers(NO_TITLE, TITLES, plays)
    kept, seen = start < until_ms, looked < until_ms
    return SourceHistory(
        profiles=[f"p{number}" for number in range(PROFILES)],
        titles=TitleColumns(
            ids=[f"t{number}" for number in range(TITLES)],
            genres=genres,
            primary=primary,
            kind=rng.integers(0, 2, TITLES),
            release_day=rng.integers(-3000, 0, TITLES),
        ),
        plays=Plays(profile[kept], title[kept], start[kept], end[kept], progress[kept]),
        looks=Looks(by[seen], at[seen], looked[seen], at[seen] == NO_TITLE),
        repeats=repeats,
    )


CUTS = Cuts(10 * DAY_MS, 15 * DAY_MS, DAYS * DAY_MS)


def requests(task: Any, **options: Any) -> tuple[SourceHistory, Requests, Requests]:
    known = history(**options)
    drawn = sample(
        known,
        CUTS,
        task,
        among=np.arange(PROFILES - 1),
        count=200,
        per_profile=8,
        rng=np.random.default_rng(1),
    )
    return known, *drawn


def test_parts_lie_on_either_side_of_the_second_cut() -> None:
    _, training, test = requests("ranker")
    assert CUTS.t1_ms <= training.at_ms.min() + 1 <= training.at_ms.max() + 1 < CUTS.t2_ms
    assert test.at_ms.min() + 1 >= CUTS.t2_ms


def test_cuts_are_quantiles_of_the_plays() -> None:
    plays = history().plays
    cuts = Cuts.of(plays)
    shares = [(plays.start_ms < at).mean() for at in (cuts.t1_ms, cuts.t2_ms)]
    assert shares == pytest.approx([0.7, 0.85], abs=0.01)


def test_no_profile_is_asked_about_too_often() -> None:
    _, training, _ = requests("ranker")
    assert np.bincount(training.profile).max() == 8


def test_only_the_profiles_that_are_named_are_asked_about() -> None:
    _, training, test = requests("ranker")
    assert set(training.profile) == set(test.profile) == set(range(PROFILES - 1))


def test_candidates_were_all_played_before_the_first_cut() -> None:
    known, training, test = requests("ranker", plays=150)
    played = known.plays.title[known.plays.start_ms < CUTS.t1_ms]
    assert len(np.unique(played)) < TITLES
    for part in (training, test):
        assert np.isin(part.candidates[part.there], played).all()


def test_candidates_are_different_titles() -> None:
    _, training, _ = requests("ranker")
    for row, there in zip(training.candidates, training.there, strict=True):
        assert len(np.unique(row[there])) == there.sum()


def test_seen_titles_are_no_candidates_where_none_is_played_twice() -> None:
    known, _, test = requests("ranker", repeats=False)
    for profile, at_ms, row in zip(test.profile, test.at_ms, test.candidates, strict=True):
        mine = (known.plays.profile == profile) & (known.plays.start_ms <= at_ms)
        assert not np.isin(row[row != NO_TITLE], known.plays.title[mine]).any()


def test_a_search_is_asked_when_there_was_one_and_finds_the_first_play_after_it() -> None:
    known = history()
    # Half of all looks are searches, so that some are followed by another before a play.
    looks = replace(known.looks, search=np.arange(len(known.looks.title)) % 2 == 0)
    known = replace(known, looks=looks)
    _, test = sample(
        known,
        CUTS,
        "search",
        among=np.arange(PROFILES),
        count=200,
        per_profile=200,
        rng=np.random.default_rng(1),
    )
    expected = set()
    plays = list(zip(*(getattr(known.plays, one).tolist() for one in _OF_A_PLAY), strict=True))
    for by, at_ms in zip(looks.profile[looks.search], looks.at_ms[looks.search], strict=True):
        later = [
            (start, title) for profile, title, start in plays if profile == by and start >= at_ms
        ]
        mine = looks.at_ms[looks.search & (looks.profile == by)]
        if later and at_ms >= CUTS.t2_ms:
            start, title = min(later)
            if start - at_ms < 1_800_000 and not ((mine > at_ms) & (mine <= start)).any():
                expected.add((int(by), int(at_ms) - 1, title))
    found = zip(test.profile.tolist(), test.at_ms.tolist(), test.candidates[:, 0], strict=True)
    assert len(expected) > 10
    assert set(found) == expected


def test_a_search_finds_titles_of_the_true_one_s_genre() -> None:
    known, _, test = requests("search")
    assert (test.there.sum(1) >= FEWEST).all()
    for row in test.candidates:
        assert len(np.unique(known.titles.primary[row[row != NO_TITLE]])) == 1


def test_what_was_played_or_looked_at_before_is_told() -> None:
    known, _, test = requests("ranker")
    for row in range(len(test)):
        profile, at_ms, title = test.profile[row], test.at_ms[row], test.candidates[row, 0]
        plays, looks = known.plays, known.looks
        before = (plays.profile == profile) & (plays.title == title) & (plays.start_ms <= at_ms)
        assert test.played_before[row] == before.any()
        just = (looks.profile == profile) & (looks.title == title)
        just &= (looks.at_ms <= at_ms) & (looks.at_ms > at_ms - 1_800_000)
        assert test.just_looked_at[row] == just.any()


@settings(max_examples=25)
@given(st.integers(0, 50), st.integers(CUTS.t1_ms, CUTS.end_ms - 1))
def test_the_future_changes_no_feature(seed: int, at_ms: int) -> None:
    asked = Requests(
        np.arange(PROFILES),
        np.full(PROFILES, at_ms),
        np.tile(np.arange(CANDIDATES + 1) % TITLES, (PROFILES, 1)),
        np.zeros(PROFILES, bool),
        np.zeros(PROFILES, bool),
    )
    whole, cut = history(seed=seed), history(seed=seed, until_ms=at_ms + 1)
    found, wanted = (Baseline(one, CUTS.t1_ms)(asked) for one in (whole, cut))
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("minutes", "progress"), [(30, np.nan), (90, 0.5)])
def test_how_far_a_sitting_got_is_known_when_it_is_over(minutes: int, progress: float) -> None:
    zero, start = np.zeros(1, np.int64), np.array([CUTS.t1_ms])
    sitting = Plays(zero, zero, start, start + 3_600_000, np.array([0.5], np.float32))
    known = replace(history(), plays=sitting)
    asked = Requests(
        zero, start + minutes * 60_000, zero[:, None], np.zeros(1, bool), np.zeros(1, bool)
    )
    found = Baseline(known, CUTS.t1_ms)(asked)[0, 0]
    for name in ("last_progress", "title_progress"):
        assert found[baseline.FEATURES.index(name)] == pytest.approx(progress, nan_ok=True)


def test_every_feature_is_known_of_someone() -> None:
    known, training, _ = requests("ranker")
    features = Baseline(known, CUTS.t1_ms)(training)
    assert features.shape == (*training.candidates.shape, len(baseline.FEATURES))
    assert np.isfinite(features).any((0, 1)).all()


def _live() -> NDArray[np.float32]:
    """Features of a request with three candidates; of a second, whose profile has no intent."""
    known = history()
    titles = replace(known.titles, release_day=np.array([19_990, 19_000, UNKNOWN_DAY] * 20))
    unknown = dict.fromkeys(feature.name for feature in title_profile.features)
    about = pd.DataFrame([unknown] * TITLES, dtype=object)
    about.at[0, "title_embedding"], about.at[1, "title_embedding"] = np.eye(2)
    about.loc[:1, "title_embedding_version"] = "4"
    intent = SAMPLE.published() | {
        "user_embedding": [3.0, 1.0],
        "title_log_norm": 4.0,
        "next_title_ids": ["t2", "t0"],
        "next_title_scores": [0.5, math.exp(-1)],
        "release_age_probs": [0.5, 0, 0, 0.25, 0.25, 0, 0],
        "age_s": 100.0,
    }
    asked = Requests(
        np.array([0, 1]),
        np.full(2, 20_000 * DAY_MS),
        np.array([[0, 1, 2], [0, 1, 2]]),
        np.zeros(2, bool),
        np.zeros(2, bool),
    )
    rows = [intent, dict.fromkeys(intent) | {"age_s": np.nan}]
    return Live(titles, about)(asked, pd.DataFrame(rows, dtype=object))


def test_live_features_tell_how_candidates_fit_the_intent() -> None:
    found = dict(zip(live_features.FEATURES, _live()[0].T.tolist(), strict=True))
    nan = pytest.approx(np.nan, nan_ok=True)
    assert found["embedding_match"] == pytest.approx([-1, -3, np.nan], nan_ok=True)
    assert found["embedding_match_above_mean"] == pytest.approx([1, -1, np.nan], nan_ok=True)
    assert found["embedding_match_rank"] == pytest.approx([0, 1 / 3, np.nan], nan_ok=True)
    assert found["release_age_match"] == [0.5, 0.25, nan]
    assert found["next_title_score"] == pytest.approx([math.exp(-1), 0, 0.5])
    assert found["next_title_place"] == [1.0, nan, 0.0]
    assert found["intent_age"] == pytest.approx([np.log1p(100)] * 3)
    assert found["session_length"] == [3.0, 3.0, 3.0]


def test_without_an_intent_no_live_feature_is_known() -> None:
    assert np.isnan(_live()[1]).all()


def _play(at_ms: int, number: int) -> tuple[int, str, bytes]:
    event = {
        "event_id": f"e{number}",
        "profile_id": "p",
        "event_type": "play_start",
        "occurred_at_ms": at_ms,
        "title_id": f"t{number}",
        "playback_id": f"s{number}",
    }
    return at_ms, PLAYBACK_EVENTS, orjson.dumps(event)


def test_a_profile_is_scored_at_the_first_cut_and_after_each_event() -> None:
    events = [_play(at_ms, number) for number, at_ms in enumerate((1, 2, 100, 100, 107))]
    found = [
        (one.published_at_ms, one.state.last_at_ms, len(one.state.window))
        for one in moments("p", events, 50, Rules())
    ]
    assert found == [(50, 2, 2), (100 + PUBLISH_MS, 100, 4), (107 + PUBLISH_MS, 107, 5)]


def test_a_profile_without_a_past_is_not_scored_at_the_first_cut() -> None:
    found = list(moments("p", [_play(100, 0)], 50, Rules()))
    assert [one.published_at_ms for one in found] == [100 + PUBLISH_MS]


def test_ties_count_against_the_true_title() -> None:
    scores = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    assert ndcg(scores) == pytest.approx([1, 1 / np.log2(3), 0.5])


def test_what_is_no_candidate_is_not_ranked() -> None:
    assert ndcg(np.array([[0.0, np.nan, np.nan]])).tolist() == [1.0]


def test_a_place_beyond_the_tenth_is_worth_nothing() -> None:
    assert ndcg(np.arange(11.0)[None]).tolist() == [0.0]


def test_a_gain_of_nearly_all_profiles_is_significant() -> None:
    rng = np.random.default_rng(0)
    profile, before = np.repeat(np.arange(200), 3), rng.random(600)
    found = lift(profile, before, before + rng.normal(0.05, 0.1, 600))
    assert found.p < 0.01
    assert 0 < found.ci95[0] < found.lift_pct < found.ci95[1]
    assert (found.profiles, found.requests) == (200, 600)


def test_chance_is_not_significant() -> None:
    rng = np.random.default_rng(3)
    profile, before = np.arange(200), rng.random(200)
    found = lift(profile, before, before + rng.normal(0, 0.1, 200))
    assert found.p > 0.05
    assert found.ci95[0] < 0 < found.ci95[1]


def test_each_profile_counts_once() -> None:
    profile = np.array([0, 1, 1, 1])
    found = lift(profile, np.array([0.25, 0.75, 0.75, 0.75]), np.array([1.0, 1, 1, 1]))
    assert (found.ndcg10_without, found.ndcg10_with, found.lift_pct) == (0.5, 1.0, 100.0)


def test_a_placebo_reads_the_intents_of_another_profile() -> None:
    _, training, _ = requests("ranker")
    others = others_of(training, np.random.default_rng(0))
    assert sorted(others) == list(range(len(training)))
    assert (training.profile[others] != training.profile).all()


def _part(seed: int, count: int = 250) -> Part:
    """Requests whose live embedding match knows the truth; all else is noise."""
    rng = np.random.default_rng(seed)
    shape = (count, 21)
    asked = Requests(
        rng.integers(0, 80, count),
        np.arange(count),
        np.tile(np.arange(21), (count, 1)),
        np.zeros(count, bool),
        np.zeros(count, bool),
    )
    without = rng.normal(size=(*shape, len(baseline.FEATURES))).astype(np.float32)
    noise = rng.normal(size=(*shape, len(live_features.FEATURES))).astype(np.float32)
    noise[..., live_features.FEATURES.index("intent_age")] = 1
    known = noise.copy()
    known[:, 0, live_features.FEATURES.index("embedding_match")] += 2
    return Part(asked, without, known, noise, noise)


@pytest.mark.parametrize("task", ["ranker", "search"])
def test_knowing_the_truth_is_a_lift_and_noise_is_none(task: str) -> None:
    parts = _part(1), _part(2)
    found = (
        compare_rankers(*parts, seed=0)
        if task == "ranker"
        else compare_engines(*parts, fresh_s=1800, seed=0)
    )
    assert found["lift_pct"] > 100
    assert found["p"] < 0.01
    assert found["placebo"]["lift_pct"] < 30


def test_a_stale_intent_leaves_the_engine_s_order() -> None:
    parts = _part(1), _part(2)
    parts[1].live[..., live_features.FEATURES.index("intent_age")] = np.log1p(1801)
    found = compare_engines(*parts, fresh_s=1800, seed=0)
    assert (found["fresh"], found["lift_pct"]) == (0.0, 0.0)
    assert found["any_age"]["lift_pct"] > 100


def _result() -> dict[str, Any]:
    one = {
        "ndcg10_without": 0.25,
        "ndcg10_with": 0.5,
        "lift_pct": 100.0,
        "ci95": [90.0, 110.0],
        "p": 0.0001,
        "profiles": 3,
        "requests": 7,
    }
    task = one | {"placebo": one, "by_target": {"new_to_the_profile": one}}
    nightly = {"nightly": one, "live_over_nightly": one}
    search = {"weights": {"engine_score": 1.0}, "fresh": 0.5, "any_age": one}
    model = {"experiment": "demo", "events_before_t1": 5, "validation_ndcg10": 0.1}
    about = {"t1": "a", "t2": "b", "rows": 9, "command": "c", "measured_at": "d", "model": model}
    return about | {"ranker": task | nightly, "search": task | search}


def test_a_source_s_result_leaves_the_others_alone(tmp_path: Path) -> None:
    for name in ("ml1m", "simulator", "ml1m"):
        report.keep(name, _result(), tmp_path)
    kept = json.loads((tmp_path / "downstream.json").read_text())
    assert list(kept) == ["ml1m", "simulator"]
    assert kept["ml1m"] == _result()
    assert (
        "| simulator | **search** | 3 | 7 | 0.2500 | 0.5000 | +100.0 %"
        in (tmp_path / "downstream.md").read_text()
    )
    assert (tmp_path / "downstream.png").stat().st_size
