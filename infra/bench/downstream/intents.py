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
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast import FeatureStore, RepoConfig
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
from feast.types import UnixTimestamp, from_feast_to_pyarrow_type

from features import definitions
from features.encoding import row_attribute
from features.titles import exported_vectors, title_rows
from fm_intent.dataset import data_sha256
from fm_intent.export import MODEL, MODEL_FILE, Manifest, newest
from fm_intent.train import train
from infra.local.paths import MODEL_REPOSITORY
from infra.replay.plan import STATELESS, json_values, topic_of
from infra.sources.contract import CATALOGUE_FILE, EVENTS_FILE
from stream.events import decode
from stream.rows import intent_rows
from stream.session import Outcome, ProfileState, Rules
from stream.topics import BROWSE_EVENTS, PLAYBACK_EVENTS
from stream.window import window_batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from features.rows import IntentRow
    from infra.bench.downstream.requests import Requests
    from stream.catalogue import Catalogue
    from stream.inference import InferenceClient
    from stream.settings import Settings

PUBLISH_MS: Final = 500
"""From an event to its row being readable: several times what is measured on the stack."""

_TOGETHER: Final = 512
"""Profiles that are followed at a time; the next row of each goes into one batch."""

ROWS_PER_FILE: Final = 20_000

_JOINED: Final = 1_000_000
"""Pairs of a request and a row that one point-in-time join makes, about."""


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
    if not repository.exists():
        versions = shutil.ignore_patterns("[0-9]*", ".export-*")
        shutil.copytree(MODEL_REPOSITORY, repository, ignore=versions)
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
            state.take_in(decode(topic, key, value, broker_time_ms=at_ms), rules)
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
    rules = Rules(window_length=settings.window_length, duration_ms=catalogue.duration_ms)
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
                states = [(one.profile_id, one.state) for one in batch]
                intents = await inference.infer(window_batch(states, rules))
                rows = intent_rows(
                    states, intents, catalogue, session_gap_s=settings.session_gap_s, now_ms=0
                )
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


def landed(rows: Sequence[IntentRow]) -> pa.Table:
    """Rows as they lie in the offline store."""
    time = pa.timestamp("us", tz="UTC")

    def column(feature: Any) -> pa.Array:
        values = [getattr(row, row_attribute(feature)) for row in rows]
        if feature.dtype == UnixTimestamp:
            return pa.array(values, pa.timestamp("ms", tz="UTC")).cast(time)
        return pa.array(values, from_feast_to_pyarrow_type(feature.dtype))

    columns = {one.name: column(one) for one in definitions.profile_intent.features}
    return pa.table(
        {
            definitions.profile.join_key: [row.profile_id for row in rows],
            **columns,
            "event_timestamp": columns["last_event_at"],
            "created_timestamp": columns["published_at"],
        }
    )


class Offline:
    """A feature repository of its own, of which only the offline half is used."""

    def __init__(self, home: Path) -> None:
        """Start with an empty repository in the folder `home`."""
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        self._store = FeatureStore(
            config=RepoConfig(
                project=definitions.project.name,
                provider="local",
                registry=str(home / "registry.db"),
                online_store=SqliteOnlineStoreConfig(path=str(home / "online.db")),
                offline_store="dask",
                entity_key_serialization_version=3,
                repo_path=home,
            )
        )
        self._intents = home / definitions.intent_features.path
        self._titles = home / definitions.title_profiles.path
        self._parts = 0

    def land(self, rows: Sequence[IntentRow]) -> None:
        """Add a file of intent rows."""
        self._intents.mkdir(parents=True, exist_ok=True)
        pq.write_table(landed(rows), self._intents / f"{self._parts:06}.parquet")
        self._parts += 1

    def land_titles(self, catalogue: pa.Table, version: Path, name: str, until: datetime) -> None:
        """Land the titles and their vectors of a model version whose training ended at `until`."""
        self._titles.mkdir(parents=True)
        vectors = exported_vectors(version / MODEL_FILE, catalogue)
        rows = title_rows(catalogue, vectors, name, until, until)
        pq.write_table(rows, self._titles / f"version-{name}.parquet")

    def apply(self) -> None:
        """Register the definitions, once everything has landed."""
        self._store.apply(definitions.OBJECTS)

    def intents(
        self, profiles: Sequence[str], requests: Requests, progress: Callable[[int], None]
    ) -> pd.DataFrame:
        """What each request would have read of its profile, in the order of the requests.

        Of a profile that had no row yet all features are null. A row counts from the moment it was
        published, not from that of its event. `age_s` is the age of its newest event.
        """
        asked = pd.DataFrame(
            {
                definitions.profile.join_key: [profiles[code] for code in requests.profile],
                "event_timestamp": pd.to_datetime(requests.at_ms, unit="ms", utc=True),
            }
        )
        features = [f"profile_intent:{one.name}" for one in definitions.profile_intent.features]
        unique = asked.drop_duplicates()
        parts = []
        for part in self._parts_of(unique):
            job = self._store.get_historical_features(
                part, features, filter_by_created_timestamp=True
            )
            parts.append(job.to_df())
            progress(len(part))
        found = pd.concat(parts, ignore_index=True)
        found = asked.merge(found, "left", [*asked.columns], validate="many_to_one")
        found["age_s"] = (found["event_timestamp"] - found["last_event_at"]).dt.total_seconds()
        return found

    def titles(self, titles: Sequence[str], at: datetime) -> pd.DataFrame:
        """What was known of each title at a time, in the order of the titles."""
        asked = pd.DataFrame({definitions.title.join_key: titles, "event_timestamp": at})
        features = [f"title_profile:{one.name}" for one in definitions.title_profile.features]
        job = self._store.get_historical_features(asked, features, filter_by_created_timestamp=True)
        return asked.merge(job.to_df(), "left", [*asked.columns], validate="one_to_one")

    def _parts_of(self, asked: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """`asked` in parts that make about `_JOINED` pairs each; Feast joins before it filters."""
        key = definitions.profile.join_key
        rows = pq.read_table(self._intents, columns=[key])[key].value_counts().to_pylist()
        rows_of = {one["values"]: one["counts"] for one in rows}
        pairs = asked[key].map(rows_of).fillna(1).cumsum()
        for _, part in asked.groupby(pairs // _JOINED):
            yield part.reset_index(drop=True)


def version_folder(repository: Path, manifest: Manifest) -> Path:
    """The folder of a model version."""
    return repository / MODEL / str(manifest.version)


def utc(milliseconds: int) -> datetime:
    """A time of Unix milliseconds."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
