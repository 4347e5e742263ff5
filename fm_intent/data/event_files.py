"""The events of a prepared source on disk, and the digests that name them.

Events lie in `events.parquet`, or in folders `events/day=YYYY-MM-DD`, one a day.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final

from fm_intent.data import contract

EVENTS_FOLDER: Final = "events"
HISTORIES_FOLDER: Final = "histories"

DIGESTS: Final = "digests.json"
"""In the folder of histories: what is known of the events' files."""


def event_days(data_dir: Path) -> dict[str, tuple[Path, ...]]:
    """The files of the events in `data_dir`, by what is joined at once: a day, or the whole.

    Raises:
        DataUnusableError: when there are none.
    """
    found: dict[str, tuple[Path, ...]] = {}
    for day in sorted((data_dir / EVENTS_FOLDER).glob("day=*")):
        if files := tuple(sorted(day.glob("*.parquet"))):
            found[day.name] = files
    if found:
        return found
    whole = data_dir / contract.EVENTS_FILE
    if not whole.exists():
        raise contract.missing(whole)
    return {contract.EVENTS_FILE: (whole,)}


def data_sha256(data_dir: Path) -> str:
    """Digest of a source's catalogue and events, as they are on disk.

    Raises:
        DataUnusableError: when the files are missing.
    """
    catalogue = data_dir / contract.CATALOGUE_FILE
    if not catalogue.exists():
        raise contract.missing(catalogue)
    days = event_days(data_dir)
    digest = hashlib.sha256(catalogue.read_bytes())
    if contract.EVENTS_FILE in days:
        with (data_dir / contract.EVENTS_FILE).open("rb") as file:
            while read := file.read(1 << 20):
                digest.update(read)
    else:
        digest.update(json.dumps(day_digests(data_dir, days)).encode())
    return digest.hexdigest()


def day_digests(data_dir: Path, days: dict[str, tuple[Path, ...]]) -> dict[str, str]:
    """A digest of each day's files. A file is read again only where its size or time changed."""
    kept_in = data_dir / HISTORIES_FOLDER / DIGESTS
    try:
        before = json.loads(kept_in.read_text())
    except (OSError, ValueError):
        before = {}
    now: dict[str, list[Any]] = {}
    for path in (path for files in days.values() for path in files):
        stat = path.stat()
        name, state = str(path.relative_to(data_dir)), [stat.st_size, stat.st_mtime_ns]
        known = before.get(name, [])
        now[name] = known if known[:2] == state else [*state, _sha256(path)]
    if now != before:
        kept_in.parent.mkdir(exist_ok=True)
        part = kept_in.with_name(f".{DIGESTS}.{os.getpid()}")
        part.write_text(json.dumps(now))
        part.replace(kept_in)
    return {
        day: hashlib.sha256(
            "".join(now[str(path.relative_to(data_dir))][2] for path in files).encode()
        ).hexdigest()
        for day, files in days.items()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
