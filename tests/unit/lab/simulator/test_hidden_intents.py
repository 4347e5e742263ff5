from itertools import pairwise

import numpy as np
import pytest

from lab.simulator import SimulatorParameters
from lab.simulator.hidden_intents import Mixtures, carried
from lab.simulator.members import DAY_S, day_part
from lab.simulator.output import blocks, load_catalogue
from lab.simulator.simulator_catalogue import MOVIE, SHOW

ROWS = 100_000
MEMBERS = SimulatorParameters(members=150, days=40)


def _mixtures(*shares: tuple[float, ...]) -> Mixtures:
    return Mixtures(tuple(np.tile(one, (ROWS, 1)) for one in shares))


EVENING = _mixtures((0.5, 0.5), (0.6, 0.3, 0.1), (0.2, 0.8), (0.25, 0.75))
NIGHT = _mixtures((0.5, 0.5), (0.2, 0.3, 0.5), (0.7, 0.3), (0.25, 0.75))


@pytest.mark.parametrize("persistence", [0.0, 0.7, 1.0])
def test_intents_have_the_mixture_of_their_time_of_day_whatever_the_persistence(
    persistence,
) -> None:
    rng = np.random.default_rng(1)
    after = carried(rng, EVENING.drawn(rng), EVENING, NIGHT, persistence)
    for labels, shares in zip(after.columns(), NIGHT.parts, strict=True):
        found = np.bincount(labels, minlength=shares.shape[1]) / ROWS
        assert found == pytest.approx(shares[0], abs=0.01)


def test_at_the_same_time_of_day_a_part_stays_with_the_given_probability_or_is_drawn_anew() -> None:
    rng = np.random.default_rng(2)
    before = EVENING.drawn(rng)
    after = carried(rng, before, EVENING, EVENING, 0.7)
    stayed = (before.genre == after.genre).mean()
    assert stayed == pytest.approx(0.7 + 0.3 * (0.36 + 0.09 + 0.01), abs=0.01)


def test_the_parts_of_an_intent_stay_independently_of_each_other() -> None:
    rng = np.random.default_rng(3)
    before = NIGHT.drawn(rng)
    after = carried(rng, before, NIGHT, NIGHT, 0.5)
    stayed = [a == b for a, b in zip(before.columns(), after.columns(), strict=True)]
    assert np.abs(np.corrcoef(stayed) - np.eye(4)).max() < 0.02


def test_the_night_is_between_22_and_5_h() -> None:
    hours = np.array([4.9, 5.0, 11.0, 17.0, 21.9, 22.0]) * 3600 + 3 * DAY_S
    assert day_part(hours).tolist() == [3, 0, 1, 2, 2, 3]


@pytest.fixture(scope="module")
def catalogue():
    return load_catalogue(MEMBERS)


@pytest.fixture(scope="module")
def lives(catalogue):
    return next(iter(blocks(MEMBERS, catalogue)))[0].run()


@pytest.fixture(scope="module")
def null_lives(catalogue):
    return next(iter(blocks(MEMBERS.null_twin(), catalogue)))[0].run()


def _genres_shared_by_neighbours(lives, catalogue) -> float:
    """Share of first plays of titles that have the genre of the first play before, by member."""
    first = {}
    for member, title in zip(lives.sittings["member"], lives.sittings["title"], strict=True):
        first.setdefault((member, title), None)
    titles = {}
    for member, title in first:
        titles.setdefault(member, []).append(title)
    genres = catalogue.genres_TG.astype(int)
    shared = [
        genres[before] @ genres[after] > 0
        for some in titles.values()
        for before, after in pairwise(some)
    ]
    return float(np.mean(shared))


def test_neighbouring_plays_resemble_each_other_more_than_on_the_null_twin(
    lives, null_lives, catalogue
) -> None:
    ours = _genres_shared_by_neighbours(lives, catalogue)
    assert ours > 1.1 * _genres_shared_by_neighbours(null_lives, catalogue)


@pytest.mark.parametrize("part", ["action", "genre", "kind", "release_age"])
def test_the_null_twin_has_intents_of_the_same_marginal_distribution(
    lives, null_lives, part
) -> None:
    def shares(some):
        weight = some.spells["to_s"] - some.spells["from_s"]
        found = np.bincount(some.spells[part], weight, 40)
        return found / found.sum()

    assert np.abs(shares(lives) - shares(null_lives)).sum() < 0.2


def test_on_the_null_twin_every_pick_but_an_episode_that_follows_has_an_intent_of_its_own(
    lives, null_lives
) -> None:
    picks = len(null_lives.sittings["member"])
    assert len(null_lives.spells["member"]) > 0.7 * picks
    assert len(lives.spells["member"]) < 0.6 * picks


def test_no_episode_is_watched_before_it_comes(lives, catalogue) -> None:
    s = lives.sittings
    shows = catalogue.kind_T[s["title"]] == SHOW
    comes = catalogue.episode_day(s["title"], s["season"], s["episode"]) - catalogue.first_day
    assert (comes[shows] <= s["at_s"][shows] // DAY_S).all()
    assert (comes[shows] > 0).any()


def test_an_episode_that_has_come_is_watched_soon_by_those_who_wait(lives, catalogue) -> None:
    s = lives.sittings
    comes = catalogue.episode_day(s["title"], s["season"], s["episode"]) - catalogue.first_day
    waited_for = catalogue.weekly_T[s["title"]] & (s["episode"] > 1) & (comes > 0)
    assert waited_for.sum() > 10
    assert np.median((s["at_s"] / DAY_S - comes)[waited_for]) < 10


def test_titles_that_have_just_come_are_watched_more_than_others(lives, catalogue) -> None:
    s = lives.sittings
    age_days = s["at_s"] / DAY_S - (catalogue.season_day_T[s["title"]] - catalogue.first_day)
    new = (age_days < 7).mean()
    stock = catalogue.season_day_T - catalogue.first_day
    in_catalogue = ((stock >= 0) & (stock < MEMBERS.days)).mean() * 7 / MEMBERS.days
    assert new > 3 * in_catalogue


def test_a_film_given_up_when_first_played_is_never_played_again(lives, catalogue) -> None:
    s = lives.sittings
    plays = list(zip(s["member"], s["title"], strict=True))
    first = np.array([plays.index(one) == at for at, one in enumerate(plays)])
    given_up = first & (catalogue.kind_T[s["title"]] == MOVIE) & ~s["complete"]
    given_up &= s["watched_s"] < 0.2 * catalogue.duration_T[s["title"]]
    assert given_up.sum() > 20
    assert all(plays.count(plays[at]) == 1 for at in np.flatnonzero(given_up))
