"""How well a title fits a profile: the function of the on-demand view `intent_title_match`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any


# Feast runs this function from its source text alone, without this module's names: hence the
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
