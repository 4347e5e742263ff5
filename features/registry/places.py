"""Where the registry and the files of history are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from stream.home import HOME

if TYPE_CHECKING:
    from pathlib import Path

    from stream.settings import Settings

REPOSITORY: Final = HOME / "features"
"""Where `feast` runs: the folder of a checkout, or what `intentstream features init` wrote."""


class HasPath(Protocol):
    """A batch source, of ours or of Feast's."""

    @property
    def path(self) -> str:
        """Its folder within that of the offline store."""


def registry_of(settings: Settings) -> Path:
    """The registry's file."""
    registry = settings.feature_registry or REPOSITORY / "data" / "registry.db"
    return registry.absolute()


def offline_dir(settings: Settings) -> Path:
    """The folder that batch sources are relative to."""
    return settings.offline_dir or REPOSITORY


def source_folder(settings: Settings, source: HasPath) -> Path:
    """The folder with the Parquet files of a batch source."""
    return offline_dir(settings) / source.path
