"""Definitions are registered by a process of its own, and only where they aren't yet."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from features import definitions
from features.registry.places import registry_of
from features.registry.registration import Registration, is_noted, note, schema_digest
from features.registry.store import apply, open_store
from stream.exceptions import DefinitionsError
from stream.settings import Settings
from tests.unit.features.registry.test_registered import apply_older

if TYPE_CHECKING:
    from pathlib import Path

PINNED = {
    "58b32507bcd6dfcfeb2e37688532fda863e2b77b79af1ba761ae69c4221da7b0": (
        "f68a7e203bc5734e7aac75fe1d8563ed5df6150143ad0789f83cd4e91ea166c1"
    ),
}
"""By `schema_digest` the digest of all that Feast keeps. Where the schema has changed, write both
anew. Where the definitions alone have, raise `EDITION` of `features.registry.registration` first:
a registry of before would pass for one of this release."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(feature_registry=tmp_path / "data" / "registry.db", offline_dir=tmp_path)


def register(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do as a process that has not imported Feast, and wait for the end."""

    async def run() -> None:
        registration = Registration(settings)
        await registration.start()
        if registration._done:
            assert not registration.is_done
            await asyncio.wait([registration._done])
        registration.insist()
        assert registration.is_done
        await registration.close()

    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "feast")
        asyncio.run(run())


def test_the_mark_of_a_release_tells_its_definitions() -> None:
    assert {schema_digest(): definitions.project.tags["definitions"]} == PINNED


def test_a_registry_is_made_by_another_process_and_is_what_apply_makes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(settings, monkeypatch)
    assert is_noted(registry_of(settings))
    project = open_store(settings).get_project(definitions.project.name)
    assert project.tags == definitions.project.tags


def test_where_it_is_registered_no_process_is_started(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(settings)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    register(settings, monkeypatch)


def test_a_registry_that_another_release_has_written_since_is_not_taken_for_ours(
    settings: Settings,
) -> None:
    apply(settings)
    assert is_noted(registry_of(settings))
    apply_older(settings)
    assert not is_noted(registry_of(settings))
    apply(settings)
    assert is_noted(registry_of(settings))


def test_a_registry_that_is_gone_is_made_again(settings: Settings) -> None:
    apply(settings)
    registry_of(settings).unlink()
    assert not is_noted(registry_of(settings))


def test_a_note_of_another_release_does_not_count(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(settings)
    monkeypatch.setattr("features.registry.registration.EDITION", 0)
    note(registry_of(settings))
    monkeypatch.undo()
    assert not is_noted(registry_of(settings))


def test_a_registry_that_can_not_be_made_is_told_by_its_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    settings = Settings(feature_registry=tmp_path / "file" / "registry.db")
    with pytest.raises(DefinitionsError, match="INTENT_FEATURE_REGISTRY"):
        register(settings, monkeypatch)


def test_a_writer_that_is_closed_early_leaves_a_whole_registry_or_none(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        registration = Registration(settings)
        await registration.start()
        await registration.close()

    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "feast")
        asyncio.run(run())
    assert open_store(settings).list_feature_views() in ([], [*definitions.OBJECTS[7:10]])
