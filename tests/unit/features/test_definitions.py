from __future__ import annotations

import re
import subprocess
import sys
from copy import copy
from pathlib import Path

import pytest
import yaml
from feast import Entity, FeatureService, FeatureView, Field
from feast.repo_operations import get_repo_files

import features
from features import definitions
from features.online.encoding import ENCODERS
from features.schema import views
from features.schema.fields import Feature
from stream.domain.feature_row import PUBLISHED

REPOSITORY = Path(features.__file__).parent
CONFIGURATIONS = sorted(REPOSITORY.glob("feature_store*.yaml"))


def _name(feature: Field | Feature) -> str:
    return str(feature.name)


def test_the_view_has_every_field_of_a_row_in_its_order() -> None:
    names = [feature.row_field for feature in views.profile_intent.features]
    assert ("profile_id", *names) == PUBLISHED


@pytest.mark.parametrize(
    "feature",
    [*definitions.profile_intent.features, *definitions.title_profile.features],
    ids=_name,
)
def test_a_feature_says_what_it_is_and_whose(feature: Field) -> None:
    assert feature.description
    assert {"owner", "shape", "range", "freshness"} <= feature.tags.keys()


@pytest.mark.parametrize("feature", views.profile_intent.features, ids=_name)
def test_a_feature_has_a_type_that_the_writer_encodes(feature: Feature) -> None:
    assert feature.type in ENCODERS


def test_feast_imports_the_definitions_and_no_other_module() -> None:
    assert get_repo_files(REPOSITORY) == [REPOSITORY / "definitions.py"]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_the_configuration_names_the_project_of_the_definitions(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["project"] == definitions.project.name


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.stem)
def test_the_configuration_keeps_feasts_timestamp_check(path: Path) -> None:
    assert "skip_dedup" not in path.read_text()


@pytest.mark.parametrize(
    "service", [definitions.ranker_v1, definitions.search_rerank_v1], ids=lambda one: one.name
)
def test_no_service_is_precomputed(service: FeatureService) -> None:
    assert not service.precompute_online


def test_every_match_says_what_it_is() -> None:
    view = definitions.intent_title_match
    assert {feature.name for feature in view.features} <= view.tags.keys()


def test_the_registered_function_imports_nothing_that_another_release_lacks() -> None:
    text = definitions.intent_title_match.feature_transformation.udf_string
    assert set(re.findall(r"^ *from (\S+) import", text, re.M)) == {
        *("math", "operator", "stream.taxonomy"),
    }


def changed_view(description: str) -> FeatureView:
    """The view of intents, of which one feature says something else."""
    view = copy(definitions.profile_intent)
    first, *rest = view.features
    view.features = [Field(name=first.name, dtype=first.dtype, description=description), *rest]
    return view


def test_what_registries_show_their_release_by_changes_with_any_definition() -> None:
    first, second, *_ = definitions.OBJECTS[1:]
    renamed = Entity(name="member", join_keys=[first.join_key], value_type=first.value_type)
    told = [
        [first, second],
        [second],
        [renamed, second],
        [definitions.profile_intent],
        [changed_view("one")],
        [changed_view("another")],
    ]
    assert len({definitions.digest(one) for one in told}) == len(told)


def test_it_changes_with_the_text_of_a_registered_function() -> None:
    view = copy(definitions.intent_title_match)
    view.feature_transformation = copy(view.feature_transformation)
    view.feature_transformation.udf_string += "\n"
    before = definitions.digest([definitions.intent_title_match])
    assert definitions.digest([view]) != before


def test_it_is_the_same_in_every_process() -> None:
    ask = "from features.definitions import project; print(project.tags['definitions'])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ask], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == definitions.project.tags["definitions"]
