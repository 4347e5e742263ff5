"""What becomes of the served versions when a publication doesn't end well; no Triton is asked."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import TYPE_CHECKING

import pytest

from intentstream.cli.main import main
from intentstream.publishing import alone, publish_titles_again
from intentstream.served_versions import ServedModels
from intentstream.undoing import undone_on_failure
from stream.exceptions import ModelFolderError, ModelVersionError, ReleaseError
from stream.inference.release import Release
from stream.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

AWAY = "127.0.0.1:1"
"""Nothing listens here."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Kafka is away."""
    return Settings(kafka_bootstrap=AWAY, triton_models=tmp_path / "models")


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """Four versions."""
    for version in ("1", "2", "3", "4"):
        folder = tmp_path / "exports" / "fm_intent" / version
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(f"VERSION = {version}")
    return tmp_path / "exports"


def models(exports: Path, *urls: str) -> ServedModels:
    return ServedModels(exports, exports.with_name("models"), "fm_intent", urls)


@pytest.fixture
def served(exports: Path) -> ServedModels:
    """Version 2 is live, 1 is the one before and not among the exports any more."""
    served = models(exports)
    served.serve("1", "2")
    shutil.rmtree(exports / "fm_intent" / "1")
    return served


def refuse(settings: Settings, undone: ServedModels, trial: ServedModels, version: str) -> None:
    """Serve the version beside the live one, and refuse it."""

    async def publication() -> None:
        async with undone_on_failure(settings, Release(live="2", previous="1"), undone):
            trial.serve("2", version, keep=[*trial.versions(), "1"])
            raise ReleaseError("it drifts")

    with pytest.raises(ReleaseError, match="it drifts"):
        asyncio.run(publication())


def test_after_a_refusal_the_version_before_is_served_though_its_export_is_gone(
    settings: Settings, served: ServedModels
) -> None:
    refuse(settings, served, served, "3")
    assert served.versions() == ["1", "2"]


def test_a_release_that_can_t_be_put_back_hides_no_reason_and_is_told(
    settings: Settings, served: ServedModels, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(settings, served, served, "3")
    (told,) = (record.message for record in caplog.records if record.name == "intentstream.undoing")
    assert told.startswith("The release that was in force is not put back: Kafka")


def test_versions_that_can_t_be_put_back_hide_no_reason_and_are_told(
    settings: Settings, exports: Path, served: ServedModels, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(settings, models(exports, AWAY), served, "3")
    told = caplog.records[-1].message
    assert told.startswith("The versions that were served are not put back: Triton")


def test_the_version_before_outlives_a_killed_publication_and_a_refused_one_after_it(
    settings: Settings, exports: Path, served: ServedModels
) -> None:
    served.serve("2", "3", keep=["1"])
    another = models(exports)
    refuse(settings, another, another, "4")
    another.serve("1", "2")
    assert another.versions() == ["1", "2"]


def test_what_is_kept_aside_goes_when_the_publication_is_decided(served: ServedModels) -> None:
    served.serve("2", "3", keep=["1"])
    assert "1" in served.known()
    served.discard()
    assert "1" not in served.known()


def test_nothing_is_kept_aside_unasked(served: ServedModels) -> None:
    served.serve("2", "3")
    assert "1" not in served.known()


def test_a_version_that_could_not_be_loaded_is_copied_anew(
    exports: Path, served: ServedModels
) -> None:
    with pytest.raises(ModelVersionError):
        models(exports, AWAY).serve("2", "3")
    (exports / "fm_intent" / "3" / "model.py").write_text("mended = True")
    served.serve("2", "3")
    copy = exports.with_name("models") / "fm_intent" / "3" / "model.py"
    assert copy.read_text() == "mended = True"


def test_a_damaged_copy_is_made_anew_when_asked(exports: Path, served: ServedModels) -> None:
    copies = exports.with_name("models") / "fm_intent"
    for version in ("1", "2"):
        (copies / version / "model.py").write_text("damaged")
    served.serve("1", "2", anew=["1", "2"])
    # Of version 1 there is no export to take.
    assert [(copies / version / "model.py").read_text() for version in ("1", "2")] == [
        "damaged",
        "VERSION = 2",
    ]


def test_what_is_served_too_is_only_what_is_to_be_had(served: ServedModels) -> None:
    served.serve("2", also=["1", "9", ""])
    assert served.versions() == ["1", "2"]


def test_when_a_version_can_t_be_copied_those_before_go_on(
    exports: Path, served: ServedModels
) -> None:
    (exports / "fm_intent" / "3" / "weights").symlink_to("nowhere")
    with pytest.raises(ModelFolderError, match="weights"):
        served.serve("2", "3")
    assert served.versions() == ["1", "2"]


def test_a_models_folder_that_can_t_be_written_ends_the_command_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    settings = Settings(triton_models=tmp_path / "file" / "models")
    monkeypatch.setattr("stream.settings.settings", lambda: settings)
    monkeypatch.setattr(sys, "argv", ["intentstream", "model", "rollback"])
    with pytest.raises(SystemExit):
        main()
    told = capsys.readouterr().err
    assert told.startswith(f"ModelFolderError: the models in {tmp_path / 'file'} can't be changed")
    assert "INTENT_TRITON_MODELS" in told


def test_titles_are_not_published_while_a_version_is(settings: Settings, tmp_path: Path) -> None:
    with alone(settings), pytest.raises(ReleaseError, match="another publication runs"):
        asyncio.run(publish_titles_again(settings, tmp_path, 1))
