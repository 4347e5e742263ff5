"""The Feast definitions: entity, view and service. `feast apply` reads this file and no other.

They are made of `features.schema`. Owner, shape, range and freshness stand in every feature's tags,
so that they show in `feast` and its user interface.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, ValueType
from feast.data_format import ParquetFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, Int64, String, UnixTimestamp
from google.protobuf.json_format import MessageToDict

from features.schema import title_match, views
from features.schema.fields import Feature, FieldType, Source, View

if TYPE_CHECKING:
    from collections.abc import Iterable

OWNER: Final = "intentstream"
TAGS: Final = {"team": OWNER, "model": "fm_intent"}

DTYPES: Final[dict[FieldType, Any]] = {
    FieldType.STRING: String,
    FieldType.INT64: Int64,
    FieldType.FLOAT32: Float32,
    FieldType.UNIX_TIMESTAMP: UnixTimestamp,
    FieldType.STRINGS: Array(String),
    FieldType.INT64S: Array(Int64),
    FieldType.FLOAT32S: Array(Float32),
}
"""Feast's types of ours."""


def _entity(view: View, description: str) -> Entity:
    return Entity(
        name=view.entity,
        join_keys=[view.join_key],
        value_type=ValueType.STRING,
        description=description,
        owner=OWNER,
        tags={"team": OWNER},
    )


def _source(source: Source) -> FileSource:
    return FileSource(
        name=source.name,
        path=source.path,
        file_format=ParquetFormat(),
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column,
        description=source.description,
        owner=OWNER,
        tags={"team": OWNER},
    )


def _field(feature: Feature) -> Field:
    tags = {
        "owner": OWNER,
        "shape": feature.shape,
        "range": feature.values,
        "freshness": feature.freshness,
    }
    dtype = DTYPES[feature.type]
    return Field(name=feature.name, dtype=dtype, description=feature.description, tags=tags)


def _view(view: View, entity: Entity, source: FileSource) -> FeatureView:
    told = f"Join key of the entity {view.entity}."
    return FeatureView(
        name=view.name,
        entities=[entity],
        ttl=timedelta(days=view.days),
        schema=[
            Field(name=view.join_key, dtype=String, description=told),
            *map(_field, view.features),
        ],
        source=source,
        description=view.description,
        tags=TAGS,
        owner=OWNER,
    )


profile = _entity(views.profile_intent, "A member's profile; the key of every event.")
intent_features = _source(views.intent_features)
profile_intent = _view(views.profile_intent, profile, intent_features)

title = _entity(views.title_profile, "A movie or a show of the catalogue.")
title_profiles = _source(views.title_profiles)
title_profile = _view(views.title_profile, title, title_profiles)

model = _entity(views.model_labels, "A version of the model.")
model_label_files = _source(views.model_label_files)
model_labels = _view(views.model_labels, model, model_label_files)

# Feast writes into the function that it is of the main module, in which its text isn't found when
# this file is read once more, as `feast apply` does.
_match = title_match.intent_title_match
_match = FunctionType(_match.__code__, vars(title_match), _match.__name__)

# Feast compares the declared fields with bare ones that it infers, so a description or tags on a
# scalar would make `feast apply` fail; they stand in the view's tags instead.
intent_title_match = on_demand_feature_view(
    sources=[
        profile_intent[list(views.MATCH_INPUTS[profile_intent.name])],
        title_profile[list(views.MATCH_INPUTS[title_profile.name])],
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
)(_match)

ranker_v1 = FeatureService(
    name=views.RANKER,
    features=[profile_intent],
    description="Everything that a ranker reads of a profile: all of profile_intent.",
    tags={"team": OWNER, "consumer": "ranking"},
    owner=OWNER,
)

search_rerank_v1 = FeatureService(
    name=views.SEARCH_RERANK,
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
    name=views.PROJECT,
    description="Live viewing intents of member profiles, for rankers and search.",
    owner=OWNER,
    # A registry shows by it whether it holds these definitions or those of another release.
    tags=TAGS | {"definitions": digest(_DEFINED)},
)

OBJECTS: Final = [project, *_DEFINED]
"""All of the above, in the order in which `FeatureStore.apply` takes them."""
