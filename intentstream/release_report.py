"""What is told of model versions: which are in service, and how far one is from the one before."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from intentstream.paths import MODEL_REPOSITORY
from intentstream.served_versions import served_models
from stream.domain.heads import INTENTS
from stream.inference.release import Release, read_release
from stream.settings import Settings
from stream.steps import console

if TYPE_CHECKING:
    from intentstream.publishing import Publication


@dataclass(frozen=True, slots=True)
class Version:
    """A version that was exported, is served or is in service.

    Attributes:
        version: its number.
        role: what it is in service as; empty where it isn't.
        serving: how many Tritons serve it.
        manifest: what its export says of it; empty where it isn't on this machine.
    """

    version: str
    role: str
    serving: int
    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Versions:
    """All versions, ascending.

    Attributes:
        versions: they.
        release: which of them are in service.
        tritons: how many Tritons there are.
        places: where versions were looked for.
    """

    versions: list[Version]
    release: Release
    tritons: int
    places: tuple[Path, Path]

    @property
    def remark(self) -> str:
        """What is to be done; empty where the live version is served."""
        live = self.release.live
        if not live:
            return "Nothing is published yet: workers take Triton's default version."
        if any(one.serving for one in self.versions if one.version == live):
            return ""
        return (
            f"Version {live} is live and not served: workers hold their events until it is. Start "
            f"Triton if it is down, else `intentstream model publish {live}`."
        )


async def all_versions(settings: Settings, *, exports: Path = MODEL_REPOSITORY) -> Versions:
    """Every version that was exported, is served or in service, and what it is in service as.

    A folder that isn't on this machine hides no version that is in service.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    release = await read_release(settings)
    roles = {
        settings.model_version: "pinned by INTENT_MODEL_VERSION",
        release.previous: "previous",
        release.shadow: f"shadow of {release.shadow_share:.0%}",
        release.live: "live",
    }
    roles.pop("", None)
    served = served_models(settings, exports)

    def looked_at() -> list[Version]:
        known = served.known()
        return [
            Version(
                version,
                roles.get(version, ""),
                len(served.serving(version)),
                _manifest(known[version]) if version in known else {},
            )
            for version in sorted(known.keys() | roles.keys(), key=lambda one: (len(one), one))
        ]

    versions = await asyncio.to_thread(looked_at)
    return Versions(versions, release, len(settings.triton_urls), served.places)


async def show_releases(settings: Settings, *, exports: Path = MODEL_REPOSITORY) -> None:
    """Print every version that was exported, is served or in service, and what it is in service as.

    Raises:
        BrokerUnavailableError: when Kafka does not answer.
    """
    found = await all_versions(settings, exports=exports)
    table = Table("version", "role", "ready in Triton", "trained on", "at", "NDCG@10")
    for one in found.versions:
        serving = _of_all(one.serving, found.tritons)
        table.add_row(one.version, one.role, serving, *_training(one.manifest))
    console.print(table)
    looked = " and ".join(map(str, found.places))
    console.print(f"Versions are looked for in {looked}.", soft_wrap=True)
    if found.remark:
        console.print(found.remark)


def _of_all(serving: int, tritons: int) -> str:
    """How many Tritons serve a version."""
    return {0: "no", tritons: "yes"}.get(serving, f"{serving} of {tritons}")


def _manifest(folder: Path) -> dict[str, Any]:
    """What a version's export says of it; nothing where it says nothing."""
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    except OSError:
        return {}
    return manifest


def _training(manifest: dict[str, Any]) -> tuple[str, str, str]:
    """What a version was trained on, when, and its NDCG@10; nothing where no manifest is."""
    if not manifest:
        return "", "", ""
    return (
        manifest["source"],
        manifest["trained_at"][:16],
        f"{manifest['metrics'].get('ndcg10', 0):.4f}",
    )


def show_drift(publication: Publication) -> None:
    """Print how far the version is from the one before."""
    table = Table(
        "compared on", "answers", "same next titles", *(f"{head}, bits" for head in INTENTS)
    )
    for name, one in (("recent windows", publication.recent), ("live traffic", publication.shadow)):
        if one is not None:
            heads = (f"{one.heads[head]:.4f}" if head in one.heads else "–" for head in INTENTS)
            table.add_row(name, f"{one.rows:,}", f"{one.overlap:.3f}", *heads)
    if table.rows:
        console.print(table)
