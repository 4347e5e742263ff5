"""Intent rows as they would have been published from T1 on, and what readers would have seen.

The model is trained on a copy of the source that ends at T1, and served by a real Triton. Events go
the worker's own way: decoded, joined into states, sent as windows, turned into rows. The rows land
in the offline store's layout, and Feast joins them to requests at their point in time.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from multiprocessing import get_context
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features import definitions
from features.offline.landing import landed
from features.online.titles import title_rows
from features.registry.places import source_folder
from features.registry.store import apply
from fm_intent.data.contract import CATALOGUE_FILE, EVENTS_FILE
from fm_intent.data.event_files import data_sha256
from fm_intent.export import MODEL_FILE, Manifest, newest
from fm_intent.model_config import MODEL
from fm_intent.train import train
from lab.replay.plan import json_values, topic_of
from stream.domain.batch_states import BatchStates
from stream.domain.event_types import STATELESS
from stream.domain.events import decode
from stream.domain.profile_state import Outcome, ProfileState
from stream.domain.row_building import intent_rows
from stream.domain.rules import Rules
from stream.domain.sessions import live_sessions
from stream.domain.topics import BROWSE_EVENTS, PLAYBACK_EVENTS
from stream.domain.window import windows_of
from stream.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from feast import FeatureView, FileSource
    from numpy.typing import NDArray

    from lab.bench.downstream.requests import Requests
    from stream.domain.catalogue import Catalogue
    from stream.domain.feature_row import IntentRow
    from stream.inference.client import InferenceClient

PUBLISH_MS: Final = 500
"""From an event to its row being readable: several times what is measured on the stack."""

_TOGETHER: Final = 512
"""Profiles that are followed at a time; the next row of each goes into one batch."""

ROWS_PER_FILE: Final = 20_000


def cut_source(data_dir: Path, home: Path, t1_ms: int) -> Path:
    """A copy of a source that ends before T1, in a folder of the same name below `home`."""
    folder = home / "data" / data_dir.name
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(data_dir / CATALOGUE_FILE, folder / CATALOGUE_FILE)
    events = pq.read_table(data_dir / EVENTS_FILE)
    before = events.filter(pc.less(events["occurred_at_ms"], t1_ms))
    pq.write_table(before, folder / EVENTS_FILE, compression="zstd")
    return folder


def model_before(
    cut: Path, home: Path, *, experiment: str, minutes: float, seed: int
) -> tuple[Manifest, Path]:
    """A model version that has seen the cut source alone, and the repository that it is in.

    One that was trained before is used again; a training that was killed goes on.
    """
    repository = home / "model_repo"
    manifest = newest(repository, cut.name)
    if (
        manifest is None
        or manifest.data_sha256 != data_sha256(cut)
        or (manifest.experiment, manifest.seed) != (experiment, seed)
    ):
        # A process of its own gives torch's memory and threads back.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            manifest = pool.submit(
                train,
                cut,
                repository,
                experiment=experiment,
                seed=seed,
                max_minutes=minutes,
                run_dir=home / f"run-{data_sha256(cut)[:12]}-{experiment}-{seed}",
            ).result()
    return manifest, repository


class Moment(NamedTuple):
    """A state that is published, and when. The next moment of the profile changes the state."""

    profile_id: str
    state: ProfileState
    published_at_ms: int


def moments(
    profile_id: str, events: Iterable[tuple[int, str, bytes]], t1_ms: int, rules: Rules
) -> Iterator[Moment]:
    """The states of one profile that are published from T1 on.

    At T1 the new model version scores the profile if it has a history. From then on its events
    publish it again, `PUBLISH_MS` later, those of one millisecond together.

    Args:
        profile_id: the profile.
        events: time in Unix milliseconds, topic and value of each of its records, in order.
        t1_ms: Unix milliseconds.
        rules: the session's.
    """
    state = ProfileState()
    scored_at_t1 = False
    for at_ms, records in groupby(events, key=itemgetter(0)):
        if at_ms >= t1_ms and not scored_at_t1:
            scored_at_t1 = True
            if len(state.window):
                yield Moment(profile_id, state, t1_ms)
        key = profile_id.encode()
        outcomes = [
            state.apply(decode(topic, key, value, broker_time_ms=at_ms), rules)
            for _, topic, value in records
        ]
        touched = any(one in (Outcome.APPLIED, Outcome.UNCHANGED) for one in outcomes)
        if touched and at_ms >= t1_ms:
            yield Moment(profile_id, state, at_ms + PUBLISH_MS)


async def published_rows(
    events: pa.Table,
    catalogue: Catalogue,
    inference: InferenceClient,
    settings: Settings,
    t1_ms: int,
    progress: Callable[[int], None],
) -> AsyncIterator[list[IntentRow]]:
    """What the worker would have published from T1 on, in batches over many profiles.

    Args:
        events: whole histories of profiles, in the order of the contract.
        catalogue: names and durations of titles.
        inference: asks the served model.
        settings: the worker's.
        t1_ms: Unix milliseconds.
        progress: called with the number of profiles that have come to their end.
    """
    rules = Rules(window_length=settings.window_length, durations=catalogue.durations)
    profiles = list(_records(events))
    for start in range(0, len(profiles), _TOGETHER):
        together = profiles[start : start + _TOGETHER]
        following = [moments(*one, t1_ms, rules) for one in together]
        while following:
            steps = [(one, next(one, None)) for one in following]
            following = [one for one, moment in steps if moment is not None]
            batch = [moment for _, moment in steps if moment is not None]
            progress(len(steps) - len(batch))
            if batch:
                names = [one.profile_id for one in batch]
                states = BatchStates.of(one.state for one in batch)
                intents = await inference.infer(windows_of(names, states, rules))
                gap_s = settings.session_gap_s
                sessions = live_sessions(states, gap_s)
                rows = intent_rows(names, states, sessions, intents, catalogue, now_ms=0)
                yield [
                    replace(row, published_at_ms=moment.published_at_ms)
                    for row, moment in zip(rows, batch, strict=True)
                ]


def _records(events: pa.Table) -> Iterator[tuple[str, list[tuple[int, str, bytes]]]]:
    """Of each profile its id and its records, but for those that leave no trace."""
    events = events.filter(pc.invert(pc.is_in(events["event_type"], pa.array(STATELESS))))
    profile = events["profile_id"].combine_chunks().dictionary_encode()
    order = np.argsort(profile.indices.to_numpy(), kind="stable")
    events = events.take(pa.array(order))
    topics = np.where(topic_of(events["event_type"]), PLAYBACK_EVENTS, BROWSE_EVENTS).tolist()
    records = list(
        zip(events["occurred_at_ms"].to_pylist(), topics, json_values(events), strict=True)
    )
    ends = np.cumsum(np.bincount(profile.indices.to_numpy())).tolist()
    for profile_id, begin, end in zip(
        profile.dictionary.to_pylist(), [0, *ends], ends, strict=False
    ):
        yield profile_id, records[begin:end]


class Offline:
    """A feature repository of its own, of which only the offline half is used."""

    def __init__(self, home: Path) -> None:
        """Start with an empty repository in the folder `home`."""
        shutil.rmtree(home, ignore_errors=True)
        self._settings = Settings(
            online_store="sqlite", feature_registry=home / "registry.db", offline_dir=home
        )
        self._store = apply(self._settings)
        self._parts = 0

    def land(self, rows: Sequence[IntentRow]) -> None:
        """Add a file of intent rows."""
        self._write(definitions.intent_features, landed(rows), f"{self._parts:06}")
        self._parts += 1

    def land_titles(
        self,
        catalogue: pa.Table,
        vectors: Mapping[str, Sequence[float]],
        version: str,
        until: datetime,
    ) -> None:
        """Land the titles and their vectors of a model version whose training ended at `until`."""
        rows = title_rows(catalogue, vectors, version, until, until)
        self._write(definitions.title_profiles, rows, f"version-{version}")

    def intents(
        self, profiles: Sequence[str], requests: Requests, read_ms: NDArray[np.int64]
    ) -> pd.DataFrame:
        """What each request would have read of its profile, in the order of the requests.

        Of a profile that had no row yet all features are null. A row counts from the moment it was
        published, not from that of its event. `age_s` is the age of its newest event at the
        request.

        Args:
            profiles: ids by code.
            requests: R requests.
            read_ms: `[R]`, when each profile is read, Unix milliseconds.
        """
        asked = pd.DataFrame(
            {
                definitions.profile.join_key: [profiles[code] for code in requests.profile],
                "event_timestamp": pd.to_datetime(read_ms, unit="ms", utc=True),
            }
        )
        found = self._history(asked, definitions.profile_intent)
        asked_at = pd.Series(pd.to_datetime(requests.at_ms, unit="ms", utc=True))
        found["age_s"] = (asked_at - found["last_event_at"]).dt.total_seconds()
        return found

    def titles(self, titles: Sequence[str], at: datetime) -> pd.DataFrame:
        """What was known of each title at a time, in the order of the titles."""
        asked = pd.DataFrame({definitions.title.join_key: titles, "event_timestamp": at})
        return self._history(asked, definitions.title_profile)

    def _history(self, asked: pd.DataFrame, view: FeatureView) -> pd.DataFrame:
        features = [f"{view.name}:{feature.name}" for feature in view.features]
        job = self._store.get_historical_features(asked, features, filter_by_created_timestamp=True)
        found: pd.DataFrame = job.to_df()
        return found

    def _write(self, source: FileSource, rows: pa.Table, name: str) -> None:
        folder = source_folder(self._settings, source)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, folder / f"{name}.parquet")


def model_file(repository: Path, manifest: Manifest) -> Path:
    """The weights of a model version."""
    return repository / MODEL / str(manifest.version) / MODEL_FILE


def utc(milliseconds: int) -> datetime:
    """A time of Unix milliseconds."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
