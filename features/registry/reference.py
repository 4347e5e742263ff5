"""Prints the reference for downstream users, `docs/features.md`, from the definitions.

    python -m features.registry.reference > docs/features.md

The page can't drift from the definitions: a test compares it with what this module writes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from feast.types import from_feast_to_pyarrow_type

from features import definitions
from features.reading.intents import MAX_PROFILES
from stream.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from feast import FeatureService, FeatureView, Field
    from feast.on_demand_feature_view import OnDemandFeatureView

_HEAD: Final = """\
# Features

<!-- Printed by `python -m features.registry.reference` from the definitions. Don't edit. -->

{project} Registered in Feast as the project `{name}`; `feast ui` shows the same
definitions. Feast's commands run in `features/` of a checkout, or in the folder that `intentstream
features init` writes; `intentstream features apply` registers the definitions without one, as a
worker that starts does, in a process of its own.

## Read them

In Python, with the verdict whether they are live:

```python
from intentstream import IntentReader, Settings

for intent in IntentReader(Settings()).read(["profile-1", "profile-2"]):
    genre = intent.row and intent.row.labels["genre"]
    print(intent.profile_id, intent.freshness, intent.age_ms, genre)
```

`read_async` does not block an event loop; a read takes {max_profiles:,} profiles at most. Redis is
read without Feast, and so without seconds of import; the answers are those of Feast. The same
from a feature server, without the store's address and password:

```python
from intentstream import HttpIntentReader

(intent,) = HttpIntentReader("http://127.0.0.1:6566").read(["profile-1"])
print(intent.freshness, intent.age_ms, intent.model_version)
```

With Feast alone:

```python
from intentstream import Settings, open_store

store = open_store(Settings())
service = store.get_feature_service("ranker_v1")
print(store.get_online_features(service, [{{"profile_id": "profile-1"}}]).to_dict())
```

Over HTTP, from `feast serve`:

```sh
curl -s localhost:6566/get-online-features -H 'Content-Type: application/json' \\
  -d '{{"feature_service": "ranker_v1", "entities": {{"profile_id": ["profile-1"]}}}}'
```

The store's address is `INTENT_REDIS_URL`, in Feast's form `host:port,password=...,ssl=true`. With
`INTENT_REDIS_TYPE` it is that of a single server (`redis`), of nodes of a cluster (`redis_cluster`,
several with commas), or of Sentinels (`redis_sentinel`), which know the master as
`INTENT_REDIS_SENTINEL_MASTER`; password and TLS are the master's then. Redis replicates behind the
writer's back, so a failover may lose the last writes: the worker
[publishes again what a store has lost](failures.md#the-online-store). A user of a single server
needs the rights HMGET, HSET, EXPIRE, PERSIST, EVALSHA and SCRIPT LOAD; with INFO the worker sees at
once that another server answers. Valkey works as Redis does ([tried](feast-universal.md)).
`INTENT_ONLINE_STORE` names [another store](extending.md#add-an-online-store); readers work on any.

## Train on what was served

Every published row also lands in Parquet (`intentstream sink`; the folder is
`INTENT_OFFLINE_DIR`/{offline}), once for each profile, `sequence_no`, model version
and event time. A historical read answers what an online read at that moment answered, but for
rows that expire: history forgets one {days} days after its event, online it goes
`INTENT_FEATURE_TTL_S` after it was last written, by default never. What an [erased](erasure.md)
profile did before is in no answer, from a minute after its erasure on.

```python
import pandas as pd
from intentstream import Settings, open_store

store = open_store(Settings())
noon = pd.Timestamp("2026-01-31 12:00", tz="UTC")
asked = pd.DataFrame({{"profile_id": ["profile-1"], "event_timestamp": [noon]}})
rows = store.get_historical_features(asked, store.get_feature_service("ranker_v1")).to_df()
print(rows[["profile_id", "genre", "model_version"]])
```

A row of `profile_intent` counts from the moment it was published (`created_timestamp`), never from
its event's time, and one that the online store refused as older never counts. A row of
`title_profile` counts from its release or its vector's training cut-off on; with
`filter_by_created_timestamp=True` it counts from its publication on, too, and the last publication
before the request wins, as it does online, also after going back to an older model version. Only
titles that weren't released yet have no row then, though online they have.

Without requests, as `get_historical_features(None, ..., start_date=..., end_date=...)`, every
profile or title that got a row between the dates is answered as at `end_date`.

Where requests or answers are many, ask by a query of DuckDB's and have the answer written as it
comes:

```python
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from intentstream import Settings, open_store

store = open_store(Settings())
job = store.get_historical_features("FROM 'requests.parquet'", ["profile_intent:intent_embedding"])
job.persist(SavedDatasetFileStorage("/data/answers.parquet"))
```

The join spills what is more than `INTENT_OFFLINE_MEMORY_MIB` into the folder for temporary files
(`TMPDIR`); requests are held in memory, and so is what `to_df` and `to_arrow` return.

Of 1.2 million rows and 60,000 requests, `python -m lab.bench.as_served` read all features of
`ranker_v1` in 31 s and 1.1 GiB, where the join in pandas before it needed 33 s and 3.2 GiB, and the
match of `search_rerank_v1` in 34 s and 1.2 GiB instead of 48 s and 3.6 GiB, with identical answers
(`docs/results/histories.json`; two cores, others at work on them). Of 100 million rows and five
million requests it read all features of `ranker_v1` in 15 minutes and the match of
`search_rerank_v1` in 17, in at most 3.4 GiB each, with others at work. The smaller sizes were
measured before features were laid down by portions of the requests.

The sink merges the files of a day that is over into one of each partition, when none was written
for `INTENT_SINK_MERGE_AFTER_S` (0: never). The files that it replaces stay for a minute more, and
longer where the sink is killed in it: a historical read knows of that, another reader of the folder
finds their rows twice.

All that is the offline store of this repository, `features.offline.as_served.AsServedOfflineStore`.
Feast's own (`dask`, 0.67) goes by event time unless it is told `filter_by_created_timestamp=True`,
takes any of several rows of one event time, and answers one of several titles that are asked for a
profile at one moment.

## Fresh, stale, absent

Feast answers for a profile that it has no features of as if they were present and null, and it
ignores a view's time to live online. `IntentReader` says which is which:

{verdicts}
A row is written after every event of its profile, newer replaces older and never the other way
round: by the newest event's time, and at one time by `sequence_no`. (A store
[without a fence](extending.md#without-a-fence) may let older ones in.) A head that the model
version was not trained for has an empty list and an empty label. Times are UTC; Feast keeps whole
seconds in a feature, and milliseconds in the row's event timestamp.
"""


def page() -> str:
    """The whole page, Markdown."""
    project = definitions.project
    session_gap_s = Settings.model_fields["session_gap_s"].default
    verdicts = (
        (
            "`fresh`",
            f"the newest event is at most {session_gap_s} s old (`INTENT_SESSION_GAP_S`, the idle "
            "time that ends a session): the intent is live",
        ),
        ("`stale`", "there are features, of a session that has ended"),
        (
            "`absent`",
            "there are none: an unknown profile, one whose features expired "
            "(`INTENT_FEATURE_TTL_S`; titles: `INTENT_TITLE_TTL_S`), or one that was "
            "[erased](erasure.md)",
        ),
    )
    head = _HEAD.format(
        project=project.description,
        name=project.name,
        max_profiles=MAX_PROFILES,
        offline=definitions.intent_features.path,
        days=definitions.profile_intent.ttl.days,
        verdicts=_table(("verdict", "meaning"), verdicts),
    )
    views = (
        _view(definitions.profile_intent, "profile_id"),
        _view(definitions.title_profile, "title_id"),
        _view(definitions.model_labels, "model_version"),
        _on_demand(definitions.intent_title_match),
    )
    services = (definitions.ranker_v1, definitions.search_rerank_v1)
    return "\n".join((head, *views, "## Services\n", *map(_service, services)))


def _view(view: FeatureView, join_key: str) -> str:
    title = f"## View `{view.name}`\n\n{view.description} Key: `{join_key}`. Owner: {view.owner}.\n"
    header = ("feature", "type", "shape", "range", "freshness", "meaning")
    return f"{title}\n{_table(header, map(_row, view.features))}"


def _row(feature: Field) -> tuple[str, ...]:
    tags = feature.tags
    return (
        f"`{feature.name}`",
        _type(feature),
        tags["shape"],
        tags["range"],
        tags["freshness"],
        feature.description,
    )


def _on_demand(view: OnDemandFeatureView) -> str:
    title = f"## On-demand view `{view.name}`\n\n{view.description} Owner: {view.owner}.\n"
    needs = (
        "Keys: `profile_id` and `title_id`. Null where the profile or the title lacks an input.\n"
    )
    rows = ((f"`{one.name}`", _type(one), view.tags[one.name]) for one in view.features)
    return f"{title}{needs}\n{_table(('feature', 'type', 'meaning'), rows)}"


def _service(service: FeatureService) -> str:
    names = (
        f"`{projection.name}:{feature.name}`"
        for projection in service.feature_view_projections
        for feature in projection.features
    )
    return f"**`{service.name}`**: {service.description}\n\n{', '.join(names)}\n"


def _type(feature: Field) -> str:
    return f"`{from_feast_to_pyarrow_type(feature.dtype)}`".replace("item: ", "")


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    def lines() -> Iterator[str]:
        yield "| " + " | ".join(header) + " |"
        yield "|" + "---|" * len(header)
        for row in rows:
            yield "| " + " | ".join(row) + " |"

    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
