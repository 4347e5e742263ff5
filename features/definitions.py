"""The Feast definitions: entity, view and service. `feast apply` reads this file and no other.

Owner, shape, range and freshness stand in every feature's tags, so that they show in `feast` and
its user interface. Fields are the ones of `stream.domain.feature_row.IntentRow`.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, ValueType
from feast.data_format import ParquetFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, Int64, String, UnixTimestamp
from google.protobuf.json_format import MessageToDict

from stream.domain.heads import HEADS, INTENTS, Head

if TYPE_CHECKING:
    from collections.abc import Iterable

OWNER: Final = "intentstream"
TAGS: Final = {"team": OWNER, "model": "fm_intent"}

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


def _field(
    name: str,
    dtype: object,
    description: str,
    shape: str,
    values: str,
    freshness: str = "after every event of the profile",
) -> Field:
    tags = {"owner": OWNER, "shape": shape, "range": values, "freshness": freshness}
    return Field(name=name, dtype=dtype, description=description, tags=tags)


def _probabilities(head: Head) -> Field:
    return _field(
        head.probs,
        Array(Float32),
        f"Probability of {head.probability_of}, in the order of "
        + (
            f"the version's {head.name}_labels; without labels of its own: "
            if head.own_labels
            else "its labels: "
        )
        + f"{', '.join(head.labels)}. Empty where the model version has no such head.",
        "[C] or [0], C of the model version" if head.own_labels else f"[{len(head.labels)}] or [0]",
        "0 to 1, sum 1",
    )


def _label(head: Head) -> Field:
    return _field(
        head.name,
        String,
        f"The likeliest {head.likeliest}; empty where the model version has no such head.",
        "scalar",
        f"a label of {head.probs}, or empty",
    )


def _embedding(name: str, description: str) -> Field:
    return _field(name, Array(Float32), description, "[D], D of the model version", "any float")


profile_intent = FeatureView(
    name="profile_intent",
    entities=[profile],
    ttl=timedelta(days=400),
    schema=[
        Field(name="profile_id", dtype=String, description="Join key of the entity profile."),
        *chain.from_iterable((_probabilities(head), _label(head)) for head in HEADS),
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
        _field(
            "title_log_norm",
            Float32,
            "What makes a title's score the log of its probability of being played next, by "
            "subtraction; see user_embedding.",
            "scalar",
            "any float",
        ),
        _embedding(
            "user_embedding",
            "Its dot product with a title embedding of the same model version is that title's "
            "score. A title of the profile's newest interactions may have a higher one: where that "
            "makes it likely, it is among next_title_ids, with its probability.",
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
            "Grows with the profile's state; at one event time the higher is newer.",
            "scalar",
            "1 or more",
        ),
        _field(
            "last_event_id", String, "Id of the newest event in the row.", "scalar", "1-256 chars"
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
        _field(
            "labels_id",
            String,
            "Names the labels of the model version; probabilities of one are those of another "
            "where both have the same. Null in rows of a release before versions had their own.",
            "scalar",
            "16 hex digits",
        ),
    ],
    source=intent_features,
    description="What a profile intends to watch next, updated after every one of its events.",
    tags=TAGS,
    owner=OWNER,
)

title = Entity(
    name="title",
    join_keys=["title_id"],
    value_type=ValueType.STRING,
    description="A movie or a show of the catalogue.",
    owner=OWNER,
    tags={"team": OWNER},
)

title_profiles = FileSource(
    name="title_profiles",
    path="data/title_profiles",
    file_format=ParquetFormat(),
    timestamp_field="event_timestamp",
    created_timestamp_column="created_timestamp",
    description=(
        "Each time that a model version is published, one row of each title dated by its release, "
        "without an embedding, and one dated by the end of the version's training data, with it."
    ),
    owner=OWNER,
    tags={"team": OWNER},
)

_ON_EXPORT: Final = "with each model version"

title_profile = FeatureView(
    name="title_profile",
    entities=[title],
    ttl=timedelta(0),
    schema=[
        Field(name="title_id", dtype=String, description="Join key of the entity title."),
        _field(
            "title_genres",
            Array(String),
            "Genres; empty where the catalogue has none.",
            "any length",
            "labels of genre_probs",
            _ON_EXPORT,
        ),
        _field(
            "title_kind",
            String,
            "Movie or show; null where the catalogue doesn't say.",
            "scalar",
            "a label of kind_probs, or null",
            _ON_EXPORT,
        ),
        _field(
            "title_genre_numbers",
            Array(Int64),
            "Places of the title's genres in genre_probs of the labels title_labels_id.",
            "any length",
            "0 or more",
            _ON_EXPORT,
        ),
        _field(
            "title_kind_number",
            Int64,
            "Place of the title's kind in kind_probs of the labels title_labels_id; null where "
            "they have none for it.",
            "scalar",
            "0 or more",
            _ON_EXPORT,
        ),
        _field(
            "title_labels_id",
            String,
            "Labels that the numbers are of, as labels_id of a profile's row.",
            "scalar",
            "16 hex digits",
            _ON_EXPORT,
        ),
        _field(
            "title_released_at",
            UnixTimestamp,
            "Day of the release; null where unknown.",
            "scalar",
            "UTC, whole days",
            _ON_EXPORT,
        ),
        _field(
            "title_embedding",
            Array(Float32),
            "The title's vector; its dot product with user_embedding of the same model version "
            "scores the title for a profile. Null before the first version.",
            "[D], D of the model version",
            "any float",
            _ON_EXPORT,
        ),
        _field(
            "title_embedding_version",
            String,
            "Model version that title_embedding is of; null before the first version.",
            "scalar",
            "any string",
            _ON_EXPORT,
        ),
    ],
    source=title_profiles,
    description="What is known of a title, and its vector in the model's space.",
    tags=TAGS,
    owner=OWNER,
)


model = Entity(
    name="model",
    join_keys=["model_version"],
    value_type=ValueType.STRING,
    description="A version of the model.",
    owner=OWNER,
    tags={"team": OWNER},
)

model_label_files = FileSource(
    name="model_labels",
    path="data/model_labels",
    file_format=ParquetFormat(),
    timestamp_field="event_timestamp",
    created_timestamp_column="created_timestamp",
    description="One row each time that a model version is published.",
    owner=OWNER,
    tags={"team": OWNER},
)

model_labels = FeatureView(
    name="model_labels",
    entities=[model],
    ttl=timedelta(0),
    schema=[
        Field(name="model_version", dtype=String, description="Join key of the entity model."),
        *(
            _field(
                f"{head.name}_labels",
                Array(String),
                f"Names of {head.probs}, in its order.",
                "[C]",
                "any strings",
                _ON_EXPORT,
            )
            for head in HEADS
        ),
        _field(
            "model_labels_id",
            String,
            "As labels_id of the version's rows.",
            "scalar",
            "16 hex digits",
            _ON_EXPORT,
        ),
    ],
    source=model_label_files,
    description="What the numbers in a model version's probabilities mean.",
    tags=TAGS,
    owner=OWNER,
)


# Feast compares the declared fields with bare ones that it infers, so a description or tags on a
# scalar would make `feast apply` fail; they stand in the view's tags instead.
@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[
        profile_intent[
            [
                "genre_probs",
                "kind_probs",
                "next_title_ids",
                "next_title_scores",
                "title_log_norm",
                "user_embedding",
                "model_version",
                "labels_id",
            ]
        ],
        title_profile[
            [
                "title_genres",
                "title_kind",
                "title_genre_numbers",
                "title_kind_number",
                "title_labels_id",
                "title_embedding",
                "title_embedding_version",
            ]
        ],
    ],
    schema=[
        Field(name="genre_match", dtype=Float64),
        Field(name="kind_match", dtype=Float64),
        Field(name="embedding_match", dtype=Float64),
    ],
    mode="python",
    description="How well a title fits the live intent of a profile, computed when asked.",
    tags=TAGS
    | {
        "genre_match": (
            "Sum of the next interaction's genre probabilities over the title's genres. Null where "
            "the two rows are of other labels."
        ),
        "kind_match": (
            "Probability that the next title is of the title's kind. Null as genre_match."
        ),
        "embedding_match": (
            "Log of the title's probability of being played next: that in next_title_scores, else "
            "the dot product of user_embedding and title_embedding less title_log_norm. Null where "
            "the two embeddings are of different model versions."
        ),
    },
    owner=OWNER,
)
# A reader runs this function from its source text alone, without this module's names: hence the
# imports inside and the quotes, and labels from where readers of every release have them.
def intent_title_match(inputs: "dict[str, list[Any]]") -> "dict[str, list[Any]]":  # noqa: UP037
    """Each match is null where the profile or the title lacks what it needs."""
    from math import log
    from operator import mul

    from stream.taxonomy import BUILT_IN_LABELS_ID, GENRES, KINDS

    genre_index = {genre: place for place, genre in enumerate(GENRES)}
    kind_index = {kind: place for place, kind in enumerate(KINDS)}
    matches: dict[str, list[float | None]] = {
        "genre_match": [],
        "kind_match": [],
        "embedding_match": [],
    }
    # The join key is there whenever there is a title, but not when Feast infers the outputs.
    title_ids = inputs.get("title_id", [None] * len(inputs["title_kind"]))
    for (
        title_id,
        genre_probs,
        kind_probs,
        listed,
        listed_scores,
        log_norm,
        user,
        version,
        labels,
        genres,
        kind,
        genre_numbers,
        kind_number,
        title_labels,
        vector,
        vector_version,
    ) in zip(
        title_ids,
        inputs["genre_probs"],
        inputs["kind_probs"],
        inputs["next_title_ids"],
        inputs["next_title_scores"],
        inputs["title_log_norm"],
        inputs["user_embedding"],
        inputs["model_version"],
        inputs["labels_id"],
        inputs["title_genres"],
        inputs["title_kind"],
        inputs["title_genre_numbers"],
        inputs["title_kind_number"],
        inputs["title_labels_id"],
        inputs["title_embedding"],
        inputs["title_embedding_version"],
        strict=True,
    ):
        match = None
        # A row that an older release wrote lacks the norm.
        if user and vector and log_norm is not None and version == vector_version:
            place = list(listed).index(title_id) if title_id in listed else None
            probability = 0.0 if place is None else listed_scores[place]
            match = log(probability) if probability else sum(map(mul, user, vector), -log_norm)
        matches["embedding_match"].append(match)
        if not title_labels:  # a row of a release before titles had numbers
            title_labels = BUILT_IN_LABELS_ID
            genre_numbers = [genre_index[g] for g in genres or () if g in genre_index]
            kind_number = kind_index.get(kind)
        kind_numbers = [] if kind_number is None else [kind_number]
        alike = (labels or BUILT_IN_LABELS_ID) == title_labels
        # Feast infers the outputs of any numbers that it likes, so they may be out of range.
        matches["genre_match"].append(
            sum((genre_probs[n] for n in genre_numbers or () if n < len(genre_probs)), 0.0)
            if alike and genre_probs and genres
            else None
        )
        matches["kind_match"].append(
            sum((kind_probs[n] for n in kind_numbers if n < len(kind_probs)), 0.0)
            if alike and kind_probs and kind
            else None
        )
    return matches


ranker_v1 = FeatureService(
    name="ranker_v1",
    features=[profile_intent],
    description="Everything that a ranker reads of a profile: all of profile_intent.",
    tags={"team": OWNER, "consumer": "ranking"},
    owner=OWNER,
)

search_rerank_v1 = FeatureService(
    name="search_rerank_v1",
    features=[
        intent_title_match,
        profile_intent[["model_version", "sequence_no", "last_event_at"]],
        title_profile[["title_embedding_version"]],
    ],
    description="How well each candidate of a search fits the profile's live intent.",
    tags={"team": OWNER, "consumer": "search"},
    owner=OWNER,
)

_DEFINED: Final = (
    profile,
    title,
    intent_features,
    title_profiles,
    model,
    model_label_files,
    profile_intent,
    title_profile,
    model_labels,
    intent_title_match,
    ranker_v1,
    search_rerank_v1,
)


_NOT_OURS: Final = ("meta", "body")
"""When something was registered, and the bytes of a function, which differ from Python to Python;
its text is kept beside them."""


def digest(defined: Iterable[Any]) -> str:
    """Changes with whatever Feast keeps of objects' definitions, and with nothing else."""
    kept = [_without(MessageToDict(one.to_proto()), _NOT_OURS) for one in defined]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _without(value: Any, names: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {name: _without(one, names) for name, one in value.items() if name not in names}
    return [_without(one, names) for one in value] if isinstance(value, list) else value


project = Project(
    name="intentstream",
    description="Live viewing intents of member profiles, for rankers and search.",
    owner=OWNER,
    # A registry shows by it whether it holds these definitions or those of another release.
    tags=TAGS | {"definitions": digest(_DEFINED)},
)

OBJECTS: Final = [project, *_DEFINED]
"""All of the above, in the order in which `FeatureStore.apply` takes them."""
