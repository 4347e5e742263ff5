"""What could be known: the frozen members' next interaction, from the process itself.

Three readers know the process, the catalogue and every member's traits. They differ in what they
know of the hidden intents:

- `oracle` is told the intent in force at the held-out interaction, whatever came before it,
- `observer` infers it from all that the member did before, by Bayes' rule: no model that reads
  histories can know more of it,
- `prior` knows the member's long-run mixture alone.

What intents are worth is the way from `prior` to `observer`, and on the null twin nothing; how much
of it a model has gone says more than the bare figure. All three know the time of the held-out
interaction, so their rows stand in the table with the time of the target.

`python -m lab.simulator.oracle` simulates the members again and prints the rows.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
import typer
from scipy import stats

from fm_intent.benchmark import record
from fm_intent.data.dataset import Context, Sequences, load
from fm_intent.data.event_files import data_sha256
from fm_intent.evaluate import judge
from lab.exceptions import TruthError
from lab.simulator import beliefs
from lab.simulator.beliefs import Outlook
from lab.simulator.choices import (
    CONTINUE,
    DISCOVER,
    LIST,
    LISTS_A,
    NONE,
    OPEN,
    OPENS_A,
    PLAYS_A,
    REWATCH,
    SEARCH,
    TRAILER,
    TRAILERS_A,
)
from lab.simulator.frozen import FROZEN
from lab.simulator.hidden_intents import Mixtures, mixtures
from lab.simulator.journal import at_unix_ms, member_number
from lab.simulator.output import blocks, load_catalogue
from lab.simulator.parts import ACTIONS, PARTS
from stream.domain.heads import INTENTS
from stream.domain.labels import KINDS, RELEASE_AGES
from stream.steps import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lab.simulator.choices import Situation
    from lab.simulator.members import Members
    from lab.simulator.parameters import SimulatorParameters
    from lab.simulator.simulation import Lives, Pick, Simulation
    from lab.simulator.simulator_catalogue import SimulatorCatalogue

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

READERS: Final = ("oracle", "observer", "prior")

_BOUNDS: Final = {"prior": "lower", "observer": "upper"}
"""Of what intents are worth."""

_STAGES: Final = ("search", "title_open", "trailer_play", "list_add", "play")
"""The interactions that a pick may have, in their order."""
_STAGE_ACTIONS: Final = (SEARCH, OPEN, TRAILER, LIST, DISCOVER)
_IS_SEARCH_A: Final = (np.arange(len(ACTIONS)) == SEARCH).astype(float)
_STAGES_EA: Final = np.stack([_IS_SEARCH_A, OPENS_A, TRAILERS_A, LISTS_A, PLAYS_A])
"""Probability of each stage, by the pick's action."""
_IS_PLAY_A: Final = np.isin(np.arange(len(ACTIONS)), (DISCOVER, CONTINUE, REWATCH))
_BROWSES_A: Final = ~np.isin(np.arange(len(ACTIONS)), (CONTINUE, REWATCH))
_PLAY: Final = len(_STAGES) - 1
_SEARCHED: Final = 0
_WINDOW: Final = 64
"""Of the contexts; the readers know all that came before."""


class Answers:
    """What one reader says of the held-out interactions, as a `Predictor` of `fm_intent.evaluate`.

    Attributes:
        rows: Index of a held-out interaction in the flat columns → row of the arrays.
        next_play: [rows, V] float32.
        next_intents: By `PARTS`, [rows, classes] float32.
    """

    def __init__(self, ends: Ints, candidates: int) -> None:
        self.rows = {end: row for row, end in enumerate(ends.tolist())}
        self.next_play = np.zeros((len(ends), candidates), np.float32)
        self.next_intents = tuple(
            np.zeros((len(ends), len(labels)), np.float32) for labels in PARTS.values()
        )

    def scores(self, sequences: Sequences, contexts: Context) -> NDArray[np.float32]:
        """[B, V] probabilities of the next play."""
        return self.next_play[[self.rows[end] for end in contexts.end.tolist()]]

    def intents(
        self, sequences: Sequences, contexts: Context
    ) -> tuple[NDArray[np.float32] | None, ...]:
        """Per intent, probabilities [B, C] of the next interaction."""
        rows = [self.rows[end] for end in contexts.end.tolist()]
        known = dict(zip(PARTS, self.next_intents, strict=True))
        return tuple(known[name][rows] if name in known else None for name in INTENTS)


def answer(
    parameters: SimulatorParameters,
    sequences: Sequences,
    ends: Ints,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Answers]:
    """What each of `READERS` says of the interactions at `ends` of the flat columns.

    Args:
        parameters: What the members were simulated by.
        sequences: The histories made of them.
        ends: [E] int64.
        advance: Called with the number of members done.

    Raises:
        TruthError: When the histories are not those of these members.
    """
    catalogue = load_catalogue(parameters)
    said = {reader: Answers(ends, len(sequences.candidates)) for reader in READERS}
    columns = sequences.columns
    profile = np.searchsorted(columns.offset, ends, side="right") - 1
    member = np.array([member_number(one) for one in np.asarray(columns.profile_id)])[profile]
    first, replays = 0, blocks(parameters, catalogue)
    for simulation, people in blocks(parameters, catalogue):
        story = _Story.of(simulation.run(), catalogue, len(people.country_M))
        rows = np.flatnonzero((member >= first) & (member - first < len(people.country_M)))
        held_out = story.find(member[rows] - first, columns.start_ms[ends[rows]])
        reading = _Reading(parameters, catalogue, people, story)
        for found in reading.of(next(replays)[0], held_out):
            found.write(said, rows, sequences.candidates)
        first += len(people.country_M)
        advance(first)
    return said


@dataclass(frozen=True, slots=True)
class _Story:
    """What a block of members did: X interactions by member and time, and P picks of all.

    Attributes:
        member_X: Rows of the block.
        at_ms_X: Unix ms.
        pick_X: Index of the pick.
        stage_X: Index into `_STAGES`.
        title_X: The title, `NONE` for a search.
        goes_on_X: Whether it is a finished sitting whose show has another episode there.
        offset_M: [M + 1], where a member's picks begin.
        stages_PE: Which stages a pick had.
        title_P: Its title; `NONE` where only a search shows.
    """

    member_X: Ints  # noqa: N815
    at_ms_X: Ints  # noqa: N815
    pick_X: Ints  # noqa: N815
    stage_X: Ints  # noqa: N815
    title_X: Ints  # noqa: N815
    goes_on_X: Bools  # noqa: N815
    offset_M: Ints  # noqa: N815
    stages_PE: Bools  # noqa: N815
    title_P: Ints  # noqa: N815

    @classmethod
    def of(cls, lives: Lives, catalogue: SimulatorCatalogue, members: int) -> _Story:
        browsing, sittings = lives.browsing, lives.sittings
        picks = np.zeros(members, np.int64)
        np.maximum.at(picks, browsing["member"], browsing["pick"] + 1)
        np.maximum.at(picks, sittings["member"], sittings["pick"] + 1)
        offset = np.concatenate([[0], picks.cumsum()])
        code = {event_type: stage for stage, event_type in enumerate(_STAGES)}
        stage = np.array([code.get(one, NONE) for one in browsing["event_type"].tolist()])
        kept = stage != NONE

        def both(name: str) -> NDArray[Any]:
            return np.concatenate([browsing[name][kept], sittings[name]])

        member, title = both("member"), both("title")
        at_ms = at_unix_ms(catalogue, both("at_s"))
        pick = offset[member] + both("pick")
        stage = np.concatenate([stage[kept], np.full(len(sittings["title"]), _PLAY)])
        goes_on = np.concatenate([np.zeros(int(kept.sum()), bool), sittings["more"]])
        goes_on[stage == _PLAY] &= sittings["complete"]
        stages = np.zeros((int(offset[-1]), len(_STAGES)), bool)
        stages[pick, stage] = True
        of_pick = np.full(len(stages), NONE)
        of_pick[pick[title != NONE]] = title[title != NONE]
        order = np.lexsort((at_ms, member))
        return cls(
            member[order],
            at_ms[order],
            pick[order],
            stage[order],
            title[order],
            goes_on[order],
            offset,
            stages,
            of_pick,
        )

    def find(self, member: Ints, at_ms: Ints) -> Ints:
        """Where the interactions of `member` that began at `at_ms` are."""
        place = np.rec.fromarrays([self.member_X, self.at_ms_X])
        wanted = np.rec.fromarrays([member, at_ms])
        found: Ints = np.searchsorted(place, wanted).clip(max=len(place) - 1)
        if (place[found] != wanted).any():
            raise TruthError(
                "the histories are not those of the frozen members; prepare the source again"
            )
        return found


@dataclass(frozen=True, slots=True)
class _OracleAnswer:
    """What a reader says of N held-out interactions, `rows` of all that were asked for."""

    reader: str
    rows: Ints
    next_play_NT: Floats  # noqa: N815
    intents: tuple[Floats, ...]

    def write(self, said: dict[str, Answers], rows: Ints, candidates: NDArray[np.intp]) -> None:
        at = rows[self.rows]
        said[self.reader].next_play[at] = self.next_play_NT[:, candidates]
        for kept, found in zip(said[self.reader].next_intents, self.intents, strict=True):
            kept[at] = found


class _Reading:
    """The three readers follow a block of members, pick by pick."""

    def __init__(
        self,
        parameters: SimulatorParameters,
        catalogue: SimulatorCatalogue,
        people: Members,
        story: _Story,
    ) -> None:
        count = len(people.country_M)
        self._parameters = parameters
        self._catalogue = catalogue
        self._people = people
        self._story = story
        self._belief_M = np.zeros((count, *beliefs.SHAPE))
        self._mixtures_M = Mixtures(tuple(np.zeros((count, n)) for n in beliefs.SHAPE))
        # Place in its session of the last pick that wasn't an episode following by itself.
        self._asked_for_M = np.zeros(count, np.int64)
        # Of every pick so far: how likely each action was held to be.
        self._actions_P = {r: np.zeros((len(story.title_P), len(ACTIONS))) for r in READERS}

    def of(self, simulation: Simulation, held_out: Ints) -> Iterator[_OracleAnswer]:
        """Play all sessions again; yield what is said of the interactions `held_out`."""
        story = self._story
        outlook = Outlook(self._parameters, self._catalogue, simulation.choices)
        picks_of_held_out = story.pick_X[held_out]
        row_of_pick = np.full(len(story.title_P), NONE)
        for pick in simulation.picks():
            members = pick.at.members
            number = story.offset_M[members] + pick.number
            observed = self._expect(pick)
            prior = self._mixtures_M.take(members)
            by_intent = outlook.actions(pick.at)
            of_reader = {
                "oracle": np.eye(len(ACTIONS))[pick.intents.action],
                "observer": observed.sum((2, 3, 4)),
                "prior": prior.parts[0],
            }
            for reader, intended in of_reader.items():
                self._actions_P[reader][number] = np.einsum("na,nab->nb", intended, by_intent)
            row_of_pick[number] = np.arange(len(number))
            asked = np.flatnonzero(row_of_pick[picks_of_held_out] != NONE)
            if len(asked):
                rows = row_of_pick[picks_of_held_out[asked]]
                at = pick.at.take(rows)
                believed = {
                    "oracle": beliefs.certain(pick.intents.take(rows)),
                    "observer": observed[rows],
                    "prior": beliefs.long_run(prior.take(rows)),
                }
                for reader, belief in believed.items():
                    told = self._say(reader, outlook, at, belief, held_out[asked], pick.in_session)
                    yield _OracleAnswer(reader, asked, *told)
            row_of_pick[number] = NONE
            asks = pick.going_on == NONE
            self._asked_for_M[members[asks]] = pick.in_session + 1
            learns = np.flatnonzero(asks)
            self._learn(outlook, pick.at.take(learns), number[learns], by_intent[learns])

    def _expect(self, pick: Pick) -> Floats:
        """What the observer believes before a pick: intents may have changed since the last.

        A pick that goes on with an episode asks for no intent; what is believed of it is for the
        case that something else had come.
        """
        members, p = pick.at.members, self._parameters
        if not pick.in_session:
            now = mixtures(self._people, members, pick.at.at_s, self._catalogue.first_day)
            before = self._mixtures_M.take(members)
            belief = beliefs.next_session(
                self._belief_M[members], before, now, p.intent_persistence
            )
            is_new = pick.number == 0
            belief[is_new] = beliefs.long_run(now.take(is_new))
            self._mixtures_M.put(members, now)
        else:
            afresh = beliefs.long_run(self._mixtures_M.take(members))
            belief = (1 - p.intent_switch) * self._belief_M[members] + p.intent_switch * afresh
        asks = pick.going_on == NONE
        self._belief_M[members[asks]] = belief[asks]
        return belief

    def _more_picks(self, made: Ints, asked_for: Ints) -> Floats:
        """How likely a session that was to have `asked_for` picks or more has more than `made`."""
        mean = self._parameters.picks_per_session - 1
        more: Floats = stats.poisson.sf(made - 1, mean) / stats.poisson.sf(asked_for - 2, mean)
        return more

    def _learn(self, outlook: Outlook, at: Situation, number: Ints, by_intent: Floats) -> None:
        """What the picks `number` tell the observer."""
        stages, title = self._story.stages_PE[number], self._story.title_P[number]
        of_action = np.ones((len(number), len(ACTIONS)))
        of_title = np.ones((len(number), *beliefs.SHAPE[1:]))
        is_known = (title != NONE) & (at.appeal_MT[at.members, title] == 0)
        browses = np.flatnonzero(~is_known & stages.any(1))
        likely = _likelihood(stages[browses], np.full(len(browses), _PLAY))
        of_action[browses] = np.einsum("nb,nab->na", likely, by_intent[browses])
        found = browses[title[browses] != NONE]
        of_title[found] = outlook.likelihood(at.take(found), title[found])
        for action, titles in ((CONTINUE, at.held_NS), (REWATCH, at.finished_NS)):
            rows, slot = np.nonzero((titles == title[:, None]) & is_known[:, None])
            share = outlook.held(at.take(rows), action)[np.arange(len(rows)), :, :, slot]
            of_action[rows] = by_intent[rows, :, action]
            of_title[rows] = share[..., None]
        self._belief_M[at.members] = beliefs.after_evidence(
            self._belief_M[at.members], of_action, of_title
        )

    def _say(
        self,
        reader: str,
        outlook: Outlook,
        at: Situation,
        belief: Floats,
        held_out: Ints,
        in_session: int,
    ) -> tuple[Floats, tuple[Floats, ...]]:
        """[N, T] of the next interaction, it being a play, and of whatever it is by `PARTS`.

        A held-out play comes right after its context, and in the same session or not: that the
        readers know. The last thing that a member did may lead on by itself, a title looked at to
        its being played, an episode to the next. Otherwise comes a pick, if there are any more.
        """
        story, count = self._story, len(held_out)
        rows, last = np.arange(count), held_out - 1
        pick = story.pick_X[held_out]
        leads_on = (last >= 0) & (story.member_X[last] == story.member_X[held_out])
        # Between two sessions everything is forgotten.
        in_pick = story.pick_X[last] == pick
        leads_on &= in_pick | (in_session > 0)
        stage = np.where(leads_on, story.stage_X[last], NONE)
        looks = (stage != NONE) & (stage != _PLAY)
        binges = (stage == _PLAY) & story.goes_on_X[last]

        seen = story.stages_PE[story.pick_X[last]]
        weight = self._actions_P[reader][story.pick_X[last]] * _likelihood(seen, stage)
        weight /= np.maximum(weight.sum(1, keepdims=True), np.finfo(float).tiny)
        led = np.where(looks[:, None], np.einsum("na,nal->nl", weight, _NEXT_SAL[stage]), 0.0)
        led[binges, CONTINUE] = self._people.binge_M[at.members[binges]]
        begun = self._actions_P[reader][pick] @ _FIRST_AL
        begun /= begun.sum(1, keepdims=True)
        begun *= 1 - led.sum(1, keepdims=True)
        made = in_session + in_pick
        # An episode that follows by itself is none of the picks that were asked for.
        asked_for = np.where(in_pick, made, self._asked_for_M[at.members])
        begun[leads_on] *= self._more_picks(made, asked_for)[leads_on, None]
        total = (led + begun).sum(1, keepdims=True)
        led, begun = led / total, begun / total

        this = np.zeros((count, len(self._catalogue.title_ids)))
        known = (looks | binges) & (story.title_X[last] != NONE)
        this[rows[known], story.title_X[last][known]] = 1.0
        searched = np.flatnonzero(stage == _SEARCHED)
        this[searched] = outlook.titles(at.take(searched), belief[searched], _IS_SEARCH_A)

        def title(labels: Bools) -> Floats:
            """Of the next interaction, its action type being one of these."""
            new = outlook.titles(at, belief, _FIRST_AL[:, labels].sum(1))
            one: Floats = led[:, labels].sum(1, keepdims=True) * this
            one += begun[:, labels].sum(1, keepdims=True) * new
            one /= one.sum(1, keepdims=True)
            return one

        of_next = title(_IS_SEARCH_A == 0)
        day = story.at_ms_X[held_out] // 86_400_000 - self._catalogue.first_day
        age = np.zeros((count, len(RELEASE_AGES)))
        np.add.at(age, (rows[:, None], self._catalogue.age_DT[day]), of_next)
        kind = of_next @ np.eye(len(KINDS))[self._catalogue.kind_T]
        genre = of_next @ self._catalogue.genres_TG
        return title(_IS_PLAY_A), (led + begun, genre, kind, age)


def _likelihood(stages_NE: Bools, up_to_N: Ints) -> Floats:  # noqa: N803
    """[N, A], of what browsing shows up to and with a stage, by the pick's action."""
    shown = np.where(stages_NE[:, :, None], _STAGES_EA, 1 - _STAGES_EA)
    shown = np.where(np.arange(len(_STAGES))[:, None] <= up_to_N[:, None, None], shown, 1.0)
    likely: Floats = shown.prod(1) * _BROWSES_A
    return likely


def _next_labels(after: int) -> Floats:
    """[A, labels], of the action type of the next interaction of a pick after a stage, if any."""
    labels = np.zeros((len(ACTIONS), len(ACTIONS)))
    left = np.ones(len(ACTIONS))
    for stage in range(after + 1, len(_STAGES)):
        labels[:, _STAGE_ACTIONS[stage]] += left * _STAGES_EA[stage]
        left = left * (1 - _STAGES_EA[stage])
    return labels


_NEXT_SAL: Final = np.stack([_next_labels(stage) for stage in range(len(_STAGES))])
_FIRST_AL: Final = _next_labels(NONE)
_FIRST_AL[~_BROWSES_A] = np.eye(len(ACTIONS))[~_BROWSES_A]


def _main(
    source: Annotated[str, typer.Argument(help="simulator or simulator-null.")] = "simulator",
    results: Annotated[
        Path | None, typer.Option(help="Default: .local/runs/models-<source>.json.")
    ] = None,
) -> None:
    """Put the readers' rows among the results."""
    from fm_intent.data.sources import prepare
    from intentstream.paths import LOCAL

    data_dir, parameters = prepare(source, LOCAL), FROZEN[source]
    sequences = load(data_dir)
    test = sequences.contexts("test", _WINDOW, "served")
    last = sequences.last_contexts(_WINDOW, "served")
    began = time.perf_counter()
    with progress("members", parameters.members) as advance:
        said = answer(parameters, sequences, np.union1d(test.end, last.end), advance)
    for reader, answers in said.items():
        row = {
            "model": reader,
            "dataset": source,
            "split": "leave-one-out",
            "seed": parameters.seed,
            "target_time": True,
            "baseline": False,
            "epochs": 0,
            "seconds": round(time.perf_counter() - began, 1),
            "params": 0,
            "data_sha256": data_sha256(data_dir),
            "command": f"python -m lab.simulator.oracle {source}",
        }
        if reader in _BOUNDS:
            row["bound"] = _BOUNDS[reader]
        judged = judge(answers, sequences, window=_WINDOW, crops="served")
        row = record(results or LOCAL / "runs" / f"models-{source}.json", row, judged)
        typer.echo(json.dumps(row, indent=1))


if __name__ == "__main__":
    typer.run(_main)
