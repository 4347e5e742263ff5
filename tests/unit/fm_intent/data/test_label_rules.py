import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fm_intent.data import contract
from fm_intent.data.description import LabelRules, Labels
from fm_intent.data.label_rules import learn, version_labels
from stream.domain.labels import device_hash

THEIRS = st.sampled_from(["Drama", "Sci-Fi", "Ünïcode"])
OURS = st.sampled_from(["drama", "other", "a", "b", "c"])
NAMES = THEIRS | OURS
COUNTS = st.dictionaries(NAMES, st.integers(1, 50))
RULES = st.builds(
    LabelRules,
    aliases=st.dictionaries(THEIRS, OURS, max_size=3),
    minimum_share=st.floats(0, 1),
    at_most=st.integers(1, 5),
    exclude=st.lists(NAMES, max_size=2),
)


def _label(rules: LabelRules, labels: tuple[str, ...], value: str) -> str | None:
    name = rules.aliases.get(value, value)
    return name if name in labels else "other" if "other" in labels else None


@given(RULES, COUNTS, st.randoms())
def test_labels_are_told_by_counts_alone_whatever_their_order(rules, counts, random) -> None:
    shuffled = list(counts.items())
    random.shuffle(shuffled)
    of = sum(counts.values())
    assert learn(rules, counts, of) == learn(rules, dict(shuffled), of)


@given(RULES, COUNTS)
def test_every_value_that_is_not_excluded_has_a_label(rules, counts) -> None:
    labels = learn(rules, counts, sum(counts.values())).labels
    assert labels
    assert len(set(labels)) == len(labels)
    for value in counts:
        if not {value, rules.aliases.get(value, value)} & set(rules.exclude):
            assert _label(rules, labels, value)


@given(RULES, COUNTS)
def test_a_label_of_its_own_has_its_share_and_others_are_not_more_frequent(rules, counts) -> None:
    of = sum(counts.values())
    learnt = learn(rules, counts, of)
    named: dict[str, int] = {}
    for value, count in counts.items():
        name = rules.aliases.get(value, value)
        if not {value, name} & set(rules.exclude):
            named[name] = named.get(name, 0) + count
    own = [named[label] for label in learnt.labels if label != "other"]
    assert len(own) <= rules.at_most
    assert all(count >= rules.minimum_share * of for count in own)
    for value, count in learnt.folded.items():
        assert named[value] == count
        assert count < rules.minimum_share * of or (len(own) == rules.at_most and count <= min(own))


@given(RULES, COUNTS)
def test_other_is_a_label_where_something_counts_as_that_and_stands_last(rules, counts) -> None:
    learnt = learn(rules, counts, sum(counts.values()))
    others = bool(learnt.folded) or "other" in {
        name
        for value in counts
        if not {value, name := rules.aliases.get(value, value)} & set(rules.exclude)
    }
    assert ("other" in learnt.labels) == (others or learnt.labels == ("other",))
    assert "other" not in learnt.labels[:-1]


def test_labels_that_are_fixed_stand_as_they_are_and_what_else_there_is_is_folded() -> None:
    learnt = learn(LabelRules(fixed=("tv", "other", "radio")), {"tv": 2, "fax": 1}, 3)
    assert learnt.labels == ("tv", "other", "radio")
    assert learnt.folded == {"fax": 1}


def test_an_alias_stands_for_other_where_its_label_has_too_small_a_share() -> None:
    rules = LabelRules(aliases={"Krimi": "crime", "Doku": "documentary"}, minimum_share=0.1)
    learnt = learn(rules, {"Krimi": 50, "crime": 40, "Doku": 5}, 100)
    assert learnt.labels == ("crime", "other")
    assert learnt.aliases == {"Krimi": "crime", "Doku": "other"}


@pytest.mark.parametrize("counts", [{}, {"junk": 5}])
def test_where_nothing_says_anything_there_is_other(counts) -> None:
    assert learn(LabelRules(exclude=("junk",)), counts, 5).labels == ("other",)


def test_a_version_s_labels_come_of_its_catalogue_and_the_devices_of_its_events() -> None:
    catalogue = contract.table(
        contract.CATALOGUE_SCHEMA,
        {
            "title_id": pa.array(["1", "2", "3"]),
            "name": pa.array(["1", "2", "3"]),
            "kind": pa.array(["movie", "live", None]),
            "genres": pa.array([["Krimi", "Nordic"], ["Nordic"], []], pa.list_(pa.string())),
        },
    )
    rules = Labels.model_validate(
        {"devices": {"aliases": {"AppleTV11,1": "tv"}, "minimum_share": 0.05}}
    )
    labels = version_labels(rules, catalogue, {"AppleTV11,1": 60, "web": 30, "fridge": 1})
    assert labels.genres == ("Krimi", "Nordic")
    assert labels.kinds == ("live", "movie")
    assert labels.devices == ("tv", "web", "other")
    hashes = [device_hash(name) for name in ("AppleTV11,1", "fridge", "web")]
    numbers = labels.device_numbers(pa.array(hashes, pa.uint32()).to_numpy())
    assert [labels.devices[one] for one in numbers] == ["tv", "other", "web"]
