"""Whether an exported version may be served: what it must be, whatever it was trained on."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from fm_intent.export import read_manifest
from fm_intent.exported import ExportedVersion
from fm_intent.model_config import MODEL, WIDTHS
from fm_intent.served.network import FIRST_ROW
from stream.domain.heads import HEADS
from stream.domain.labels import ACTIONS, device_hash, hash64
from stream.domain.prediction import Intents
from stream.domain.window import WindowBatch
from stream.exceptions import VersionRefusedError

TOLERANCE: Final = 1e-4
"""Largest distance of cached answers from uncached ones, and of a server's from ours."""

_CODE: Final = ("cache.py", "model.py", "network.py")
"""What Triton and we import of a version; it may have more."""

_IMPORTED: Final = {"torch", "numpy", "triton_python_backend_utils", *sys.stdlib_module_names}
_GOLDEN_ROWS: Final = 12
_MINUTE_MS: Final = 60_000
_START_MS: Final = 1_700_000_000_000


def validated(model_repo: Path, version: int) -> ExportedVersion:
    """The version, once it has shown that it may be served.

    Its folder holds all that its code imports; it answers golden requests in the shapes of the
    contract, with finite numbers, distributions that sum to 1 and next titles best first; and it
    answers from a cache, whatever that holds, as it does without.

    Raises:
        NoVersionError: when there is no such version.
        VersionRefusedError: with all that is wrong with it.
    """
    problems = list(_foreign_imports(model_repo / MODEL / str(version)))
    named = read_manifest(model_repo, version).version
    if named != version:
        problems.append(f"its manifest is that of version {named}")
    if not problems:
        try:
            exported = ExportedVersion(model_repo, version)
            problems = list(_misanswered(exported))
        except Exception as error:
            raise refused(version, [f"it can't be run: {type(error).__name__}: {error}"]) from error
    if problems:
        raise refused(version, problems)
    return exported


def refused(
    version: int | str, problems: Iterable[str], remedy: str = "Train and export another"
) -> VersionRefusedError:
    """The error that says so, and what to do."""
    return VersionRefusedError(
        f"version {version} is not published: {'; '.join(problems)}. {remedy}"
    )


def golden_windows(exported: ExportedVersion) -> WindowBatch:
    """Windows of the version's own titles, the same for each version that has the same titles.

    Short and full ones, with all that a request may hold: titles that nobody knows, none at all,
    shares that aren't numbers, interactions at one time.
    """
    rng = np.random.default_rng(0)
    window = exported.manifest.window
    shape = (_GOLDEN_ROWS, window)
    model = exported.model
    known = model.hash_T[FIRST_ROW : FIRST_ROW + model.domain.vocabulary].numpy()
    titles = rng.choice(np.concatenate([known, [0, hash64("released tomorrow")]]), shape)
    length = rng.integers(1, window + 1, (_GOLDEN_ROWS, 1))
    length[:3] = [[1], [2], [window]]
    share = rng.random(shape, np.float32)
    share[rng.random(shape) < 0.3] = -1
    share[rng.random(shape) < 0.1] = np.nan
    devices = np.array([0, *map(device_hash, exported.labels.devices)], np.uint32)
    gaps_min = rng.choice([0, 1, 30, 24 * 60, 30 * 24 * 60], shape)
    return WindowBatch(
        title_hash=titles,
        action=rng.integers(0, len(ACTIONS), shape, np.int32),
        start_ms=_START_MS + gaps_min.cumsum(1) * _MINUTE_MS,
        watched_share=share,
        device=devices[rng.integers(0, len(devices), shape)],
        length=length.astype(np.int32),
        profile_hash=rng.integers(1, 1 << 62, (_GOLDEN_ROWS, 1)),
        sequence_no=np.ones((_GOLDEN_ROWS, 1), np.int64),
    )


def violations(answers: Intents) -> Iterator[str]:
    """Breaches of the contract in `model_repo/README.md`, in words."""
    rows = len(answers.user_embedding)
    tensors = answers.tensors()
    for name, found in tensors.items():
        width = WIDTHS.get(name, found.shape[-1])
        if found.shape != (rows, width):
            yield f"{name} has shape {list(found.shape)}, not {[rows, width]}"
        if not np.isfinite(found).all():
            yield f"{name} holds something that is not a number"
    for name in (*(head.probs for head in HEADS), "intent_attention"):
        found = tensors[name]
        predicted = found.any()
        if (found < 0).any() or (predicted and abs(found.sum(1) - 1).max() > TOLERANCE):
            yield f"{name} does not sum to 1"
    score, title = answers.next_title_score, answers.next_title_hash
    if (
        (np.diff(score, axis=1) > 0).any()
        or (score < 0).any()
        or (score.sum(1) > 1 + TOLERANCE).any()
    ):
        yield "next_title_score is not a descending part of a distribution"
    if any(len(np.unique(row[row != 0])) < (row != 0).sum() for row in title):
        yield "next_title_hash names a title twice"


def differences(wanted: Intents, found: Intents) -> Iterator[str]:
    """Outputs in which `found` differs from `wanted` beyond rounding.

    Not next titles, of which those whose scores are equal but for rounding may change places, and
    not clusters, which may be as near.
    """
    others = found.tensors()
    for name, one in wanted.tensors().items():
        other = others[name]
        if one.dtype == np.float32 and not np.allclose(one, other, TOLERANCE, TOLERANCE):
            yield f"{name} is off by {abs(one - other).max():.2g}"


def _misanswered(exported: ExportedVersion) -> Iterator[str]:
    windows = golden_windows(exported)
    whole = exported.answer(windows)
    if found := list(violations(whole)):
        yield from found
        return
    cache = exported.cache(len(windows))
    shorter = replace(windows, length=np.maximum(windows.length // 2, 1))
    changed = replace(windows, device=np.roll(windows.device, 1, axis=1))
    for held, before in {"another": changed, "half of the": shorter, "the": windows}.items():
        exported.answer(before, cache)
        for difference in differences(whole, exported.answer(windows, cache)):
            yield f"with a cache that held {held} window, {difference}"


def _foreign_imports(folder: Path) -> Iterator[str]:
    """Imports of the version's code that neither its folder nor every server has."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
    for name in sorted(found.union(_CODE)):
        try:
            tree = ast.parse((folder / name).read_bytes())
        except (OSError, SyntaxError) as error:
            yield f"{name}: {error}"
            continue
        for node in ast.walk(tree):
            for module in _modules(node):
                if module.startswith("."):
                    if not _is_there(folder / name, module):
                        yield f"{name} imports {module}, which the version lacks"
                elif module.partition(".")[0] not in _IMPORTED:
                    yield f"{name} imports {module}, which no server has"


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    if isinstance(node, ast.ImportFrom):
        named = [node.module] if node.module else [one.name for one in node.names]
        return [f"{'.' * node.level}{name}" for name in named]
    return []


def _is_there(file: Path, module: str) -> bool:
    """Whether a module that a file names by dots lies where it says."""
    name = module.lstrip(".")
    package = file.parents[len(module) - len(name) - 1]
    place = package.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()
