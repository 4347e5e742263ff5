"""The readers of the hidden intents: what each may know, and that they reckon rightly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fm_intent.data.dataset import PLAYS, Context, load
from lab.exceptions import TruthError
from lab.simulator import SimulatorParameters, beliefs, simulate
from lab.simulator.beliefs import Outlook
from lab.simulator.choices import CONTINUE, NONE
from lab.simulator.hidden_intents import HiddenIntents, Mixtures, carried
from lab.simulator.oracle import READERS, answer
from lab.simulator.output import blocks, load_catalogue
from stream.domain.labels import ACTIONS

MEMBERS = SimulatorParameters(members=60, days=15)


@pytest.fixture(scope="module")
def round_of_picks():
    """The first picks of some sessions, with the outlook of their block."""
    catalogue = load_catalogue(MEMBERS)
    simulation, _ = next(iter(blocks(MEMBERS, catalogue)))
    outlook = Outlook(MEMBERS, catalogue, simulation.choices)
    firsts = (pick for pick in simulation.picks() if not pick.in_session)
    pick = next(pick for number, pick in enumerate(firsts) if number == 2)
    return catalogue, simulation.choices, outlook, pick


def test_who_is_certain_expects_titles_as_the_members_draw_them(round_of_picks) -> None:
    _, choices, outlook, pick = round_of_picks
    rows = np.arange(len(pick.number))
    one = pick.intents
    drawn_by = choices.unseen(pick.at, rows, one.genre, one.kind, one.release_age)
    drawn_by /= drawn_by.sum(1, keepdims=True)
    weights = np.eye(len(ACTIONS))[ACTIONS.index("discover")]
    assert outlook.titles(pick.at, beliefs.certain(one), weights) == pytest.approx(drawn_by)


def test_the_long_run_belief_is_the_mean_over_what_each_intent_expects(round_of_picks) -> None:
    catalogue, _, outlook, pick = round_of_picks
    rng = np.random.default_rng(1)
    at = pick.at.take(np.array([0]))
    shares = tuple(rng.dirichlet(np.ones(n))[None] for n in beliefs.SHAPE)
    draws = 2_000
    drawn = Mixtures(tuple(np.tile(one, (draws, 1)) for one in shares)).drawn(rng)
    weights = np.eye(len(ACTIONS))[ACTIONS.index("search")]
    expected = outlook.titles(at, beliefs.long_run(Mixtures(shares)), weights)[0]
    # Given that the pick is a search, actions of the intent that seldom search count less.
    by_intent = outlook.actions(at)[0, drawn.action, ACTIONS.index("search")]
    sampled = np.zeros_like(expected)
    several = at.take(np.zeros(100, np.int64))
    for first in range(0, draws, 100):
        some = slice(first, first + 100)
        titles = outlook.titles(several, beliefs.certain(drawn.take(some)), weights)
        sampled += by_intent[some] @ titles
    sampled /= sampled.sum()
    genres = catalogue.genres_TG
    assert sampled @ genres == pytest.approx(expected @ genres, abs=0.02)


def test_a_title_held_is_expected_by_how_its_weight_compares(round_of_picks) -> None:
    _, choices, outlook, pick = round_of_picks
    one = pick.intents
    weights = np.eye(len(ACTIONS))[CONTINUE]
    expected = outlook.titles(pick.at, beliefs.certain(one), weights)
    drawn_by = choices.going_on(pick.at, one.genre, one.kind)
    rows, slots = np.nonzero(pick.at.held_NS != NONE)
    assert len(rows)
    shares = drawn_by / np.maximum(drawn_by.sum(1, keepdims=True), 1e-300)
    held = pick.at.held_NS[rows, slots]
    assert expected[rows, held] == pytest.approx(shares[rows, slots])


def test_what_is_believed_of_the_next_session_is_how_intents_are_carried() -> None:
    rng = np.random.default_rng(2)
    rows = 200_000
    shares = [tuple(rng.dirichlet(np.ones(n)) for n in beliefs.SHAPE) for _ in range(2)]
    old, new = (Mixtures(tuple(np.tile(one, (rows, 1)) for one in some)) for some in shares)
    before = HiddenIntents(*(np.full(rows, label) for label in (1, 2, 0, 3)))
    after = carried(rng, before, old, new, 0.7)
    first = np.array([0])
    believed = beliefs.next_session(
        beliefs.certain(before.take(first)), old.take(first), new.take(first), 0.7
    )[0]
    for axis, labels in enumerate(after.columns()):
        others = tuple(other for other in range(4) if other != axis)
        found = np.bincount(labels, minlength=believed.shape[axis]) / rows
        assert believed.sum(others) == pytest.approx(found, abs=0.005)


def test_evidence_moves_belief_by_bayes_rule() -> None:
    belief = np.zeros((1, *beliefs.SHAPE))
    belief[0, 0, 4, 0, 1], belief[0, 1, 5, 1, 1] = 0.25, 0.75
    of_action = np.full((1, len(ACTIONS)), 0.5)
    of_title = np.full((1, *beliefs.SHAPE[1:]), 0.1)
    of_title[0, 4] = 0.6
    after = beliefs.after_evidence(belief, of_action, of_title)
    assert after[0, 0, 4, 0, 1] == pytest.approx(2 / 3)
    assert after.sum() == pytest.approx(1)


def _answers(parameters, directory):
    """The histories, plays and interactions drawn from them, and what the readers say of those."""
    simulate(parameters, directory)
    sequences = load(directory)
    rng = np.random.default_rng(1)
    rows = np.arange(len(sequences.row))
    plays = rng.choice(rows[np.isin(sequences.columns.action, PLAYS)], 500, replace=False)
    some = rng.choice(rows, 500, replace=False)
    said = answer(parameters, sequences, np.union1d(plays, some))
    return sequences, _contexts(sequences, plays), _contexts(sequences, some), said


def _contexts(sequences, ends) -> Context:
    profile = np.searchsorted(sequences.columns.offset, ends, side="right") - 1
    return Context(profile, ends, ends)


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    return _answers(MEMBERS, tmp_path_factory.mktemp("simulated"))


@pytest.fixture(scope="module")
def null_answers(tmp_path_factory):
    return _answers(MEMBERS.null_twin(), tmp_path_factory.mktemp("null"))


def _of_what_came(some, reader) -> np.ndarray:
    sequences, plays, _, said = some
    targets = sequences.targets(plays)[:, None]
    return np.take_along_axis(said[reader].scores(sequences, plays), targets, 1)[:, 0]


def test_who_knows_more_of_the_intent_finds_what_came_likelier(answers) -> None:
    oracle, observer, prior = (np.log(_of_what_came(answers, one)).mean() for one in READERS)
    assert oracle > observer + 0.1
    assert observer > prior + 0.1


def test_on_the_null_twin_the_past_says_nothing_of_the_intent(null_answers) -> None:
    sequences, plays, some, said = null_answers
    observed, known = (said[reader].scores(sequences, plays) for reader in READERS[1:])
    assert observed == pytest.approx(known, abs=1e-6)
    observed, known = (said[reader].intents(sequences, some) for reader in READERS[1:])
    for ours, theirs in zip(observed, known, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


@pytest.mark.parametrize("reader", READERS)
def test_a_play_that_is_held_to_be_likely_comes_as_often(answers, reader) -> None:
    sequences, plays, _, said = answers
    scores = said[reader].scores(sequences, plays)
    right = scores.argmax(1) == sequences.targets(plays)
    assert right.mean() == pytest.approx(scores.max(1).mean(), abs=0.06)


@pytest.mark.parametrize("reader", READERS)
def test_an_action_that_is_held_to_be_likely_comes_as_often(answers, reader) -> None:
    sequences, _, some, said = answers
    action = said[reader].intents(sequences, some)[0]
    came = sequences.intents(some)[0][:, 0].numpy()
    assert action.sum(1) == pytest.approx(1, abs=1e-5)
    assert (action.argmax(1) == came).mean() == pytest.approx(action.max(1).mean(), abs=0.06)


@pytest.mark.parametrize("reader", READERS)
def test_probabilities_of_titles_are_those_of_their_kinds_and_ages(answers, reader) -> None:
    sequences, plays, some, said = answers
    # Titles that nobody played have the rest.
    assert said[reader].scores(sequences, plays).sum(1).max() <= 1 + 1e-5
    _, _, kind, age = said[reader].intents(sequences, some)
    assert kind.sum(1) == pytest.approx(1, abs=1e-5)
    assert age.sum(1) == pytest.approx(1, abs=1e-5)


def test_histories_of_other_members_are_refused(answers) -> None:
    sequences, plays, _, _ = answers
    with pytest.raises(TruthError, match="not those of the frozen members"):
        answer(replace(MEMBERS, seed=7), sequences, plays.end)
