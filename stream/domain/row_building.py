"""Turn the model's answer and a profile's state into the row that is published."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stream.domain.catalogue import Catalogue
from stream.domain.feature_row import IntentRow
from stream.domain.heads import HEADS, INTENTS
from stream.domain.prediction import Intents
from stream.domain.profile_state import ProfileState
from stream.domain.sessions import Session
from stream.domain.version_labels import BUILT_IN, VersionLabels
from stream.exceptions import LabelsError


def intent_rows(
    profiles: Sequence[tuple[str, ProfileState]],
    sessions: Sequence[Session],
    intents: Intents,
    catalogue: Catalogue,
    version_labels: VersionLabels = BUILT_IN,
    *,
    now_ms: int,
) -> list[IntentRow]:
    """One row for each profile with its session, in order.

    Args:
        profiles: their ids and states.
        sessions: their live sessions.
        intents: what one version answered.
        catalogue: names of titles.
        version_labels: the version's.
        now_ms: becomes `published_at_ms`.

    Raises:
        LabelsError: when the version answered with other labels than these.
    """
    probs, labels = zip(
        *(
            _head(head.name, intents.probs[head.name], version_labels.of_head(head))
            for head in HEADS
        ),
        strict=True,
    )
    probs_of = [dict(zip(INTENTS, row, strict=True)) for row in zip(*probs, strict=True)]
    labels_of = [dict(zip(INTENTS, row, strict=True)) for row in zip(*labels, strict=True)]
    attention = intents.intent_attention.tolist()
    embedding = intents.intent_embedding.tolist()
    cluster = intents.intent_cluster[:, 0].tolist()
    titles = intents.next_title_hash.tolist()
    scores = intents.next_title_score.tolist()
    log_norm = intents.title_log_norm[:, 0].tolist()
    user = intents.user_embedding.tolist()
    rows = []
    for i, ((profile_id, state), session) in enumerate(zip(profiles, sessions, strict=True)):
        rows.append(
            IntentRow(
                profile_id=profile_id,
                probs=probs_of[i],
                labels=labels_of[i],
                intent_attention=attention[i],
                intent_embedding=embedding[i],
                next_title_ids=[catalogue.title_id(title) for title in titles[i]],
                next_title_scores=scores[i],
                title_log_norm=log_norm[i],
                user_embedding=user[i],
                session_id=session.id,
                session_length=session.length,
                intent_cluster=cluster[i],
                model_version=intents.model_version[i],
                sequence_no=state.sequence_no,
                last_event_id=state.last_event_id,
                last_event_at_ms=state.last_at_ms,
                published_at_ms=now_ms,
                labels_id=version_labels.id,
            )
        )
    return rows


def _head(
    name: str, probabilities: NDArray[np.float32], labels: Sequence[str]
) -> tuple[list[list[float]], list[str]]:
    if probabilities.shape[1] != len(labels):
        raise LabelsError(
            f"the model answered with {probabilities.shape[1]} labels of {name}, of which "
            f"{len(labels)} are known; a version with labels of its own is to be made live by "
            "`intentstream model publish`, which tells the workers what they are"
        )
    rows = probabilities.tolist()
    trained = [any(row) for row in rows]
    top = probabilities.argmax(axis=1).tolist()
    return (
        [row if known else [] for row, known in zip(rows, trained, strict=True)],
        [labels[best] if known else "" for best, known in zip(top, trained, strict=True)],
    )
