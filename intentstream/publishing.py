"""Publishing a model version without a gap, and going back to the one before.

A version is validated, loaded beside the live one, compared with it on recent windows, shadowed on
live traffic, and only then made live: by one record, which all workers follow. Whatever goes wrong
before that record leaves everything as it was.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
from aiokafka import TopicPartition
from rich.table import Table

from intentstream.paths import MODEL_REPOSITORY, REPOSITORY
from intentstream.served_versions import ServedModels, writing
from stream.domain import topics
from stream.domain.divergence import HEADS, Divergence, Drift, divergence, drift
from stream.domain.events import erased_profile
from stream.domain.labels import hash64
from stream.domain.prediction import Intents, joined
from stream.domain.window import WindowBatch
from stream.exceptions import (
    BadRecordError,
    InferenceError,
    IntentstreamError,
    ReleaseError,
    VersionNotServedError,
)
from stream.inference.client import InferenceClient
from stream.inference.release import Release, read_release, write_release
from stream.inference.shadow import PARTITION
from stream.kafka.connection import running
from stream.kafka.consumer import Consumer
from stream.kafka.lag import LagReader
from stream.kafka.recent import recent_windows
from stream.settings import Settings
from stream.steps import console, step

if TYPE_CHECKING:
    from fm_intent.exported import ExportedVersion

_log = logging.getLogger(__name__)

RECENT: Final = 1_000
"""Profiles on whose windows a version is compared with the live one before any traffic."""

_FAILED_SHARE: Final = 0.01
"""Of a shadow's answers may fail: a busy server misses a deadline now and then."""

_ROWS: Final = 4
"""Windows of a request beside live traffic: a live one may have to wait for the end of it."""

_PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Publication:
    """What came of publishing a version.

    Attributes:
        release: that is in force now.
        recent: drift from the version before, on recent windows; None where there were none, or no
            version before.
        shadow: drift on live traffic; None where none was shadowed.
    """

    release: Release
    recent: Drift | None
    shadow: Drift | None


_REMEDY: Final = (
    "Train and export another; or, where it is meant to differ that much, as after a change of "
    "data, raise INTENT_RELEASE_MAX_DIVERGENCE or lower INTENT_RELEASE_MIN_OVERLAP"
)


async def publish(
    settings: Settings,
    version: str = "",
    *,
    share: float = 0.0,
    shadow_s: float = 0.0,
    exports: Path = MODEL_REPOSITORY,
) -> Publication:
    """Make an exported version the live one, and keep the one before for a rollback.

    One that is live and not served everywhere is served again. A live version that is nowhere to
    be had any more is compared with nothing, and the one before it stays for a rollback.

    Args:
        settings: where Kafka and Triton are, and how far a version may drift.
        version: its number; empty takes the newest.
        share: of the profiles, for which the version answers as a shadow first.
        shadow_s: for how long.
        exports: model repository with the version.

    Raises:
        NoVersionError: when there is no such version.
        VersionRefusedError: with the reason. Nothing has changed then, nor after any other error.
        ModelVersionError: when Triton can't load it.
        ModelFolderError: when the folder that Triton reads can't be written.
        ReleaseError: when it is live and served already, or another publication runs.
        BrokerUnavailableError: when Kafka does not answer.
    """
    # Here, because torch takes seconds to import, and who goes back doesn't need it.
    import torch

    from fm_intent.export import versions
    from fm_intent.validation import validated

    # Beside live servers: more threads would spin for the cores that those need.
    torch.set_num_threads(1)

    served = served_models(settings, exports)
    version = version or str(max(versions(exports), default=0))
    with alone(settings):
        before = await _release_in_force(settings)
        if before.live == version and served.is_served(version):
            raise ReleaseError(f"version {version} is live already; publish another")
        live = before.live or next(reversed(served.versions()), "")
        to_be_had = served.known().keys() - {version}
        kept = next((one for one in (live, before.previous) if one in to_be_had), "")
        with step(f"validate version {version}"):
            exported = validated(exports, int(version))
        asked = [*filter(None, {kept, version})]
        # Until the record names the version, workers don't have it forget whom they erase.
        async with (
            undone_on_failure(settings, before, served),
            _erasures_followed(settings, asked),
        ):
            with step(f"load version {version}"):
                served.serve(
                    *asked,
                    also=[settings.model_version],
                    keep=[*served.versions(), before.previous],
                    anew=() if served.serving(version) else [version],
                )
            with step("ask the server golden requests"):
                for url in settings.triton_urls:
                    one = settings.model_copy(update={"triton_url": url})
                    await _check_server(one, exported)
            recent = shadow = None
            if kept and kept == live:
                with step("compare recent windows"):
                    recent = await _compare_recent(settings, live, version)
                if share and shadow_s:
                    trial = before.model_copy(
                        update={"live": live, "shadow": version, "shadow_share": share}
                    )
                    with step(f"shadow {share:.0%} of the profiles for {shadow_s:g} s"):
                        shadow = await _shadow(settings, trial, shadow_s)
                    with step("warm its cache"):
                        await _warm(settings, version)
            now = Release(live=version, previous=kept)
            await write_release(settings, now)
        served.discard()
    return Publication(now, recent, shadow)


async def rollback(settings: Settings, *, exports: Path = MODEL_REPOSITORY) -> Release:
    """Make the version before the live one live again; the two change places.

    A live version that is nowhere to be had any more has no place to take.

    Raises:
        ReleaseError: when there is none to go back to, or a publication runs.
        ModelVersionError: when Triton lost it and can't load it.
        ModelFolderError: when the folder that Triton reads can't be written.
        BrokerUnavailableError: when Kafka does not answer.
    """
    with alone(settings):
        before = await _release_in_force(settings)
        if not before.previous:
            raise ReleaseError(
                "there is no version to go back to; publish one with `intentstream model publish`"
            )
        served = served_models(settings, exports)
        if not served.is_served(before.previous):
            served.serve(before.previous, also=[before.live, settings.model_version])
        kept = before.live if before.live in served.known() else ""
        now = Release(live=before.previous, previous=kept)
        await write_release(settings, now)
    return now


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


def served_models(settings: Settings, exports: Path) -> ServedModels:
    """The model repository that Triton reads."""
    return ServedModels(
        exports, REPOSITORY / settings.triton_models, settings.model_name, settings.triton_urls
    )


def show_drift(publication: Publication) -> None:
    """Print how far the version is from the one before."""
    table = Table(
        "compared on", "answers", "same next titles", *(f"{head}, bits" for head in HEADS)
    )
    for name, one in (("recent windows", publication.recent), ("live traffic", publication.shadow)):
        if one is not None:
            heads = (f"{one.heads[head]:.4f}" if head in one.heads else "–" for head in HEADS)
            table.add_row(name, f"{one.rows:,}", f"{one.overlap:.3f}", *heads)
    if table.rows:
        console.print(table)


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Keeps a second publication on this machine out.

    Raises:
        ReleaseError: when one runs.
        ModelFolderError: when the lock can't be written.
    """
    models = REPOSITORY / settings.triton_models
    path = models.with_name(f"{models.name}.lock")
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ReleaseError("another publication runs; wait for its end") from None
        yield


async def _release_in_force(settings: Settings) -> Release:
    """The release of now; a shadow that a killed publication left behind is ended."""
    release = await read_release(settings)
    if release.shadow:
        release = release.model_copy(update={"shadow": "", "shadow_share": 0.0})
        await write_release(settings, release)
    return release


@asynccontextmanager
async def undone_on_failure(
    settings: Settings, release: Release, served: ServedModels
) -> AsyncIterator[None]:
    """Puts the release and the served versions back when the block fails or is cancelled.

    What can't be put back is logged: the error that goes on is the block's.

    Args:
        settings: where Kafka is.
        release: that is in force before the block.
        served: what Triton serves; the release's previous version stays at hand.
    """
    versions = served.versions()
    try:
        yield
    except BaseException:
        with _logged("The release that was in force is not put back"):
            if await read_release(settings) != release:
                await write_release(settings, release)
        with _logged("The versions that were served are not put back"):
            if versions or served.versions():
                served.serve(*versions, keep=[release.previous])
        raise


@contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except IntentstreamError as error:
        _log.error("%s: %s", what, error)


@asynccontextmanager
async def _erasures_followed(settings: Settings, versions: Iterable[str]) -> AsyncIterator[None]:
    """Has versions forget, when the block ends, whose erasure wasn't done when it began.

    The block asks them about windows from before an erasure, maybe after the worker has done it.
    """
    topic = settings.topic(topics.PROFILE_ERASURES)
    async with LagReader(settings) as reader:
        # What the worker hasn't acknowledged yet may still be in the changelog.
        since = {
            TopicPartition(topic, one.partition): max(one.committed or 0, one.start)
            for one in await reader.read(settings.consumer_group, [topic])
            if one.topic == topic
        }
    try:
        yield
    except BaseException:
        with _logged("What was erased meanwhile may still be in the model's cache"):
            await _forget_erased(settings, since, versions)
        raise
    await _forget_erased(settings, since, versions)


async def _forget_erased(
    settings: Settings, since: dict[TopicPartition, int], versions: Iterable[str]
) -> None:
    """Have versions forget the profiles that the topic of erasures names from these offsets on."""
    erased: set[int] = set()
    async with running(Consumer, settings, auto_offset_reset="earliest") as consumer:
        for place, end in (await consumer.end_offsets(list(since))).items():
            consumer.assign([place])
            consumer.seek(place, since[place])
            async for record in consumer.until({place: end}):
                with suppress(BadRecordError):  # the worker makes it a dead letter
                    erased.add(hash64(erased_profile(record.key)))
    if not erased:
        return
    async with _patient_client(settings) as client:
        for version in versions:
            with suppress(VersionNotServedError):  # it keeps nothing
                await client.forget(np.array([*erased], np.int64), version)


async def _check_server(settings: Settings, exported: ExportedVersion) -> None:
    """Whether the server answers as the version does where it was validated."""
    from fm_intent.validation import differences, golden_windows, refused, violations

    version, windows = exported.manifest.version, golden_windows(exported)
    try:
        answers = await _ask_gently(settings, windows, str(version))
    except InferenceError as error:
        raise refused(version, [f"the server doesn't answer for it: {error}"]) from error
    problems = [*violations(answers), *differences(exported.answer(windows), answers)]
    if problems:
        raise refused(version, [f"the server's {problem}" for problem in problems])


async def _compare_recent(settings: Settings, live: str, version: str) -> Drift | None:
    """Drift on the windows of recent profiles."""
    # By itself, because a shadow may put the end of the publication off for long.
    async with _erasures_followed(settings, [live, version]):
        windows = await recent_windows(settings, RECENT)
        if not len(windows):
            return None
        answers = [await _ask_gently(settings, windows, one) for one in (live, version)]
    found = drift([divergence(*answers)])
    _judge(settings, version, found, "on recent windows")
    return found


async def _warm(settings: Settings, version: str) -> None:
    """Have the version answer recent windows again: most changed while it was a shadow."""
    windows = await recent_windows(settings, RECENT)
    if len(windows):
        await _ask_gently(settings, windows, version)


async def _ask_gently(settings: Settings, windows: WindowBatch, version: str) -> Intents:
    """A version's answers; live traffic has the server for itself half of the time."""
    parts = []
    async with _patient_client(settings) as client:
        for start in range(0, len(windows), _ROWS):
            began = time.monotonic()
            rows = np.arange(start, min(start + _ROWS, len(windows)))
            parts.append(await client.infer(windows.rows(rows), version))
            await asyncio.sleep(time.monotonic() - began)
    return joined(parts)


def _patient_client(settings: Settings) -> InferenceClient:
    return InferenceClient(settings.model_copy(update={"inference_deadline_s": _PATIENCE_S}))


async def _shadow(settings: Settings, release: Release, shadow_s: float) -> Drift | None:
    """Drift of the release's shadow on live traffic."""
    place = TopicPartition(settings.topic(topics.MODEL_SHADOW), PARTITION)
    seen = _Shadowed(release.shadow)
    async with running(Consumer, settings) as consumer:
        consumer.assign([place])
        await consumer.seek_to_end(place)
        await write_release(settings, release)
        ends = time.monotonic() + shadow_s
        while (left := ends - time.monotonic()) > 0:
            for records in (await consumer.getmany(timeout_ms=int(left * 1000) + 1)).values():
                for record in records:
                    seen.take_in(orjson.loads(record.value))
    found = seen.drift()
    _judge(settings, release.shadow, found, "on live traffic", seen.complaints())
    return found


@dataclass
class _Shadowed:
    """What workers tell of a version's answers as a shadow."""

    version: str
    compared: list[Any] = field(default_factory=list)
    failed: int = 0
    last_error: str = ""

    def take_in(self, told: Any) -> None:
        """Take in a record of the topic, which may be about an earlier shadow."""
        if told.get("version") == self.version:
            self.failed += told["failed"]
            self.last_error = told["error"]
        elif "shadow" in told and told["shadow"]["model_version"] == self.version:
            self.compared.append(told)

    def drift(self) -> Drift | None:
        heads = {
            head: np.array([one["heads"][head] for one in self.compared], np.float64)
            for head in HEADS
        }
        overlap = np.array([one["overlap"] for one in self.compared], np.float64)
        return drift([Divergence(heads, overlap)])

    def complaints(self) -> list[str]:
        asked = self.failed + len(self.compared)
        if self.failed <= _FAILED_SHARE * asked:
            return []
        return [f"{self.failed} of {asked} answers failed, the last by {self.last_error}"]


def _judge(
    settings: Settings,
    version: str,
    found: Drift | None,
    where: str,
    complaints: Iterable[str] = (),
) -> None:
    from fm_intent.validation import refused

    problems = list(complaints)
    if found is not None:
        problems += found.complaints(
            max_divergence=settings.release_max_divergence,
            min_overlap=settings.release_min_overlap,
        )
    if problems:
        raise refused(version, [f"{where}, {problem}" for problem in problems], _REMEDY)
