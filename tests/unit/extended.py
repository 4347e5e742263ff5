"""Run in a copy of the tree with one more head and event type: prints what becomes of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import torch

from features.definitions import profile_intent
from features.online.feast_rows import to_protos
from features.registry.reference import page
from fm_intent import model_config
from fm_intent.evaluate import evaluate
from fm_intent.experiments import Experiment, Training
from fm_intent.export import export
from fm_intent.model_config import CONFIGS, MODEL
from fm_intent.served.network import Architecture
from fm_intent.train import fit
from fm_intent.validation import golden_windows, validated
from lab.bench.publish import made_up_rows
from lab.demo.report import _described
from lab.replay.plan import topic_of
from stream.domain.actions import action_types
from stream.domain.batch_states import BatchStates
from stream.domain.catalogue import Catalogue
from stream.domain.divergence import divergence
from stream.domain.events import decode, json_schema
from stream.domain.feature_row import IntentRow
from stream.domain.intent_rows import IntentRows
from stream.domain.labels import ACTIONS
from stream.domain.profile_state import ProfileState
from stream.domain.row_building import intent_rows
from stream.domain.rules import Rules
from stream.domain.sessions import NO_SESSION
from stream.domain.window import WindowBatch
from tests.unit.fm_intent import tiny
from tests.unit.fm_intent.test_export import manifest

HOME = Path("model_repo") / MODEL
HEAD, EVENT, TOPIC = "daypart", "thumbs_up", "browse-events"


def head(folder: Path) -> dict[str, Any]:
    """What becomes of the head from training to the online store."""
    torch.set_num_threads(1)
    data = tiny.sequences()
    quick = Training(epochs=1, batch=512, learning_rate=1e-2, warmup_steps=5)
    experiment = Experiment(Architecture(width=16, hidden=16, item_layers=1), quick)
    model = fit(data, experiment, seed=0, run_dir=folder / "run", data_id="made-up").model
    report = evaluate(model, data, window=64, crops="served")
    export(model, manifest(), tiny.windows(data), folder / "models")
    exported = validated(folder / "models", 1)
    windows: WindowBatch = golden_windows(exported)
    answer = exported.answer(windows)
    names = [f"profile-{number}" for number in range(len(windows))]
    states = BatchStates.of(ProfileState() for _ in names)
    sessions = [NO_SESSION] * len(names)
    rows = intent_rows(names, states, sessions, answer, Catalogue(), now_ms=1)
    row, published = rows[0], rows.to_json()[0]
    return {
        "sums": answer.probs[HEAD].sum(1).tolist(),
        "judged": report["intents"][HEAD],
        "diverges": divergence(answer, answer).heads[HEAD].tolist(),
        "row": orjson.loads(published),
        "read back": IntentRows.of([IntentRow.from_json(published)])[0] == row,
        "fields": [feature.name for feature in profile_intent.features],
        "store": sorted(to_protos(row)[1]),
        "page": page(),
        "made up": list(made_up_rows(1, seed=0)[0].published()),
        "demo": dict(_described(row, {})),
    }


def event() -> dict[str, Any]:
    """What becomes of the event from its record to the model's input."""
    value = {"event_id": "e", "profile_id": "p", "event_type": EVENT, "occurred_at_ms": 1}
    value["title_id"] = "t"
    read = decode(TOPIC, b"p", orjson.dumps(value), broker_time_ms=1)
    state, rules = ProfileState(), Rules()
    outcome = state.apply(read, rules).value
    actions = action_types(state.memory, state.window, rules)
    return {
        "type": read.event_type,
        "outcome": outcome,
        "verb": state.window["verb"].tolist(),
        "actions": [ACTIONS[action] for action in actions.tolist()],
        "schema": json_schema(TOPIC),
        "is playback": topic_of(pa.chunked_array([[EVENT]])).tolist(),
    }


if __name__ == "__main__":
    found = {
        "home": model_config.__file__,
        "configured": {path: (HOME / path).read_text() == CONFIGS[path] for path in CONFIGS},
        "config": CONFIGS["config.pbtxt"],
        "head": head(Path(sys.argv[1])),
        "event": event(),
    }
    print(json.dumps(found))
