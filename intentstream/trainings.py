"""The command `intentstream train --data`: what it begins with, and the report that it leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import orjson

from fm_intent.ranks import Ranks, ranks
from fm_intent.service_training import Trained, insist, train_service
from fm_intent.training_page import markdown, page
from intentstream.builds import taken_in
from intentstream.paths import LOCAL, MODEL_REPOSITORY
from stream.exceptions import WarmStartError
from stream.plain_text import PlainConsole

PAGE: Final = "report.html"


def run_training(file: Path, *, init: str, refit: bool, device: str) -> None:
    """Train on the data that a `source.yaml` describes, tell how good it is, and export.

    Args:
        file: the description.
        init: number of a version, `live`, or nothing.
        refit: whether what is exported is trained on everything.
        device: of torch.

    Raises:
        DescriptionError, DataUnusableError, UnknownExperimentError: when data or description are
            not to be trained on.
        WarmStartError, NoVersionError: when it can't begin with that version.
        BrokerUnavailableError: when Kafka, which knows the live version, does not answer.
        GateError: when the model isn't good enough; the report is there then, too.
        ExportError: when the version can't be written.
    """
    with ranks(device) as (own, where):
        trained = _train(file, init, refit, where, own)
    if not own.is_first:
        return
    trained.run_dir.mkdir(parents=True, exist_ok=True)
    at = trained.run_dir / PAGE
    at.write_text(page(trained.report))
    at.with_suffix(".md").write_text(markdown(trained.report))
    at.with_suffix(".json").write_bytes(orjson.dumps(trained.report, option=orjson.OPT_INDENT_2))
    console = PlainConsole()
    console.print(markdown(trained.report), markup=False, soft_wrap=True)
    manifest = insist(trained, at)
    folder = MODEL_REPOSITORY / "fm_intent" / str(manifest.version)
    console.print(
        f"version {manifest.version} of fm_intent is exported; {folder}, {at}", soft_wrap=True
    )


def _train(file: Path, init: str, refit: bool, device: str, own: Ranks) -> Trained:
    if own.is_first:
        description, folder = taken_in(file)
    own.wait()
    if not own.is_first:
        description, folder = taken_in(file)
    return train_service(
        folder,
        description,
        MODEL_REPOSITORY,
        LOCAL / "runs",
        init=_version(init),
        refit=refit,
        device=device,
        ranks=own,
    )


def _version(init: str) -> int | None:
    if not init or init.isdecimal():
        return int(init) if init else None
    if init != "live":
        raise WarmStartError(f"--init takes the number of a version, or `live`, not {init!r}")
    from stream.inference.release import read_release
    from stream.settings import settings

    live = asyncio.run(read_release(settings())).live
    if not live:
        raise WarmStartError("no version is live; train without --init, or name one's number")
    return int(live)
