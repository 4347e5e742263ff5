"""Turn the model's answer and the profiles' states into the rows that are published."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.domain.batch_states import BatchStates
from stream.domain.catalogue import Catalogue
from stream.domain.heads import HEADS
from stream.domain.intent_rows import Column, FloatLists, IntentRows
from stream.domain.prediction import Intents
from stream.domain.sessions import Session
from stream.domain.version_labels import BUILT_IN, VersionLabels
from stream.exceptions import LabelsError


def intent_rows(
    profile_ids: list[str],
    states: BatchStates,
    sessions: Sequence[Session],
    intents: Intents,
    catalogue: Catalogue,
    version_labels: VersionLabels = BUILT_IN,
    *,
    now_ms: int,
) -> IntentRows:
    """One row for each profile with its session, in order.

    Args:
        profile_ids: of B profiles.
        states: theirs.
        sessions: their live sessions.
        intents: what one version answered.
        catalogue: names of titles.
        version_labels: the version's.
        now_ms: becomes `published_at_ms`.

    Raises:
        LabelsError: when the version answered with other labels than these.
    """
    columns: dict[str, Column] = {"profile_id": profile_ids}
    for head in HEADS:
        probabilities, labels = _head(
            head.name, intents.probs[head.name], version_labels.of_head(head)
        )
        columns |= {head.probs: probabilities, head.name: labels}
    columns |= {
        "intent_attention": _lists(intents.intent_attention),
        "intent_embedding": _lists(intents.intent_embedding),
        "next_title_ids": catalogue.ids_of(intents.next_title_hash),
        "next_title_scores": _lists(intents.next_title_score),
        "title_log_norm": intents.title_log_norm[:, 0],
        "user_embedding": _lists(intents.user_embedding),
        "session_id": [session.id for session in sessions],
        "session_length": np.array([session.length for session in sessions], np.int64),
        "intent_cluster": intents.intent_cluster[:, 0].astype(np.int64),
        "model_version": intents.model_version,
        "sequence_no": states.sequence_no(),
        "last_event_id": states.last_event_ids,
        "last_event_at_ms": states.heads["last_at_ms"].copy(),
        "published_at_ms": np.full(len(states), now_ms, np.int64),
        "labels_id": [version_labels.id] * len(states),
    }
    return IntentRows(columns)


def _lists(values: NDArray[np.float32]) -> FloatLists:
    return FloatLists(values, np.full(len(values), values.shape[1], np.int64))


def _head(
    name: str, probabilities: NDArray[np.float32], labels: Sequence[str]
) -> tuple[FloatLists, list[str]]:
    if probabilities.shape[1] != len(labels):
        raise LabelsError(
            f"the model answered with {probabilities.shape[1]} labels of {name}, of which "
            f"{len(labels)} are known; a version with labels of its own is to be made live by "
            "`intentstream model publish`, which tells the workers what they are"
        )
    trained = probabilities.any(axis=1)
    best = probabilities.argmax(axis=1)
    names = np.array([*labels, ""], object)
    return (
        FloatLists(probabilities, np.where(trained, probabilities.shape[1], 0)),
        names[np.where(trained, best, len(labels))].tolist(),
    )
