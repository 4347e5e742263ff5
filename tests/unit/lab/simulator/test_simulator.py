import hashlib
from dataclasses import replace

import pandas as pd
import pytest
from typer.testing import CliRunner

from intentstream.cli.main import app
from lab.exceptions import NobodyWatchesError, NotFrozenError
from lab.simulator import SimulatorParameters, frozen, output, simulate
from stream.domain.labels import DEVICES

SMALL = SimulatorParameters(members=60, days=20)
RATES = ("--events-per-s", "5", "--speed-up", "5")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    directory = tmp_path_factory.mktemp("simulated")
    simulate(SMALL, directory)
    return directory


@pytest.fixture(scope="module")
def events(made):
    return pd.read_parquet(made / "events.parquet")


@pytest.fixture(scope="module")
def sittings(events):
    plays = events[events.playback_id.notna()]
    return plays.groupby("playback_id", sort=False)


def _digests(directory):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()
    }


def test_equal_parameters_give_equal_files(made, tmp_path) -> None:
    simulate(SMALL, tmp_path)
    assert _digests(tmp_path) == _digests(made)


def test_another_seed_gives_other_members(made, tmp_path) -> None:
    simulate(replace(SMALL, seed=2), tmp_path)
    assert _digests(tmp_path)["events.parquet"] != _digests(made)["events.parquet"]


def test_all_event_types_occur(events) -> None:
    assert set(events.event_type) == {
        *("play_start", "play_progress", "play_pause", "play_resume", "play_stop"),
        *("play_complete", "impression", "title_open", "trailer_play", "search"),
        *("list_add", "list_remove"),
    }


def test_events_are_ordered_by_time_and_then_by_id(events) -> None:
    assert list(events.index) == list(
        events.sort_values(["occurred_at_ms", "event_id"], kind="stable").index
    )


def test_every_sitting_begins_with_a_start_and_ends_once(sittings) -> None:
    assert (sittings.event_type.first() == "play_start").all()
    assert sittings.event_type.last().isin(["play_stop", "play_complete"]).all()
    ends = sittings.event_type.agg(lambda types: types.isin(["play_stop", "play_complete"]).sum())
    assert (ends == 1).all()


def test_watched_seconds_grow_within_a_sitting_and_never_exceed_the_length(sittings) -> None:
    assert sittings.watched_s.agg(lambda watched: watched.is_monotonic_increasing).all()
    assert (sittings.position_s.max() <= sittings.duration_s.max() + 0.1).all()


def test_time_passes_by_what_was_watched_and_the_pauses_only(sittings) -> None:
    for _, sitting in list(sittings)[:200]:
        paused = sitting.occurred_at_ms[sitting.event_type == "play_pause"].sum()
        resumed = sitting.occurred_at_ms[sitting.event_type == "play_resume"].sum()
        elapsed = sitting.occurred_at_ms.iloc[-1] - sitting.occurred_at_ms.iloc[0]
        assert elapsed == pytest.approx(sitting.watched_s.iloc[-1] * 1000 + resumed - paused, abs=5)


def test_shows_go_on_episode_by_episode(events) -> None:
    done = events[(events.event_type == "play_complete") & events.episode.notna()]
    steps = done.groupby(["profile_id", "title_id"]).episode.diff().dropna()
    assert len(steps) > 50
    assert (steps == 1).mean() > 0.8


def test_a_search_has_words_and_no_title(events) -> None:
    is_search = events.event_type == "search"
    assert events.title_id[is_search].isna().all()
    assert events["query"][is_search].str.len().gt(0).all()
    assert events["query"][~is_search].isna().all()


def test_no_title_is_seen_before_it_came_to_the_service(made, events) -> None:
    catalogue = pd.read_parquet(made / "catalogue.parquet").set_index("title_id")
    plays = events[events.event_type == "play_start"]
    released = catalogue.release_day.loc[plays.title_id].to_numpy()
    assert (released <= plays.occurred_at_ms // 86_400_000).all()


def test_devices_are_of_the_taxonomy(events) -> None:
    assert set(events.device) <= set(DEVICES)


def test_no_hidden_intent_is_in_the_events(events) -> None:
    assert not {"action", "genre", "kind", "release_age", "intent"} & set(events.columns)


def test_sessions_of_a_member_lie_further_apart_than_the_idle_gap(events) -> None:
    play_ends = events[events.event_type.isin(["play_stop", "play_complete"])]
    assert len(play_ends)
    gaps = events.groupby("profile_id").occurred_at_ms.diff().dropna()
    within = gaps[gaps < 45 * 60_000]
    assert within.max() < 30 * 60_000


def test_what_the_simulator_makes_is_what_was_frozen() -> None:
    frozen.check("sample")


def test_a_change_of_what_the_simulator_makes_is_named(monkeypatch) -> None:
    changed = replace(frozen.FROZEN["sample"], binge=0.5)
    monkeypatch.setitem(frozen.FROZEN, "sample", changed)
    with pytest.raises(NotFrozenError, match=r"parameters.binge, rows.events.*sha256.events"):
        frozen.check("sample")


def test_so_few_members_that_nothing_happens_are_refused(tmp_path) -> None:
    with pytest.raises(NobodyWatchesError, match="more members or days"):
        simulate(SimulatorParameters(members=1, days=1, sessions_per_day=1e-6), tmp_path)


def test_a_block_in_which_nobody_watches_adds_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(output, "_BLOCK", 4)
    made = output.generate(replace(SMALL, members=12, days=3, sessions_per_day=0.05))
    members = {int(profile[-6:]) for profile in made.events["profile_id"].to_pylist()}
    assert {member // 4 for member in members} < {0, 1, 2}


@pytest.mark.parametrize("arguments", [["--members", "5"], ["out", "--kafka"], ["--kafka", *RATES]])
def test_the_command_wants_one_place_for_the_events_and_one_rate(arguments) -> None:
    done = CliRunner().invoke(app, ["simulate", *arguments])
    assert done.exit_code == 2


def test_the_command_writes_the_null_twin_of_the_same_members(tmp_path) -> None:
    arguments = ["simulate", str(tmp_path / "out"), "--members", "20", "--days", "5"]
    assert CliRunner().invoke(app, [*arguments, "--null-twin", "--seed", "3"]).exit_code == 0
    simulate(SimulatorParameters(members=20, days=5, seed=3).null_twin(), tmp_path / "twin")
    assert _digests(tmp_path / "out") == _digests(tmp_path / "twin")
