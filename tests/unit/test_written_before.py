"""What a release before wrote is read by this one: states, changelogs and model versions."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fm_intent.exported import ExportedVersion
from stream.domain import codec
from stream.domain.rules import Rules
from stream.domain.version_labels import BUILT_IN
from stream.domain.window import window_batch
from stream.kafka.changelog import HEAD_KEY, StatesByPlace, join_into
from stream.settings import Settings
from stream.worker.app import create_app
from tests.written_before import samples

KEPT = samples.states()


@pytest.fixture(scope="module")
def recovered() -> dict[bytes, bytes]:
    """The states of a worker that has read the changelog back."""
    table = create_app(Settings()).table
    table.apply_changelog_batch(SimpleNamespace(message=one) for one in samples.changelog())
    return {key: state for key in KEPT if (state := table.fetch(key)) is not None}


def seen(data: bytes, key: bytes) -> dict[str, Any]:
    state = codec.decode(data)
    batch = window_batch([(key.decode(), state)], Rules()).numbered(BUILT_IN)
    return {
        "sequence_no": state.sequence_no,
        "last_event_id": state.last_event_id,
        "last_at_ms": state.last_at_ms,
        "erased_at_ms": state.erased_at_ms,
        "folded": state.folded,
        "memory": len(state.memory),
        "horizon": list(state.horizon),
        "read": [list(place) for place in state.read],
        "title_hash": batch.title_hash[0].tolist(),
        "action": batch.action[0].tolist(),
        "start_ms": batch.start_ms[0].tolist(),
        "watched_share": pytest.approx(batch.watched_share[0].tolist(), abs=1e-6),
        "device": batch.device[0].tolist(),
    }


def test_a_worker_recovers_the_states_from_a_changelog_of_before(
    recovered: dict[bytes, bytes],
) -> None:
    assert recovered.keys() == KEPT.keys()
    for key, data in recovered.items():
        told = {name: KEPT[key][name] for name in KEPT[key] if name not in ("partition", "at_ms")}
        found = seen(data, key)
        # A watch time that nobody told was 0 then, so a state's measure may only be more.
        assert found.pop("sequence_no") >= told.pop("sequence_no")
        shares = [share or -1 for share in told.pop("watched_share")]
        assert shares == found.pop("watched_share")
        assert told == found


def test_a_state_of_before_is_renewed_once() -> None:
    values = [record.value for record in samples.changelog() if record.value]
    renewed = [codec.encode(codec.decode(value)) for value in values]
    assert values
    assert renewed != values
    assert [codec.encode(codec.decode(value)) for value in renewed] == renewed


def test_a_repartition_reads_the_same_states(recovered: dict[bytes, bytes]) -> None:
    states: StatesByPlace = {}
    for record in samples.changelog():
        if record.key != HEAD_KEY:
            join_into(states, record, Rules())
    assert {key: kept.data for (key, _), kept in states.items()} == recovered
    places = [(key, told["partition"]) for key, told in KEPT.items()]
    assert sorted(states) == sorted(places)


def test_a_version_of_before_answers_as_it_did(tmp_path: Path) -> None:
    version = samples.unpack_version(tmp_path)
    answer = ExportedVersion(tmp_path, version).answer(samples.windows()).tensors()
    for name, wanted in samples.answers().items():
        np.testing.assert_allclose(answer[name], wanted, rtol=1e-4, atol=1e-5, err_msg=name)
