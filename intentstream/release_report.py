"""What is told of model versions: which are in service, and how far one is from the one before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from intentstream.paths import MODEL_REPOSITORY
from intentstream.served_versions import served_models
from stream.domain.heads import INTENTS
from stream.inference.release import read_release
from stream.settings import Settings
from stream.steps import console

if TYPE_CHECKING:
    from intentstream.publishing import Publication


async def show_releases(settings: Settings, *, exports: Path = MODEL_REPOSITORY) -> None:
    """Print every version that was exported, is served or in service, and what it is in service as.

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
    known = served.known()
    table = Table("version", "role", "ready in Triton", "trained on", "at", "NDCG@10")
    for version in sorted(known.keys() | roles.keys(), key=lambda one: (len(one), one)):
        serving = len(served.serving(version))
        table.add_row(
            version,
            roles.get(version, ""),
            _of_all(serving, len(settings.triton_urls)),
            *(_training(known[version]) if version in known else ()),
        )
    console.print(table)
    looked = " and ".join(map(str, served.places))
    console.print(f"Versions are looked for in {looked}.", soft_wrap=True)
    if not release.live:
        console.print("Nothing is published yet: workers take Triton's default version.")
    elif not served.serving(release.live):
        console.print(
            f"Version {release.live} is live and not served: workers hold their events until it "
            f"is. Start Triton if it is down, else `intentstream model publish {release.live}`."
        )


def _of_all(serving: int, tritons: int) -> str:
    """How many Tritons serve a version."""
    return {0: "no", tritons: "yes"}.get(serving, f"{serving} of {tritons}")


def _training(folder: Path) -> tuple[str, str, str]:
    """What a version was trained on, when, and its NDCG@10; nothing where no manifest is."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except OSError:
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
