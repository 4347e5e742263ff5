"""The samples of this folder, read."""

from __future__ import annotations

import base64
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from stream.domain.labels import DEVICES, device_hash
from stream.domain.window import WindowBatch

_HOME = Path(__file__).parent


def changelog() -> list[Any]:
    """The records of the changelog as a consumer gives them, in order."""
    lines = (_HOME / "changelog.jsonl").read_text().splitlines()
    return [
        SimpleNamespace(
            topic="sessions",
            partition=record["partition"],
            offset=record["offset"],
            key=record["key"].encode(),
            value=record["value"] and base64.b64decode(record["value"]),
            timestamp=record["timestamp_ms"],
        )
        for record in map(json.loads, lines)
    ]


def states() -> dict[bytes, dict[str, Any]]:
    """What stood in each profile's state after the changelog."""
    told: dict[str, dict[str, Any]] = json.loads((_HOME / "states.json").read_text())
    return {profile_id.encode(): state for profile_id, state in told.items()}


def unpack_version(model_repo: Path) -> int:
    """Put the exported version into a model repository; its number there."""
    home = model_repo / "fm_intent"
    number = max((int(one.name) for one in home.glob("[0-9]*")), default=0) + 1
    with tarfile.open(_HOME / "version.tar.gz") as archive:
        archive.extractall(home, filter="data")  # as version 1
    if number > 1:
        (home / "1").rename(home / str(number))
    return number


def windows() -> WindowBatch:
    """The windows that the version was asked about."""
    arrays = _arrays("window.")
    # Windows named devices by their numbers then.
    devices = np.array([device_hash(name) for name in DEVICES], np.uint32)
    return WindowBatch(**arrays | {"device": devices[arrays["device"]]})


def answers() -> dict[str, np.ndarray[Any, Any]]:
    """What the version answered to `windows`, by output; it was asked without its clusters."""
    return _arrays("answer.")


def _arrays(prefix: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(_HOME / "answers.npz") as kept:
        return {name.removeprefix(prefix): kept[name] for name in kept if name.startswith(prefix)}
