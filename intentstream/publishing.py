"""Releases: making a model version the live one without a gap, and going back to the one before.

A version is validated, loaded beside the live one, compared with it on recent windows, shadowed on
live traffic, and only then made live: by one record, which all workers follow. Whatever goes wrong
before that record leaves everything as it was. The vectors of its titles follow at once.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from features.online.titles import publish_labels
from features.registry.store import check_online
from intentstream.extras import missing_extra
from intentstream.paths import MODEL_REPOSITORY
from intentstream.served_titles import serve_titles, titles_of
from intentstream.served_versions import served_folder, served_models, writing
from intentstream.trial import check_server, compare_recent, shadow_traffic, warm
from intentstream.undoing import erasures_followed, undone_on_failure
from stream.domain.divergence import Drift
from stream.exceptions import IntentstreamError, ReleaseError, TitlesNotServedError
from stream.inference.release import Release, read_release, write_release
from stream.settings import Settings
from stream.steps import step


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


async def publish(
    settings: Settings,
    version: str = "",
    *,
    share: float = 0.0,
    shadow_s: float = 0.0,
    exports: Path = MODEL_REPOSITORY,
    home: Path | None = None,
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
        home: holds all local data, the version's source too; see `fm_intent.data.sources.prepare`.
            None: no titles are served.

    Raises:
        NoVersionError: when there is no such version.
        VersionRefusedError: with the reason. Nothing has changed then, nor after any other error
            but `TitlesNotServedError`.
        SourceError: when the titles of the version's source can't be had.
        StoreError: when the online store can't take titles.
        TitlesNotServedError: when the version is live, and the store failed then.
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

    if home is not None:
        # Now, because a version that is live without its title vectors is half a release.
        check_online(settings)
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
            erasures_followed(settings, asked),
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
                    await check_server(one, exported)
            titles = None
            if home is not None:
                titles = titles_of(int(version), served_folder(settings), home)
            recent = shadow = None
            if kept and kept == live:
                with step("compare recent windows"):
                    recent = await compare_recent(settings, live, version, served.labels_of)
                if share and shadow_s:
                    trial = before.model_copy(
                        update={
                            "live": live,
                            "shadow": version,
                            "shadow_share": share,
                            "labels": served.labels(live, before.previous, version),
                        }
                    )
                    with step(f"shadow {share:.0%} of the profiles for {shadow_s:g} s"):
                        shadow = await shadow_traffic(settings, trial, shadow_s)
                    with step("warm its cache"):
                        await warm(settings, version, served.labels_of)
            if home is not None:
                # Before any row has them, so that whoever reads a row finds what it means.
                await asyncio.to_thread(publish_labels, settings, version, exported.labels)
            now = Release(live=version, previous=kept, labels=served.labels(version, kept))
            await write_release(settings, now)
        served.discard()
        if titles is not None:
            with _followed_by_titles(version):
                await asyncio.to_thread(serve_titles, settings, titles)
    return Publication(now, recent, shadow)


async def rollback(
    settings: Settings, *, exports: Path = MODEL_REPOSITORY, home: Path | None = None
) -> Release:
    """Make the version before the live one live again; the two change places.

    A live version that is nowhere to be had any more has no place to take. Whatever its titles lack
    does not keep a version from being gone back to.

    Args:
        settings: where Kafka and Triton are.
        exports: as for `publish`.
        home: as for `publish`.

    Raises:
        ReleaseError: when there is none to go back to, or a publication runs.
        ModelVersionError: when Triton lost it and can't load it.
        ModelFolderError: when the folder that Triton reads can't be written.
        BrokerUnavailableError: when Kafka does not answer.
        TitlesNotServedError: when the version is live again, without its titles.
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
        now = Release(
            live=before.previous, previous=kept, labels=served.labels(before.previous, kept)
        )
        await write_release(settings, now)
        if home is not None:
            with _followed_by_titles(now.live):
                titles = titles_of(int(now.live), served_folder(settings), home)
                await asyncio.to_thread(serve_titles, settings, titles)
    return now


async def publish_titles_again(
    settings: Settings, home: Path, version: int | None = None, *, exports: Path = MODEL_REPOSITORY
) -> tuple[int, int]:
    """Land and serve the titles of a version, with its vectors; no publication runs meanwhile.

    Args:
        settings: where Kafka, the feature store and Triton's model repository are.
        home: as for `publish`.
        version: number of one that is served or exported; None takes the live one, or the newest
            that was exported where none is live.
        exports: as for `publish`.

    Returns:
        The version, and the number of titles.

    Raises:
        NoVersionError: when there is no such version.
        StoreUnavailableError: when the online store can't be written now.
        ReleaseError: when a publication runs.
        BrokerUnavailableError: when Kafka, which is asked for the live version, does not answer.
    """
    from fm_intent.export import versions

    served = served_folder(settings)
    with alone(settings):
        live = (await read_release(settings)).live
        number = version or int(live or max(versions(exports), default=0))
        models = served if number in versions(served) else exports
        titles = titles_of(number, models, home)
        return number, await asyncio.to_thread(serve_titles, settings, titles)


@contextmanager
def _followed_by_titles(version: str) -> Iterator[None]:
    try:
        with step(f"serve the title vectors of version {version}"):
            yield
    except (IntentstreamError, OSError, ImportError) as error:
        raise TitlesNotServedError(
            f"version {version} is live, but its title vectors are not served: "
            f"{missing_extra(error) or error}. "
            "Run `intentstream titles` then; until that, embedding_match is null"
        ) from error


@contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """Keeps a second publication on this machine out.

    Raises:
        ReleaseError: when one runs.
        ModelFolderError: when the lock can't be written.
    """
    models = served_folder(settings)
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
