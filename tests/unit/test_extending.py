"""The recipes of docs/extending.md, carried out in a copy of the tree."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from tests.checkout import REPOSITORY

RECIPES = (REPOSITORY / "docs" / "extending.md").read_text()
COPIED = ("features", "fm_intent", "infra", "intentstream", "lab", "model_repo", "stream", "tests")
PAGE = Path("docs/features.md")
HEADS = Path("stream/domain/heads.py")
EVENT_TYPES = Path("stream/domain/event_types.py")

DAYPART = '''
    Head(
        name="daypart",
        labels=("night", "morning", "afternoon", "evening"),
        label=OfInteraction(lambda happened: happened.start_ms // 21_600_000 % 4),
        probability_of="the next interaction's part of the day",
        likeliest="part of the day of the next interaction",
    ),
)
"""In the order of tensors'''

THUMBS_UP = """
    EventType("thumbs_up", BROWSE_EVENTS, Browse, verb=5, action="list"),
)

BY_NAME"""


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`((?:\w+/)+\w+\.\w+)`", RECIPES))))
def test_each_file_that_the_recipes_name_is_there(named: str) -> None:
    homes = (REPOSITORY, REPOSITORY / "fm_intent", REPOSITORY / "model_repo" / "fm_intent")
    assert any((home / named).exists() for home in homes)


def copy_of_the_tree(folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__", "[0-9]*", "*.db")
    for name in COPIED:
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    (folder / PAGE).parent.mkdir()
    shutil.copy(REPOSITORY / PAGE, folder / PAGE)
    return folder


def insert(file: Path, end: str, row: str) -> None:
    text = file.read_text()
    assert text.count(end) == 1
    file.write_text(text.replace(end, row))


def add_the_head(tree: Path) -> None:
    insert(tree / HEADS, '\n)\n"""In the order of tensors', DAYPART)


def add_the_event_type(tree: Path) -> None:
    insert(tree / EVENT_TYPES, "\n)\n\nBY_NAME", THUMBS_UP)


def run(tree: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(tree: Path) -> dict[Path, bytes]:
    return {one.relative_to(tree): one.read_bytes() for one in tree.rglob("*") if one.is_file()}


class Extended(NamedTuple):
    """A copy with one more head, written out as the recipe says, and one more event type."""

    tree: Path
    for_the_head: set[Path]
    """Files that the head changed."""
    for_the_event_type: set[Path]


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Extended:
    tree = copy_of_the_tree(tmp_path_factory.mktemp("extended"))
    before = contents(tree)
    add_the_head(tree)
    run(tree, "fm_intent.model_config", "model_repo/fm_intent")
    (tree / PAGE).write_text(run(tree, "features.registry.reference"))
    between = contents(tree)
    add_the_event_type(tree)
    after = contents(tree)
    return Extended(
        tree,
        {one for one, text in between.items() if before.get(one) != text},
        {one for one, text in after.items() if between.get(one) != text},
    )


@pytest.fixture(scope="module")
def found(extended: Extended, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("found")
    told: dict[str, Any] = json.loads(run(extended.tree, "tests.unit.extended", str(folder)))
    assert Path(told["home"]).is_relative_to(extended.tree)
    return told


def test_an_event_type_is_added_by_its_row_alone(extended: Extended) -> None:
    assert extended.for_the_event_type == {EVENT_TYPES}


def test_a_head_is_added_by_its_row_and_two_commands_that_write_the_rest(
    extended: Extended,
) -> None:
    assert extended.for_the_head == {
        HEADS,
        Path("model_repo/fm_intent/config.pbtxt"),
        Path("model_repo/fm_intent/configs/gpu.pbtxt"),
        PAGE,
    }


def test_a_new_head_is_a_tensor_of_the_model(found: dict[str, Any]) -> None:
    assert all(found["configured"].values())
    assert '{ name: "daypart_probs" data_type: TYPE_FP32 dims: [ 4 ] }' in found["config"]
    assert '{ name: "intent_attention" data_type: TYPE_FP32 dims: [ 5 ] }' in found["config"]


def test_a_new_head_is_trained_judged_exported_and_answered(found: dict[str, Any]) -> None:
    assert found["head"]["sums"] == pytest.approx([1.0] * 12, abs=1e-5)
    assert 0 <= found["head"]["judged"]["accuracy"] <= 1
    assert found["head"]["diverges"] == pytest.approx([0.0] * 12, abs=1e-6)


def test_a_new_head_is_in_the_published_row(found: dict[str, Any]) -> None:
    row = found["head"]["row"]
    labels = ("night", "morning", "afternoon", "evening")
    assert len(row["daypart_probs"]) == 4
    assert row["daypart"] == labels[row["daypart_probs"].index(max(row["daypart_probs"]))]
    assert len(row["intent_attention"]) == 5
    assert found["head"]["read back"]


def test_a_new_head_has_features_in_the_view_the_store_and_the_reference(
    found: dict[str, Any],
) -> None:
    head = found["head"]
    place = head["fields"].index("daypart_probs")
    assert head["fields"][place - 1 : place + 3] == [
        "release_age",
        "daypart_probs",
        "daypart",
        "intent_attention",
    ]
    assert {"daypart", "daypart_probs"} < set(head["store"])
    assert "| `daypart_probs` |" in head["page"]
    assert "night, morning, afternoon, evening" in head["page"]


def test_a_new_head_is_shown_and_measured(found: dict[str, Any]) -> None:
    assert "daypart next" in found["head"]["demo"]
    assert "daypart_probs" in found["head"]["made up"]


def test_a_head_that_was_not_written_out_is_found_by_the_tests(tmp_path: Path) -> None:
    forgetful = copy_of_the_tree(tmp_path / "tree")
    add_the_head(forgetful)
    checks = (
        "tests/unit/fm_intent/test_model_repository.py",
        "tests/unit/features/registry/test_reference.py",
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *checks],
        cwd=forgetful,
        env=os.environ | {"PYTHONPATH": str(forgetful)},
        capture_output=True,
        text=True,
    )
    failed = {
        line.split("::")[0].split("/")[-1]
        for line in done.stdout.splitlines()
        if line.startswith("FAILED")
    }
    assert failed == {"test_model_repository.py", "test_reference.py"}, done.stdout


def test_a_new_event_type_is_read_and_changes_the_state(found: dict[str, Any]) -> None:
    event = found["event"]
    assert (event["type"], event["outcome"]) == ("thumbs_up", "applied")
    assert not event["is playback"][0]


def test_a_new_event_type_makes_its_interaction_and_stands_for_its_action(
    found: dict[str, Any],
) -> None:
    assert (found["event"]["verb"], found["event"]["actions"]) == ([5], ["list"])


def test_a_new_event_type_is_in_the_json_schema(found: dict[str, Any]) -> None:
    event = {"event_id": "e", "profile_id": "p", "occurred_at_ms": 1, "title_id": "t"}
    schema = found["event"]["schema"]
    jsonschema.validate({**event, "event_type": "thumbs_up"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**event, "event_type": "thumbs_down"}, schema)
