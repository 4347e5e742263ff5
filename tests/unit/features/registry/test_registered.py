"""Readers whose registry another release's `feast apply` has replaced, or that is none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest
from feast import FeatureService, FeatureView

from features import definitions
from features.definitions import profile_intent, ranker_v1
from features.online.writer import IntentWriter
from features.reading.feast_source import FeastSource
from features.reading.reader import IntentReader
from features.reading.rerank import Candidate, Reranker
from features.registry.store import apply, open_store
from stream.exceptions import DefinitionsError
from stream.settings import Settings
from tests.unit.features.samples import SAMPLE, sample
from tests.unit.features.test_sqlite import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NEWER = "title_log_norm"
"""A feature that the release before did not have."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(online_store="sqlite", feature_registry=tmp_path / "registry.db")


def apply_older(settings: Settings) -> None:
    """Do what `feast apply` of the release before does: it knows nothing of a feature."""
    older = FeatureView(
        name=profile_intent.name,
        entities=[definitions.profile],
        schema=[one for one in profile_intent.features if one.name != NEWER],
        source=definitions.intent_features,
        ttl=profile_intent.ttl,
    )
    open_store(settings).apply(
        [
            definitions.profile,
            definitions.intent_features,
            older,
            FeatureService(name=ranker_v1.name, features=[older]),
        ]
    )


def sequence_no(reader: IntentReader) -> int | None:
    (intent,) = reader.read([SAMPLE.profile_id])
    return intent.row.sequence_no if intent.row else None


READERS = [
    lambda settings: IntentReader(settings).read([SAMPLE.profile_id]),
    lambda settings: Reranker(settings).rerank(SAMPLE.profile_id, [Candidate("s1")]),
]


@pytest.mark.parametrize("read", READERS)
def test_a_reader_that_finds_older_definitions_names_the_registry_the_feature_and_the_remedy(
    settings: Settings, read: Callable[[Settings], object]
) -> None:
    write(settings, SAMPLE)
    apply_older(settings)
    with pytest.raises(DefinitionsError, match=f"profile_intent:{NEWER}") as failure:
        read(settings)
    assert str(settings.feature_registry) in str(failure.value)
    assert "features apply" in str(failure.value)


def test_a_reader_says_so_when_its_registry_is_replaced_while_it_reads_and_goes_on_after_it(
    settings: Settings,
) -> None:
    write(settings, SAMPLE)
    reader, reranker = IntentReader(settings), Reranker(settings)
    assert sequence_no(reader) == SAMPLE.sequence_no
    apply_older(settings)
    # Feast does so by itself, after ten minutes at the latest.
    cast(FeastSource, reader._source).store.refresh_registry()
    with pytest.raises(DefinitionsError, match=NEWER):
        reader.read([SAMPLE.profile_id])
    with pytest.raises(DefinitionsError, match=NEWER):
        reranker.rerank(SAMPLE.profile_id, [Candidate("s1")])
    apply(settings)
    cast(FeastSource, reader._source).store.refresh_registry()
    assert sequence_no(reader) == SAMPLE.sequence_no
    assert reranker.rerank(SAMPLE.profile_id, [Candidate("s1")]).profile_id == SAMPLE.profile_id


def test_a_writer_goes_on_by_its_own_definitions_and_the_next_one_registers_them_again(
    settings: Settings,
) -> None:
    async def run() -> None:
        writer = IntentWriter(settings)
        await writer.start()
        apply_older(settings)
        await writer.write([sample(genre="western")])
        await writer.close()
        await writer.start()
        await writer.close()

    asyncio.run(run())
    (intent,) = IntentReader(settings).read([SAMPLE.profile_id])
    assert intent.row is not None
    assert intent.row.labels["genre"] == "western"


def test_a_feature_of_another_type_is_told(settings: Settings) -> None:
    apply(settings)
    other = FeatureView(
        name=profile_intent.name,
        entities=[definitions.profile],
        schema=[
            definitions.Field(name=one.name, dtype=definitions.String)
            for one in profile_intent.features
        ],
        source=definitions.intent_features,
    )
    open_store(settings).apply([other])
    with pytest.raises(DefinitionsError, match="profile_intent:sequence_no"):
        IntentReader(settings)


def test_a_newer_release_that_only_added_a_feature_is_read(settings: Settings) -> None:
    write(settings, SAMPLE)
    newer = FeatureView(
        name=profile_intent.name,
        entities=[definitions.profile],
        schema=[
            *profile_intent.features,
            definitions.Field(name="of_a_release_to_come", dtype=definitions.String),
        ],
        source=definitions.intent_features,
        ttl=profile_intent.ttl,
    )
    service = FeatureService(name=ranker_v1.name, features=[newer])
    open_store(settings).apply([newer, service])
    assert sequence_no(IntentReader(settings)) == SAMPLE.sequence_no


def test_an_empty_registry_says_what_is_missing_and_what_to_do(settings: Settings) -> None:
    for reader in (IntentReader, Reranker):
        with pytest.raises(DefinitionsError, match=r"lacks profile_intent.*features apply"):
            reader(settings)


def test_a_registry_that_is_none_is_named_to_readers_and_to_writers(settings: Settings) -> None:
    assert settings.feature_registry is not None
    settings.feature_registry.write_bytes(b"\x0a\xffno registry")
    for opened in (IntentReader, Reranker, apply):
        with pytest.raises(DefinitionsError, match=r"registry\.db can't be read"):
            opened(settings)


def test_a_registry_that_is_damaged_while_it_is_read_is_named(settings: Settings) -> None:
    write(settings, SAMPLE)
    reader = IntentReader(settings)
    assert settings.feature_registry is not None
    settings.feature_registry.write_bytes(b"\x0a\xffno registry")
    with pytest.raises(DefinitionsError, match=r"registry\.db can't be read"):
        reader.read([SAMPLE.profile_id])


def test_a_registry_whose_folder_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(online_store="sqlite", feature_registry=tmp_path / "file" / "registry.db")
    with pytest.raises(DefinitionsError, match="INTENT_FEATURE_REGISTRY"):
        apply(settings)
