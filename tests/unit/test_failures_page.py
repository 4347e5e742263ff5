"""The page of failures promises nothing that no test shows."""

from __future__ import annotations

import ast
import re

import pytest
import yaml

from tests.checkout import REPOSITORY

PAGE = (REPOSITORY / "docs" / "failures.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "what fails" not in line
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_each_failure_names_a_test_that_there_is(row: list[str]) -> None:
    file, _, name = row[-1].strip("`").partition("::")
    tree = ast.parse((REPOSITORY / file).read_text())
    tests = {one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}
    assert name in tests or (not name and any(one.startswith("test_") for one in tests))


def test_each_alert_has_its_failure_and_each_that_is_named_there_is() -> None:
    rules = yaml.safe_load((REPOSITORY / "infra" / "prometheus" / "rules.yml").read_text())
    alerts = {rule["alert"] for rule in rules["groups"][0]["rules"]}
    named = set(re.findall(r"`(Intent[A-Z]\w+)`", PAGE))
    of_load = {"IntentFreshnessSlow", "IntentLagGrows", "IntentModelCacheMisses"}
    assert named == alerts - of_load - {"IntentTargetDown"}
