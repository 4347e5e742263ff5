"""The views of the feature store: which features there are, and what they mean.

`features.definitions` makes Feast's objects of them. What writes and reads rows goes by these, so
that it needs no Feast. Fields are the ones of `stream.domain.feature_row.IntentRow`.
"""

from __future__ import annotations

from itertools import chain
from typing import Final

from features.schema.fields import Feature, FieldType, Source, View
from stream.domain.heads import HEADS, INTENTS, Head

PROJECT: Final = "intentstream"
RANKER: Final = "ranker_v1"
"""The service of rankers."""
SEARCH_RERANK: Final = "search_rerank_v1"
"""The service of a search."""

_ON_EXPORT: Final = "with each model version"


def _probabilities(head: Head) -> Feature:
    return Feature(
        head.probs,
        FieldType.FLOAT32S,
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


def _label(head: Head) -> Feature:
    return Feature(
        head.name,
        FieldType.STRING,
        f"The likeliest {head.likeliest}; empty where the model version has no such head.",
        "scalar",
        f"a label of {head.probs}, or empty",
    )


def _embedding(name: str, description: str) -> Feature:
    return Feature(
        name, FieldType.FLOAT32S, description, "[D], D of the model version", "any float"
    )


intent_features: Final = Source(
    "intent_features",
    "Every published row. event_timestamp is the newest event's time, created_timestamp the time "
    "of publishing; both to the millisecond.",
)

profile_intent: Final = View(
    name="profile_intent",
    entity="profile",
    join_key="profile_id",
    days=400,
    features=(
        *chain.from_iterable((_probabilities(head), _label(head)) for head in HEADS),
        Feature(
            "intent_attention",
            FieldType.FLOAT32S,
            f"Weight of each intent head in intent_embedding, in this order: {', '.join(INTENTS)}. "
            "0 for a head that the model version lacks.",
            f"[{len(INTENTS)}]",
            "0 to 1, sum 1",
        ),
        _embedding("intent_embedding", "The live intent as one vector, made of the heads alone."),
        Feature(
            "next_title_ids",
            FieldType.STRINGS,
            "Ids of the titles that are likeliest to be played next, best first.",
            "[20]",
            "title ids",
        ),
        Feature(
            "next_title_scores",
            FieldType.FLOAT32S,
            "Probability of each title in next_title_ids being played next.",
            "[20]",
            "0 to 1, descending",
        ),
        Feature(
            "title_log_norm",
            FieldType.FLOAT32,
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
        Feature(
            "session_id", FieldType.STRING, "Id of the running session.", "scalar", "any string"
        ),
        Feature(
            "session_length",
            FieldType.INT64,
            "Interactions in the running session.",
            "scalar",
            "1 or more",
        ),
        Feature(
            "intent_cluster",
            FieldType.INT64,
            "Nearest centre of intent_embedding; -1 where the model version has no centres.",
            "scalar",
            "-1 or more",
        ),
        Feature(
            "model_version",
            FieldType.STRING,
            "Model version that made this row.",
            "scalar",
            "any string",
        ),
        Feature(
            "sequence_no",
            FieldType.INT64,
            "Grows with the profile's state; at one event time the higher is newer.",
            "scalar",
            "1 or more",
        ),
        Feature(
            "last_event_id",
            FieldType.STRING,
            "Id of the newest event in the row.",
            "scalar",
            "1-256 chars",
        ),
        Feature(
            "last_event_at",
            FieldType.UNIX_TIMESTAMP,
            "Time of the newest event, in whole seconds; the row's event timestamp has the "
            "milliseconds.",
            "scalar",
            "UTC",
        ),
        Feature(
            "published_at",
            FieldType.UNIX_TIMESTAMP,
            "Time at which the row was published, in whole seconds.",
            "scalar",
            "UTC",
        ),
        Feature(
            "labels_id",
            FieldType.STRING,
            "Names the labels of the model version; probabilities of one are those of another "
            "where both have the same. Null in rows of a release before versions had their own.",
            "scalar",
            "16 hex digits",
        ),
    ),
    source=intent_features,
    description="What a profile intends to watch next, updated after every one of its events.",
)

title_profiles: Final = Source(
    "title_profiles",
    "Each time that a model version is published, one row of each title dated by its release, "
    "without an embedding, and one dated by the end of the version's training data, with it.",
)

title_profile: Final = View(
    name="title_profile",
    entity="title",
    join_key="title_id",
    features=(
        Feature(
            "title_genres",
            FieldType.STRINGS,
            "Genres; empty where the catalogue has none.",
            "any length",
            "labels of genre_probs",
            _ON_EXPORT,
        ),
        Feature(
            "title_kind",
            FieldType.STRING,
            "Movie or show; null where the catalogue doesn't say.",
            "scalar",
            "a label of kind_probs, or null",
            _ON_EXPORT,
        ),
        Feature(
            "title_genre_numbers",
            FieldType.INT64S,
            "Places of the title's genres in genre_probs of the labels title_labels_id.",
            "any length",
            "0 or more",
            _ON_EXPORT,
        ),
        Feature(
            "title_kind_number",
            FieldType.INT64,
            "Place of the title's kind in kind_probs of the labels title_labels_id; null where "
            "they have none for it.",
            "scalar",
            "0 or more",
            _ON_EXPORT,
        ),
        Feature(
            "title_labels_id",
            FieldType.STRING,
            "Labels that the numbers are of, as labels_id of a profile's row.",
            "scalar",
            "16 hex digits",
            _ON_EXPORT,
        ),
        Feature(
            "title_released_at",
            FieldType.UNIX_TIMESTAMP,
            "Day of the release; null where unknown.",
            "scalar",
            "UTC, whole days",
            _ON_EXPORT,
        ),
        Feature(
            "title_embedding",
            FieldType.FLOAT32S,
            "The title's vector; its dot product with user_embedding of the same model version "
            "scores the title for a profile. Null before the first version.",
            "[D], D of the model version",
            "any float",
            _ON_EXPORT,
        ),
        Feature(
            "title_embedding_version",
            FieldType.STRING,
            "Model version that title_embedding is of; null before the first version.",
            "scalar",
            "any string",
            _ON_EXPORT,
        ),
    ),
    source=title_profiles,
    description="What is known of a title, and its vector in the model's space.",
)


model_label_files: Final = Source(
    "model_labels", "One row each time that a model version is published."
)

model_labels: Final = View(
    name="model_labels",
    entity="model",
    join_key="model_version",
    features=(
        *(
            Feature(
                f"{head.name}_labels",
                FieldType.STRINGS,
                f"Names of {head.probs}, in its order.",
                "[C]",
                "any strings",
                _ON_EXPORT,
            )
            for head in HEADS
        ),
        Feature(
            "model_labels_id",
            FieldType.STRING,
            "As labels_id of the version's rows.",
            "scalar",
            "16 hex digits",
            _ON_EXPORT,
        ),
    ),
    source=model_label_files,
    description="What the numbers in a model version's probabilities mean.",
)

MATCH_INPUTS: Final[dict[str, tuple[str, ...]]] = {
    profile_intent.name: (
        "genre_probs",
        "kind_probs",
        "next_title_ids",
        "next_title_scores",
        "title_log_norm",
        "user_embedding",
        "model_version",
        "labels_id",
    ),
    title_profile.name: (
        "title_genres",
        "title_kind",
        "title_genre_numbers",
        "title_kind_number",
        "title_labels_id",
        "title_embedding",
        "title_embedding_version",
    ),
}
"""By view, what `features.schema.title_match` takes."""
