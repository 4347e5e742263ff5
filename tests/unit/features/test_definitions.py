from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from feast import FeatureService, Field
from feast.repo_operations import get_repo_files

import features
from features import definitions
from features.online.encoding import ENCODERS, row_attribute
from stream.domain.feature_row import IntentRow

REPOSITORY = Path(features.__file__).parent
CONFIGURATIONS = sorted(REPOSITORY.glob("feature_store*.yaml"))


def _name(feature: Field) -> str:
    return str(feature.name)


def test_the_view_has_every_field_of_a_row_in_its_order() -> None:
    attributes = [row_attribute(feature) for feature in definitions.profile_intent.features]
    assert ["profile_id", *attributes] == [field.name for field in fields(IntentRow)]


@pytest.mark.parametrize(
    "feature",
    [*definitions.profile_intent.features, *definitions.title_profile.features],
    ids=_name,
)
def test_a_feature_says_what_it_is_and_whose(feature: Field) -> None:
    assert feature.description
    assert {"owner", "shape", "range", "freshness"} <= feature.tags.keys()


@pytest.mark.parametrize("feature", definitions.profile_intent.features, ids=_name)
def test_a_feature_has_a_type_that_the_writer_encodes(feature: Field) -> None:
    assert feature.dtype in ENCODERS


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
