"""What a version's numbers mean, and what has none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.domain.heads import HEADS
from stream.domain.labels import DEVICES, GENRES, KINDS, device_hash
from stream.domain.version_labels import BUILT_IN, OTHER, VersionLabels
from stream.exceptions import LabelsError

OWN = VersionLabels(
    genres=("noir", "opera", OTHER),
    kinds=("film", "live"),
    devices=("box", OTHER, "phone"),
    genre_aliases={"Film Noir": "noir"},
    kind_aliases={"event": "live"},
    device_aliases={"Set-Top 9000": "box"},
)
_names = st.text(max_size=8)


def hashes(*names: str) -> np.ndarray:
    return np.array([device_hash(name) for name in names], np.uint32)


def test_versions_without_labels_of_their_own_have_those_of_all() -> None:
    assert (BUILT_IN.genres, BUILT_IN.kinds, BUILT_IN.devices) == (GENRES, KINDS, DEVICES)
    assert [BUILT_IN.of_head(head) for head in HEADS] == [head.labels for head in HEADS]


def test_heads_about_titles_have_the_version_s_labels() -> None:
    found = {head.name: OWN.of_head(head) for head in HEADS}
    assert (found["genre"], found["kind"]) == (OWN.genres, OWN.kinds)


@given(st.lists(_names))
def test_every_genre_has_a_number_where_other_is_one(names: list[str]) -> None:
    numbers = OWN.genre_numbers(["Film Noir", *names])
    assert 0 in numbers
    assert numbers == sorted(set(numbers))
    assert bool(OWN.unknown_genres(names)) <= (2 in numbers)


def test_a_genre_has_no_number_where_other_is_none() -> None:
    assert BUILT_IN.genre_numbers(["drama", "opera"]) == [GENRES.index("drama")]


def test_a_kind_that_is_unknown_has_no_number() -> None:
    assert [OWN.kind_number(kind) for kind in ("film", "event", "clip", None)] == [0, 1, None, None]


def test_devices_are_found_by_their_names_and_by_what_stands_for_them() -> None:
    named = hashes("phone", "Set-Top 9000", "box", "toaster")
    assert OWN.device_numbers(np.append(named, np.uint32(0))).tolist() == [2, 0, 0, 1, 1]


def test_devices_that_the_version_does_not_know_are_counted() -> None:
    assert OWN.unknown_devices(np.append(hashes("toaster", "box"), np.uint32(0))) == 1


def test_labels_are_the_same_after_a_round_trip() -> None:
    again = VersionLabels.of_json(OWN.model_dump_json(), "here")
    assert again == OWN
    assert again.id == OWN.id != BUILT_IN.id


@pytest.mark.parametrize(
    "broken",
    [
        "no json",
        '{"genres": []}',
        '{"genres": ["a", "a"]}',
        '{"devices": ["tv"]}',
        '{"genre_aliases": {"Sci-Fi": "space"}}',
        '{"colours": ["red"]}',
    ],
)
def test_what_are_no_labels_is_refused_by_its_file(broken: str) -> None:
    with pytest.raises(LabelsError, match=r"here/labels\.json"):
        VersionLabels.of_json(broken, "here/labels.json")
