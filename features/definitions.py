"""The Feast definitions: entity, view and service. `feast apply` reads this file and no other.

Owner, shape, range and freshness stand in every feature's tags, so that they show in `feast` and
its user interface. Fields are the ones of `features.rows.IntentRow`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Int64, String, UnixTimestamp

from stream.taxonomy import ACTIONS, GENRES, INTENTS, KINDS, RELEASE_AGES

OWNER: Final = "intentstream"
TAGS: Final = {"team": OWNER, "model": "fm_intent"}

project = Project(
    name="intentstream",
    description="Live viewing intents of member profiles, for rankers and search.",
    owner=OWNER,
    tags=TAGS,
)

profile = Entity(
    name="profile",
    join_keys=["profile_id"],
    value_type=ValueType.STRING,
    description="A member's profile; the key of every event.",
    owner=OWNER,
    tags={"team": OWNER},
)

intent_features = FileSource(
    name="intent_features",
    path="data/intent_features",
    file_format=ParquetFormat(),
    timestamp_field="event_timestamp",
    created_timestamp_column="created_timestamp",
    description=(
        "Every published row. event_timestamp is the newest event's time, created_timestamp the "
        "time of publishing; both to the millisecond."
    ),
    owner=OWNER,
    tags={"team": OWNER},
)


def _field(name: str, dtype: object, description: str, shape: str, values: str) -> Field:
    tags = {
        "owner": OWNER,
        "shape": shape,
        "range": values,
        "freshness": "after every event of the profile",
    }
    return Field(name=name, dtype=dtype, description=description, tags=tags)


def _probabilities(name: str, labels: tuple[str, ...], of: str) -> Field:
    return _field(
        name,
        Array(Float32),
        f"{of}, in this order: {', '.join(labels)}. Empty where the model version has no such "
        "head.",
        f"[{len(labels)}] or [0]",
        "0 to 1, sum 1",
    )


def _label(name: str, labels: tuple[str, ...], of: str) -> Field:
    return _field(
        name,
        String,
        f"The likeliest {of}; empty where the model version has no such head.",
        "scalar",
        "one of " + ", ".join(labels) + ", or empty",
    )


def _embedding(name: str, description: str) -> Field:
    return _field(name, Array(Float32), description, "[D], D of the model version", "any float")


profile_intent = FeatureView(
    name="profile_intent",
    entities=[profile],
    ttl=timedelta(days=400),
    schema=[
        Field(name="profile_id", dtype=String, description="Join key of the entity profile."),
        _probabilities("action_probs", ACTIONS, "Probability of the next interaction's action"),
        _label("action", ACTIONS, "action of the next interaction"),
        _probabilities("genre_probs", GENRES, "Probability of the next interaction's genres"),
        _label("genre", GENRES, "genre of the next interaction"),
        _probabilities("kind_probs", KINDS, "Probability of a movie or a show next"),
        _label("kind", KINDS, "kind of the next title"),
        _probabilities(
            "release_age_probs",
            RELEASE_AGES,
            "Probability of the next title's age since its release",
        ),
        _label("release_age", RELEASE_AGES, "age since release of the next title"),
        _field(
            "intent_attention",
            Array(Float32),
            f"Weight of each intent head in intent_embedding, in this order: {', '.join(INTENTS)}. "
            "0 for a head that the model version lacks.",
            f"[{len(INTENTS)}]",
            "0 to 1, sum 1",
        ),
        _embedding("intent_embedding", "The live intent as one vector, made of the heads alone."),
        _field(
            "next_title_ids",
            Array(String),
            "Ids of the titles that are likeliest to be played next, best first.",
            "[20]",
            "title ids",
        ),
        _field(
            "next_title_scores",
            Array(Float32),
            "Probability of each title in next_title_ids being played next.",
            "[20]",
            "0 to 1, descending",
        ),
        _embedding(
            "user_embedding",
            "Its dot product with a title embedding of the same model version scores that title.",
        ),
        _field("session_id", String, "Id of the running session.", "scalar", "any string"),
        _field(
            "session_length", Int64, "Interactions in the running session.", "scalar", "1 or more"
        ),
        _field(
            "intent_cluster",
            Int64,
            "Nearest centre of intent_embedding; -1 where the model version has no centres.",
            "scalar",
            "-1 or more",
        ),
        _field(
            "model_version", String, "Model version that made this row.", "scalar", "any string"
        ),
        _field(
            "sequence_no",
            Int64,
            "Counts the changes of the profile's state; at one event time the higher is newer.",
            "scalar",
            "1 or more",
        ),
        _field(
            "last_event_id", String, "Id of the newest event in the row.", "scalar", "1-64 chars"
        ),
        _field(
            "last_event_at",
            UnixTimestamp,
            "Time of the newest event, in whole seconds; the row's event timestamp has the "
            "milliseconds.",
            "scalar",
            "UTC",
        ),
        _field(
            "published_at",
            UnixTimestamp,
            "Time at which the row was published, in whole seconds.",
            "scalar",
            "UTC",
        ),
    ],
    source=intent_features,
    description="What a profile intends to watch next, updated after every one of its events.",
    tags=TAGS,
    owner=OWNER,
)

ranker_v1 = FeatureService(
    name="ranker_v1",
    features=[profile_intent],
    description="Everything that a ranker reads of a profile: all of profile_intent.",
    tags={"team": OWNER, "consumer": "ranking"},
    owner=OWNER,
)

OBJECTS: Final = [project, profile, intent_features, profile_intent, ranker_v1]
"""All of the above, in the order in which `FeatureStore.apply` takes them."""
