"""The model repository that Triton reads: it holds exactly the versions that are served.

So a server that is started again serves them again, and whatever else was exported can't slip in.
"""

from __future__ import annotations

import compileall
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from fm_intent.model_config import configuration
from stream.domain.version_labels import BUILT_IN, VersionLabels
from stream.exceptions import DeploymentError, ModelFolderError, ModelVersionError
from stream.home import HOME
from stream.settings import Settings

_PATIENCE_S: Final = 5.0
_LOADING_S: Final = 300.0
_NOT_THERE: Final = ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")


def served_folder(settings: Settings) -> Path:
    """The model repository that Triton reads."""
    return HOME / settings.triton_models


def served_models(settings: Settings, exports: Path) -> ServedModels:
    """What goes in and out of the model repository that Triton reads."""
    return ServedModels(exports, served_folder(settings), settings.model_name, settings.triton_urls)


class ServedModels:
    """Puts versions of one model into service and takes them out of it.

    Args:
        exports: the model repository that versions are exported into.
        served: the one that Triton reads.
        model: name.
        triton_urls: the gRPC address of each Triton that reads it.
    """

    def __init__(self, exports: Path, served: Path, model: str, triton_urls: Sequence[str]) -> None:
        self._exports = exports / model
        self._served = served / model
        # Beside the repository: Triton takes anything that changes in a model's folder, but for its
        # versions, for a reason to load all of them again.
        self._shelf = served.with_name(f"{served.name}.shelf")
        self._model = model
        self._urls = triton_urls

    def versions(self) -> list[str]:
        """The versions that are served, ascending."""
        return _numbers(self._served)

    def known(self) -> dict[str, Path]:
        """The folders of all versions that were exported, are served or kept aside, ascending."""
        found = {
            version: home / version
            for home in self._homes
            for version in _numbers(home)
            if (home / version / "model.py").exists()
        }
        return dict(sorted(found.items(), key=lambda one: int(one[0])))

    def serve(
        self,
        *versions: str,
        also: Collection[str] = (),
        keep: Collection[str] = (),
        anew: Collection[str] = (),
    ) -> None:
        """Make every Triton serve exactly these, or none; those that it serves go on untouched.

        Args:
            versions: their numbers.
            also: served too, those of them that are still to be had.
            keep: of what isn't served any more, those that are kept aside, so that they can be
                served again whatever becomes of their exports. The others are gone.
            anew: those that are copied from their exports again, where there are any, because
                what Triton doesn't load may be damaged.

        Raises:
            ModelVersionError: when one is absent or can't be loaded everywhere.
            ModelFolderError: when the folder that Triton reads can't be written. After both each
                Triton goes on with what it had.
        """
        known = self.known()
        for version in versions:
            if version not in known:
                raise ModelVersionError(
                    f"version {version} of {self._model} is neither in {self._exports} nor in "
                    f"{self._served}; put its export back, or publish another: `intentstream "
                    "train` makes one, `intentstream model publish` makes it live"
                )
        versions = tuple(dict.fromkeys([*versions, *known.keys() & also]))
        before, aside = self.versions(), _numbers(self._shelf)
        try:
            self._hold(versions, anew)
            for url in self._urls:
                self._load(url, versions)
            if not versions:
                # A server that starts would fail at a model without a version.
                with writing(self._served):
                    shutil.rmtree(self._served)
        except DeploymentError:
            self._hold(before)
            for url in self._urls if before else ():
                # Each tries: what can't be reached reads the repository when it starts.
                with suppress(ModelVersionError):
                    self._load(url, before)
            self.discard(but=aside)
            raise
        self.discard(but=keep)

    def discard(self, *, but: Collection[str] = ()) -> None:
        """Delete what is kept aside, but for these."""
        for path in self._shelf.glob("*"):
            if path.name not in but:
                shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # something is left, or there was no shelf
            self._shelf.rmdir()

    @property
    def places(self) -> tuple[Path, Path]:
        """Where versions are looked for: the exports, and what Triton reads."""
        return self._exports, self._served

    @property
    def _homes(self) -> tuple[Path, ...]:
        return self._shelf, self._served, self._exports

    def labels_of(self, version: str) -> VersionLabels:
        """The labels of a version, wherever it lies.

        Raises:
            LabelsError: when what it carries aren't labels.
        """
        for home in self._homes:
            if (home / version).exists():
                from fm_intent.export import read_version_labels  # with torch

                return read_version_labels(home / version)
        return BUILT_IN

    def labels(self, *versions: str) -> dict[str, VersionLabels]:
        """The labels of those of these versions that have their own, as a release tells them."""
        found = {version: self.labels_of(version) for version in versions if version}
        return {version: labels for version, labels in found.items() if labels != BUILT_IN}

    def is_served(self, version: str) -> bool:
        """Whether each Triton that is there serves it, one is, and will when it is started anew."""
        return version in self.versions() and self.is_ready(version)

    def is_ready(self, version: str) -> bool:
        """Whether a Triton is there, and each that is there serves it."""
        answers = [self._is_ready(url, version) for url in self._urls]
        return any(answers) and False not in answers

    def serving(self, version: str) -> list[str]:
        """The addresses of the Tritons that serve it."""
        return [url for url in self._urls if self._is_ready(url, version)]

    def _is_ready(self, url: str, version: str) -> bool | None:
        """Whether one Triton serves it; None where it isn't there."""
        with InferenceServerClient(url) as client:
            try:
                return bool(client.is_model_ready(self._model, version, client_timeout=_PATIENCE_S))
            except InferenceServerException as error:
                return None if error.status() in _NOT_THERE else False

    def _load(self, url: str, versions: Sequence[str]) -> None:
        """Have one Triton read the repository, which holds these versions."""
        with InferenceServerClient(url) as client:
            try:
                if not versions:
                    client.unload_model(self._model, client_timeout=_LOADING_S)
                    return
                client.load_model(self._model, client_timeout=_LOADING_S)
                for version in versions:
                    if not client.is_model_ready(self._model, version):
                        raise ModelVersionError(
                            f"version {version} of {self._model} is not ready in Triton at {url}; "
                            "see its log"
                        )
            except InferenceServerException as error:
                raise ModelVersionError(
                    f"Triton at {url} can't load version {', '.join(versions)} of {self._model}: "
                    f"{error}; see its log"
                ) from error

    def _hold(self, versions: Iterable[str], anew: Collection[str] = ()) -> None:
        with writing(self._served.parent):
            self._served.mkdir(parents=True, exist_ok=True)
            self._shelf.mkdir(exist_ok=True)
            self._configure()
            for version in anew:
                if (self._exports / version / "model.py").exists():
                    with suppress(FileNotFoundError):
                        shutil.rmtree(self._served / version)
            wanted, held = set(versions), set(self.versions())
            for version in held - wanted:
                # To be put back should the others not load.
                (self._served / version).rename(self._shelf / version)
            for version in wanted - held:
                kept = self._shelf / version
                (kept if kept.exists() else self._copy(version)).rename(self._served / version)

    def _copy(self, version: str) -> Path:
        part = self._shelf / f".{version}"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(self._exports / version, part, ignore=shutil.ignore_patterns("__pycache__"))
        # Python would write these when the version is first loaded, and Triton take the change of
        # the folder for a new version: the next load would replace one that serves.
        compileall.compile_dir(part, ddir=str(self._served / version), quiet=2)
        return part

    def _configure(self) -> None:
        for name, content in configuration(self._exports).items():
            target = self._served / name
            # Touched for nothing, it would make Triton load every version again.
            if not target.exists() or target.read_bytes() != content:
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(content)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Names the folder where it, or what is in it, can't be written.

    Raises:
        ModelFolderError: instead of the system's error.
    """
    try:
        yield
    except OSError as error:
        raise ModelFolderError(folder, error) from error


def _numbers(home: Path) -> list[str]:
    names = (path.name for path in home.glob("[1-9]*"))
    return sorted(filter(str.isdigit, names), key=int)
