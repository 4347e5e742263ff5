"""The point-in-time join of the offline store, against what a reader would have been served."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from features.definitions import intent_features, profile_intent, title_profiles
from features.offline.landing import PartitionLanding, Published
from features.online.titles import publish_titles
from features.reading.reader import IntentReader
from features.registry.places import source_folder
from features.registry.store import apply
from features.schema import views
from features.schema.fields import FieldType
from stream.domain.feature_row import Erasure
from stream.exceptions import FeaturesError, NothingLandedError
from stream.settings import Settings
from tests.unit.features.samples import SAMPLE, sample, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from stream.domain.feature_row import IntentRow

START_MS: Final = SAMPLE.last_event_at_ms


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        online_store="sqlite", feature_registry=tmp_path / "registry.db", offline_dir=tmp_path
    )


def at(milliseconds: int) -> datetime:
    """A time so many milliseconds after the sample's event."""
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=START_MS + milliseconds)


def published(event: int, sequence: int, creation: int, **changes: Any) -> IntentRow:
    """A row with its times in milliseconds after the sample's event."""
    return sample(
        last_event_at_ms=START_MS + event,
        sequence_no=sequence,
        published_at_ms=START_MS + creation,
        **changes,
    )


def land(settings: Settings, *rows: IntentRow) -> None:
    landing = PartitionLanding(source_folder(settings, intent_features), "intent-features", 0, 1)
    assert landing.own()
    landing.land([Published(offset, to_json(row)) for offset, row in enumerate(rows)])
    landing.close()


def served(settings: Settings, moments: Sequence[int], feature: str = "sequence_no") -> list[Any]:
    """The feature of the sample's profile at moments, in milliseconds after its event."""
    asked = pd.DataFrame(
        {"profile_id": SAMPLE.profile_id, "event_timestamp": [at(moment) for moment in moments]}
    )
    job = apply(settings).get_historical_features(asked, [f"profile_intent:{feature}"])
    values: list[Any] = job.to_arrow()[feature].to_pylist()
    return values


def test_a_row_is_not_served_before_it_was_published(settings: Settings) -> None:
    land(settings, published(0, 1, 10), published(100, 2, 400))
    assert served(settings, [9, 10, 160, 399, 400]) == [None, 1, 1, 1, 2]


def test_of_two_rows_of_one_event_time_the_later_is_served_from_its_publication_on(
    settings: Settings,
) -> None:
    land(settings, published(0, 1, 10), published(0, 2, 20))
    assert served(settings, [15, 20, 25]) == [1, 2, 2]


def test_a_row_that_the_fence_refused_is_never_served(settings: Settings) -> None:
    land(settings, published(50, 7, 60), published(0, 9, 70), published(50, 6, 80))
    assert served(settings, [65, 75, 85]) == [7, 7, 7]


def test_a_row_scored_again_by_another_model_version_is_served_from_then_on(
    settings: Settings,
) -> None:
    land(settings, published(0, 1, 10), published(0, 1, 20, model_version="5"))
    assert served(settings, [15, 20], "model_version") == [SAMPLE.model_version, "5"]


def test_a_row_of_a_device_whose_clock_is_ahead_is_served_as_soon_as_it_was(
    settings: Settings,
) -> None:
    land(settings, published(1_000, 1, 10))
    assert served(settings, [20]) == [1]


def test_rows_from_before_an_erasure_are_neither_in_history_nor_materialized(
    settings: Settings,
) -> None:
    land(settings, published(0, 1, 10), published(0, 1, 10, profile_id="other"))
    erasure = Erasure(START_MS + 500, START_MS)
    tombstone = Published(2, None, SAMPLE.profile_id.encode(), erasure.to_headers())
    landing = PartitionLanding(source_folder(settings, intent_features), "intent-features", 0, 1)
    assert landing.own()
    landing.land([tombstone])
    store = apply(settings)
    store.materialize(at(-1), at(1), [profile_intent.name])
    read = IntentReader(settings).read([SAMPLE.profile_id, "other"])
    assert [intent.row is not None for intent in read] == [False, True]
    assert served(settings, [20]) == [None]
    landing.land([Published(3, to_json(published(600, 1, 700)))])
    landing.close()
    store.materialize(at(-1), at(601), [profile_intent.name])
    assert IntentReader(settings).read([SAMPLE.profile_id])[0].row is not None
    assert served(settings, [20, 700]) == [None, 1]


def test_a_row_past_the_view_s_time_to_live_is_not_served(settings: Settings) -> None:
    land(settings, published(0, 1, 10))
    days = profile_intent.ttl // timedelta(milliseconds=1)
    assert served(settings, [days, days + 1]) == [1, None]


def test_every_feature_is_served_as_it_was_published(settings: Settings) -> None:
    land(settings, SAMPLE)
    features = [f"profile_intent:{feature.name}" for feature in profile_intent.features]
    asked = pd.DataFrame({"profile_id": [SAMPLE.profile_id], "event_timestamp": [at(1_000)]})
    (row,) = apply(settings).get_historical_features(asked, features).to_arrow().to_pylist()
    for feature in views.profile_intent.features:
        expected = SAMPLE.published()[feature.row_field]
        if feature.type is FieldType.UNIX_TIMESTAMP:
            expected = datetime.fromtimestamp(expected // 1000, UTC)
        elif isinstance(expected, list) and isinstance(expected[0], float):
            expected = pa.array(expected, pa.float32()).to_pylist()
        assert row[feature.name] == expected


_rows = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(0, 12)), max_size=12)


@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=_rows, moments=st.lists(st.integers(-1, 13), min_size=1, max_size=6))
def test_what_is_served_is_what_the_fence_had_let_in(
    places: list[tuple[int, int, int]],
    moments: list[int],
    settings: Settings,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = settings.model_copy(update={"offline_dir": tmp_path_factory.mktemp("offline")})
    rows = [
        published(*place, model_version=str(number))
        for number, place in enumerate(sorted(places, key=lambda place: place[2]))
    ]
    # One more profile, so that there is a file in any case.
    land(home, *rows, published(0, 1, 0, profile_id="p-2"))

    def fenced(moment: int) -> str | None:
        stored: IntentRow | None = None
        for row in rows:
            order = (row.last_event_at_ms, row.sequence_no)
            if row.published_at_ms <= START_MS + moment and (
                stored is None or order >= (stored.last_event_at_ms, stored.sequence_no)
            ):
                stored = row
        return stored.model_version if stored else None

    assert served(home, moments, "model_version") == [fenced(moment) for moment in moments]


CATALOGUE: Final = pa.table(
    {
        "title_id": ["drama", "unknown", "future"],
        "genres": [["drama"], [], ["comedy"]],
        "kind": ["movie", None, "show"],
        "release_day": pa.array([-5_000, None, 30_000], pa.int32()),
    }
)


def publish(settings: Settings, version: str, vector: list[float]) -> None:
    publish_titles(settings, CATALOGUE, {"drama": vector}, version, at(-1_000))


def test_every_candidate_of_a_request_is_answered_in_the_order_asked(settings: Settings) -> None:
    land(settings, published(0, 1, 10))
    publish(settings, SAMPLE.model_version, [1.0, 2.0, 4.0])
    asked = pd.DataFrame(
        {
            "profile_id": [SAMPLE.profile_id] * 4 + ["nobody"],
            "title_id": ["unknown", "drama", "future", "nothing", "drama"],
            "event_timestamp": [at(20)] * 5,
        }
    )
    store = apply(settings)
    service = store.get_feature_service("search_rerank_v1")
    table = store.get_historical_features(asked, service).to_arrow()
    assert table["title_id"].to_pylist() == asked["title_id"].to_list()
    assert table["kind_match"].to_pylist() == [None, 0.25, None, None, None]
    assert table["embedding_match"].to_pylist() == [None, -0.5 - SAMPLE.title_log_norm] + [None] * 3
    assert table["sequence_no"].to_pylist() == [1, 1, 1, 1, None]


def titles(settings: Settings, moment: int, **options: Any) -> list[Any]:
    asked = pd.DataFrame({"title_id": ["drama"], "event_timestamp": [at(moment)]})
    features = ["title_profile:title_kind", "title_profile:title_embedding_version"]
    table = apply(settings).get_historical_features(asked, features, **options).to_arrow()
    return [table[name].to_pylist()[0] for name in ("title_kind", "title_embedding_version")]


def test_a_title_is_dated_by_its_release_and_its_vector_by_the_training(
    settings: Settings,
) -> None:
    publish(settings, "4", [1.0])
    assert titles(settings, -1_001) == ["movie", None]
    assert titles(settings, -1_000) == ["movie", "4"]


def test_of_two_versions_trained_on_the_same_data_the_later_is_taken(settings: Settings) -> None:
    for version in ("10", "9"):
        publish(settings, version, [1.0])
    assert titles(settings, 0) == ["movie", "9"]
    read = apply(settings).get_online_features(
        ["title_profile:title_embedding_version"], {"title_id": ["drama"]}
    )
    assert read.to_dict()["title_embedding_version"] == ["9"]


def test_titles_too_count_from_their_landing_on_where_that_is_asked(settings: Settings) -> None:
    publish(settings, "4", [1.0])
    assert titles(settings, 0, filter_by_created_timestamp=True) == [None, None]


def test_going_back_to_a_version_leaves_the_history_of_what_was_served(settings: Settings) -> None:
    until = {"1": at(-2_000), "2": at(-1_000)}
    moments = []
    for version in ("1", "2", "1"):
        publish_titles(settings, CATALOGUE, {"drama": [1.0]}, version, until[version])
        moments.append(datetime.now(UTC))
    asked = pd.DataFrame({"title_id": "drama", "event_timestamp": moments})
    job = apply(settings).get_historical_features(
        asked, ["title_profile:title_embedding_version"], filter_by_created_timestamp=True
    )
    assert job.to_arrow()["title_embedding_version"].to_pylist() == ["1", "2", "1"]


def test_titles_that_landed_under_a_name_without_a_time_are_read_too(settings: Settings) -> None:
    publish(settings, "4", [1.0])
    (file,) = source_folder(settings, title_profiles).iterdir()
    file.rename(file.with_name("version-4.parquet"))
    publish_titles(settings, CATALOGUE, {"drama": [1.0]}, "5", at(1_000))
    assert titles(settings, 0) == ["movie", "4"]
    assert titles(settings, 1_000) == ["movie", "5"]


def everyone(settings: Settings, *features: str, **options: Any) -> list[tuple[Any, ...]]:
    """What is answered without requests, in the order of its values."""
    table = apply(settings).get_historical_features(None, list(features), **options).to_arrow()
    return sorted(tuple(row.values()) for row in table.to_pylist())


def test_without_requests_every_entity_is_answered_as_it_was_served_at_the_end_date(
    settings: Settings,
) -> None:
    land(
        settings,
        published(0, 1, 10),
        published(0, 1, 10, profile_id="p-2"),
        published(100, 2, 400_000),
        published(0, 1, 400_000, profile_id="p-3"),
    )
    feature, early, late = "profile_intent:sequence_no", at(60_000), at(400_000)
    assert everyone(settings, feature, end_date=early) == [(early, "p-1", 1), (early, "p-2", 1)]
    assert everyone(settings, feature, start_date=early, end_date=late) == [
        (late, "p-1", 2),
        (late, "p-3", 1),
    ]


def test_without_requests_entities_of_several_views_are_combined(settings: Settings) -> None:
    land(settings, published(0, 1, 10), published(0, 1, 10, profile_id="p-2"))
    publish(settings, "4", [1.0])
    end = at(20)
    features = ("profile_intent:sequence_no", "title_profile:title_kind")
    assert everyone(settings, *features, end_date=end) == [
        (end, profile, title, 1, kind)
        for profile in ("p-1", "p-2")
        for title, kind in (("drama", "movie"), ("unknown", None))
    ]


def test_without_requests_and_entities_the_answer_is_empty(settings: Settings) -> None:
    land(settings, published(0, 1, 10))
    assert everyone(settings, "profile_intent:sequence_no", end_date=at(9)) == []


def test_requests_of_another_kind_are_refused_with_what_to_do(settings: Settings) -> None:
    with pytest.raises(FeaturesError, match="Ask with a data frame of pandas"):
        apply(settings).get_historical_features("SELECT 1", ["profile_intent:sequence_no"])


def test_files_of_days_after_the_last_request_are_not_read(settings: Settings) -> None:
    day = 86_400_000
    land(settings, *(published(n * day, n + 1, n * day) for n in range(3)))
    second = sorted(source_folder(settings, intent_features).rglob("*.parquet"))[1]
    second.write_bytes(b"unreadable")
    assert served(settings, [0, 10]) == [1, 1]
    assert served(settings, [-day]) == [None]


def test_what_is_materialized_is_the_newest_by_event_and_sequence(settings: Settings) -> None:
    rows = [published(0, sequence, 100 - sequence) for sequence in range(1, 40)]
    others = [published(0, 1, 10 + n, profile_id=f"p-{n}") for n in range(2, 40)]
    land(settings, *rows, *others)
    store = apply(settings)
    store.materialize(at(-1_000), at(1_000), feature_views=["profile_intent"])
    read = store.get_online_features(
        ["profile_intent:sequence_no"], {"profile_id": [SAMPLE.profile_id, "p-39"]}
    )
    assert read.to_dict()["sequence_no"] == [39, 1]


def test_full_names_have_the_view_in_front(settings: Settings) -> None:
    land(settings, published(0, 1, 10))
    asked = pd.DataFrame({"profile_id": [SAMPLE.profile_id], "event_timestamp": [at(20)]})
    job = apply(settings).get_historical_features(
        asked, ["profile_intent:sequence_no"], full_feature_names=True
    )
    assert job.to_df()["profile_intent__sequence_no"].to_list() == [1]


def test_a_feature_that_older_files_lack_is_null_in_their_rows(settings: Settings) -> None:
    land(settings, published(0, 1, 10))
    (older,) = source_folder(settings, intent_features).rglob("*.parquet")
    pq.write_table(pq.read_table(older, partitioning=None).drop_columns("genre"), older)
    land(settings, published(10, 2, 7_200_000))
    assert served(settings, [20, 7_200_000], "genre") == [None, SAMPLE.labels["genre"]]


@pytest.mark.parametrize("files", ["the newest", "every"])
def test_what_is_materialized_lacks_a_feature_only_where_its_file_does(
    settings: Settings, files: str
) -> None:
    land(settings, published(0, 1, 10, profile_id="old"))
    land(settings, published(10, 2, 7_200_000, profile_id="new"))
    older, newer = sorted(source_folder(settings, intent_features).rglob("*.parquet"))
    for file in [newer] if files == "the newest" else [older, newer]:
        pq.write_table(pq.read_table(file, partitioning=None).drop_columns("genre"), file)
    store = apply(settings)
    store.materialize(at(-1_000), at(8_000_000), feature_views=["profile_intent"])
    read = store.get_online_features(
        ["profile_intent:genre", "profile_intent:sequence_no"], {"profile_id": ["old", "new"]}
    ).to_dict()
    assert read["genre"] == [SAMPLE.labels["genre"] if files == "the newest" else None, None]
    assert read["sequence_no"] == [1, 2]


def test_a_source_without_files_is_an_error_that_says_what_makes_it(
    settings: Settings,
) -> None:
    with pytest.raises(NothingLandedError, match="intentstream sink"):
        served(settings, [0])


def test_an_answer_of_many_portions_is_in_the_order_asked_and_is_persisted_so(
    settings: Settings, tmp_path: Path
) -> None:
    rows = [published(n, n + 1, n, profile_id=f"p-{n}") for n in range(300)]
    land(settings, *rows)
    order = [(n * 7_919) % 300 for n in range(50_000)]
    asked = pd.DataFrame({"profile_id": [f"p-{n}" for n in order], "event_timestamp": at(1_000)})
    requests = tmp_path / "requests.parquet"
    asked.to_parquet(requests)
    expected = [n + 1 for n in order]
    store, features = apply(settings), ["profile_intent:sequence_no", "profile_intent:genre_probs"]
    job = store.get_historical_features(asked, features)
    assert job.to_arrow()["sequence_no"].to_pylist() == expected
    answer = tmp_path / "answer.parquet"
    store.get_historical_features(f"FROM '{requests}'", features).persist(
        SavedDatasetFileStorage(str(answer))
    )
    assert pq.read_table(answer)["sequence_no"].to_pylist() == expected


def test_an_answer_that_could_not_be_persisted_leaves_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    land(settings, published(0, 1, 10))
    asked = pd.DataFrame({"profile_id": [SAMPLE.profile_id], "event_timestamp": [at(20)]})
    job = apply(settings).get_historical_features(asked, ["profile_intent:sequence_no"])
    whole = job.evaluation_function

    def broken() -> Iterator[pa.Table]:
        yield from whole()
        raise OSError("the disk is full")

    job.evaluation_function = broken
    answer = tmp_path / "answers" / "answer.parquet"
    with pytest.raises(OSError, match="full"):
        job.persist(SavedDatasetFileStorage(str(answer)))
    assert list(answer.parent.iterdir()) == []


def test_a_column_that_no_file_has_yet_is_null(settings: Settings) -> None:
    land(settings, published(0, 1, 10))
    (file,) = source_folder(settings, intent_features).glob("date=*/hour=*/*.parquet")
    absent = ["labels_id", "genre_probs"]
    pq.write_table(pq.read_table(file, partitioning=None).drop_columns(absent), file)
    assert [served(settings, [20], name) for name in (*absent, "sequence_no")] == [
        [None],
        [None],
        [1],
    ]
