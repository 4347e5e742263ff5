"""Model versions in a Triton model repository: write, find, read."""

from __future__ import annotations

import errno
import importlib
import json
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from fm_intent.model_config import MODEL, TOP, configuration
from fm_intent.served import network
from fm_intent.served.compiled import CompileError, built
from fm_intent.served.network import FMIntent, Interactions
from stream.domain.catalogue import CATALOGUE_FILE
from stream.domain.heads import HEADS
from stream.domain.intent_map import CENTRES_FILE, MAP_FILE, IntentMap
from stream.domain.version_labels import BUILT_IN, LABELS_FILE, VersionLabels
from stream.exceptions import ExportError, NoVersionError

MODEL_FILE: Final = "model.pt"
MANIFEST_FILE: Final = "manifest.json"
DESCRIPTION_FILE: Final = "source.yaml"

_TOLERANCE: Final = 1e-4
_WIDTH: Final = r'name: "(\w+)"[^{}]*?dims: \[ (-?\d+) \]'
_HEADS_WITH_OWN_LABELS: Final = {head.probs: head for head in HEADS if head.own_labels}


@dataclass(frozen=True)
class Manifest:
    """What a model version is and how good.

    Attributes:
        version: its number in the repository.
        source: the data it was trained on.
        trained_at: ISO 8601, UTC.
        experiment: name in `fm_intent.experiments.EXPERIMENTS`.
        seed: of the training.
        epochs: begun.
        seconds: of training and validation.
        params: numbers that training set.
        window: interactions of a window at most.
        titles: V, those that are scored.
        trained_intents: names of the intents that are predicted.
        data_sha256: digest of the source's files.
        metrics: `hr10`, `ndcg10`, `mrr`, `recall100`, the same of popularity with the prefix
            `popularity_`, all on the test part, and `validation_ndcg10`.
        report: all that evaluation said.
        config: the experiment's settings.
        trained_until_ms: time of the source's last event, Unix milliseconds; 0 where a version of
            before doesn't tell it.
        refitted: whether it was trained on everything, and its figures are those of the same
            training without the newest.
        served_by: the pass that serves it, `compiled` or `recorded`; empty in a version of before.
        why_recorded: why it isn't the compiled one.
    """

    version: int
    source: str
    trained_at: str
    experiment: str
    seed: int
    epochs: int
    seconds: float
    params: int
    window: int
    titles: int
    trained_intents: list[str]
    data_sha256: str
    metrics: dict[str, float]
    report: dict[str, Any]
    config: dict[str, Any]
    trained_until_ms: int = 0
    refitted: bool = False
    served_by: str = ""
    why_recorded: str = ""


@dataclass(frozen=True, slots=True)
class Carried:
    """What a version has with it of its source."""

    catalogue: pa.Table
    """Its titles, of `fm_intent.data.contract.CATALOGUE_SCHEMA`."""

    labels: VersionLabels
    description: bytes | None = None
    """The `source.yaml` that it was trained by, where there is one."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """A version's clusters of intent embeddings."""

    centres_KD: Tensor
    """Float32."""

    map: IntentMap


def versions(model_repo: Path) -> list[int]:
    """Numbers of the versions in a repository, ascending."""
    return sorted(
        int(path.name) for path in (model_repo / MODEL).glob("[1-9]*") if path.name.isdigit()
    )


def read_manifest(model_repo: Path, version: int) -> Manifest:
    """The manifest of a version.

    Raises:
        NoVersionError: when there is no such version.
    """
    path = model_repo / MODEL / str(version) / MANIFEST_FILE
    if not path.exists():
        raise NoVersionError(
            f"{model_repo} has versions {versions(model_repo) or 'none'} of {MODEL}, not "
            f"{version}; train one with `intentstream train`"
        )
    return Manifest(**json.loads(path.read_text()))


def read_version_labels(folder: Path) -> VersionLabels:
    """The labels in a version's folder: its own, or those of all that carry none.

    Raises:
        LabelsError: when what it carries aren't labels.
    """
    path = folder / LABELS_FILE
    return VersionLabels.of_json(path.read_bytes(), str(path)) if path.exists() else BUILT_IN


def newest(model_repo: Path, source: str) -> Manifest | None:
    """The manifest of the newest version that was trained on `source`, if there is one."""
    for version in reversed(versions(model_repo)):
        manifest = read_manifest(model_repo, version)
        if manifest.source == source:
            return manifest
    return None


def export(
    model: FMIntent,
    manifest: Manifest,
    golden: Interactions,
    model_repo: Path,
    clusters: Clusters | None = None,
    carried: Carried | None = None,
) -> Manifest:
    """Write `model` as the next version, complete or not at all.

    The folder carries its own copy of all of `fm_intent.served`: the network, the cache and the
    server's code, and the compiled pass where there is a compiler. It is read back by that copy and
    must answer as `model` does, with the cache and without, before it takes its place. Where the
    compiled pass answers otherwise, or can't serve the network, the recorded one is to serve. A
    repository without Triton's configuration gets ours.

    Args:
        model: in evaluation mode.
        manifest: of the model; its version and the pass that serves it are set here.
        golden: windows to compare answers on.
        model_repo: Triton model repository.
        clusters: of intent embeddings; None: the version has none.
        carried: the source's titles and labels; None: the version has the labels of all that bring
            none, and its titles are to be had of its source.

    Returns:
        The manifest as written.

    Raises:
        ExportError: when the copy answers otherwise, or the version can't be written.
    """
    home = model_repo / MODEL
    home.mkdir(parents=True, exist_ok=True)
    # Beside its final place, so that a rename is enough; Triton takes no such name for a version.
    part = Path(tempfile.mkdtemp(prefix=".export-", dir=home))
    try:
        part.chmod(0o755)
        _check_widths(home, carried.labels if carried else BUILT_IN)
        _carry_code(part)
        with suppress(CompileError, OSError):  # the comparison tells that there is none
            shutil.copy2(built(), part)
        if carried is not None:
            pq.write_table(carried.catalogue, part / CATALOGUE_FILE, compression="zstd")
            (part / LABELS_FILE).write_text(carried.labels.model_dump_json(indent=1))
            if carried.description is not None:
                (part / DESCRIPTION_FILE).write_bytes(carried.description)
        network.save(model, part / MODEL_FILE)
        if clusters is not None:
            torch.save(clusters.centres_KD, part / CENTRES_FILE)
            (part / MAP_FILE).write_text(clusters.map.model_dump_json())
        why_recorded = _compare(model, part, golden)
        served_by = "recorded" if why_recorded else "compiled"
        for name, content in configuration(home).items():
            if not (home / name).exists():
                (home / name).parent.mkdir(exist_ok=True)
                (home / name).write_bytes(content)
        while True:
            version = max(versions(model_repo), default=0) + 1
            numbered = replace(
                manifest, version=version, served_by=served_by, why_recorded=why_recorded
            )
            (part / MANIFEST_FILE).write_text(json.dumps(asdict(numbered), indent=1))
            try:
                part.rename(home / str(version))
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    continue  # another export took the number
                raise
            return numbered
    except OSError as error:
        raise ExportError(f"can't write a version into {home}: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_widths(home: Path, labels: VersionLabels) -> None:
    """Whether the configuration that is there lets the version have its own labels."""
    for path in sorted(home.rglob("*.pbtxt")):
        for name, width in re.findall(_WIDTH, path.read_text()):
            head = _HEADS_WITH_OWN_LABELS.get(name)
            if head and int(width) not in (-1, len(labels.of_head(head))):
                raise ExportError(
                    f"{path} has {width} {name}, but the version has "
                    f"{len(labels.of_head(head))}; write `dims: [ -1 ]` there, or delete the file "
                    "and have it written anew"
                )


def _carry_code(folder: Path) -> None:
    # Contents alone: a checkout's modes may be for its owner, and Triton is somebody else.
    with as_file(files("fm_intent.served")) as code:
        for path in code.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                copy = folder / path.relative_to(code)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())


def carried_code(folder: Path) -> tuple[ModuleType, ModuleType]:
    """The modules `network` and `cache` of a version's folder, apart from those of this package."""
    package = ModuleType("exported_version")
    package.__path__ = [str(folder)]
    sys.modules[package.__name__] = package
    # Triton takes a folder that changes for a new version.
    writes_none, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        network_copy = importlib.import_module(f"{package.__name__}.network")
        cache_copy = importlib.import_module(f"{package.__name__}.cache")
    finally:
        sys.dont_write_bytecode = writes_none
        for name in [name for name in sys.modules if name.startswith(package.__name__)]:
            del sys.modules[name]
    return network_copy, cache_copy


def _compare(model: FMIntent, folder: Path, golden: Interactions) -> str:
    """Why the copy isn't to be served by the compiled pass; nothing where it is.

    Raises:
        ExportError: when it answers otherwise by the recorded pass, too.
    """
    copy, cache = carried_code(folder)
    exported = copy.load(folder / MODEL_FILE)
    rows, window = golden.title_BL.shape
    profiles = torch.arange(rows)
    with torch.inference_mode():
        wanted = model.answer(golden.to(model.hash_T.device), model.titles(), TOP)
        given = {"without its cache": exported.answer(golden, exported.titles(), TOP)}
        room = rows * cache.profile_bytes(exported, window, "recorded")
        recorded, compiled = (
            cache.Cache(exported, TOP, window, room, name) for name in ("recorded", "compiled")
        )
        for how in ("with an empty cache", "with a full cache"):
            given[how] = recorded.answer(profiles, golden)
        for how, answer in given.items():
            if off := _off(wanted, answer):
                raise ExportError(f"the exported copy's {off} {how}; no version was written")
        if compiled.why_recorded:
            return str(compiled.why_recorded)
        for how in ("with an empty cache", "with a full cache"):
            if off := _off(wanted, compiled.answer(profiles, golden)):
                return f"the compiled pass's {off} {how}"
    return ""


def _off(wanted: network.Answer, given: network.Answer) -> str:
    """What of an answer is off by how much; nothing where nothing is."""
    # Not by the titles' hashes: those whose scores are equal but for rounding may change places.
    for name in ("attention_BM", "intent_BD", "next_title_score", "title_log_norm_B1", "user_BD"):
        expected, found = getattr(wanted, name).cpu(), getattr(given, name)
        if not torch.allclose(expected, found, atol=_TOLERANCE, rtol=_TOLERANCE):
            return f"{name} is off by {(expected - found).abs().max().item()}"
    return ""
