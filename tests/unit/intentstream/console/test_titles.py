from __future__ import annotations

from intentstream.console.titles import Title, Titles
from stream.domain.labels import hash64

TITLES = Titles(
    {
        "title_id": ["s1", "s2", "s3", "s4", "s5"],
        "name": ["Dark", "Dark Matter of the Heart", "Darkest Hour", "Love", "<b>Love</b>"],
        "kind": ["show", "movie", "movie", None, "movie"],
        "genres": [["thriller", "sci-fi"], ["drama"], ["drama"], ["comedy"], []],
        "release_day": [17_000, 10_957, -3_654, None, 0],
        "duration_s": [3_000.0, None, 7_500.0, 600.0, 1.0],
    }
)


def found(query: str) -> list[str]:
    return [title.title_id for title, _ in TITLES.search(query, 10)]


def test_a_short_name_comes_before_a_long_one_and_a_beginning_last() -> None:
    assert found("dark") == ["s1", "s2", "s3"]


def test_case_and_marks_do_not_count() -> None:
    assert found("  DARK, ") == found("dark")


def test_more_words_that_are_met_count_more() -> None:
    assert found("dark drama")[0] == "s2"


def test_a_genre_finds_titles_too() -> None:
    assert found("sci") == ["s1"]


def test_scores_are_above_0_and_fall() -> None:
    scores = [score for _, score in TITLES.search("dark love", 10)]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0


def test_no_more_are_given_than_asked_for() -> None:
    assert len(TITLES.search("dark love", 2)) == 2


def test_no_word_finds_nothing() -> None:
    assert found("") == found("!?") == found("nothing") == []


def test_a_title_is_known_by_its_id_and_by_its_hash() -> None:
    dark = Title("s1", "Dark", "show", ("thriller", "sci-fi"), 2016, 3_000.0)
    assert TITLES.of_id("s1") == TITLES.of_hash(hash64("s1")) == dark


def test_of_an_unknown_title_the_id_is_all_that_is_known() -> None:
    assert TITLES.of_id("s9") == Title("s9", "s9")
    assert TITLES.of_hash(hash64("s9")) is None


def test_a_release_before_1970_has_its_year() -> None:
    assert TITLES.of_id("s3").year == 1959


def test_durations_are_those_that_are_told() -> None:
    assert TITLES.durations.ms[hash64("s4")] == 600_000
    assert hash64("s2") not in TITLES.durations.ms


def test_a_catalogue_of_ids_and_durations_alone_serves() -> None:
    titles = Titles({"title_id": ["s1"], "duration_s": [60.0]})
    assert titles.of_id("s1") == Title("s1", "s1", duration_s=60.0)
    assert [title.title_id for title, _ in titles.search("s1", 3)] == ["s1"]
