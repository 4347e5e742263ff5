"""A registry file for Feast that is always whole, whoever reads it while it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from feast.infra.registry.file import FileRegistryStore
from feast.infra.registry.registry import REGISTRY_SCHEMA_VERSION
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.repo_config import RegistryConfig
from google.protobuf.message import DecodeError

from stream.exceptions import DefinitionsError

if TYPE_CHECKING:
    from pathlib import Path


class WholeFileRegistryStore(FileRegistryStore):  # type: ignore[misc]
    """Feast's registry file, replaced in one step and made by nobody but who registers something.

    Feast's own empties the file before it writes it, and creates an empty one for a mere reader.
    Stores look into a file as soon as it changes: they would find nothing or half of it.
    """

    _filepath: Path

    def get_registry_proto(self) -> Registry:
        """What the file holds; nothing where there is no file yet.

        Raises:
            DefinitionsError: when the file can't be read.
        """
        if not self._filepath.exists():
            return Registry(registry_schema_version=REGISTRY_SCHEMA_VERSION)
        try:
            registry: Registry = super().get_registry_proto()
        except (OSError, DecodeError) as error:
            raise DefinitionsError(
                f"The registry {self._filepath} can't be read ({type(error).__name__}: {error}). "
                "Check its rights; one that is damaged can be moved away: `intentstream features "
                "apply`, or a worker that starts, makes it anew."
            ) from error
        return registry

    def _write_registry(self, registry_proto: Registry) -> None:
        part = self._filepath.with_name(f"{self._filepath.name}.{uuid4().hex}.part")
        aside = FileRegistryStore(RegistryConfig(path=str(part)), part.parent)
        aside.update_registry_proto(registry_proto)
        part.replace(self._filepath)
