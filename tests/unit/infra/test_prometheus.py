from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.checkout import REPOSITORY

PROMTOOL: Final = shutil.which("promtool")
CONFIG: Final = REPOSITORY / "infra" / "prometheus" / "prometheus.yml"
RULES: Final = CONFIG.with_name("rules.yml")
DASHBOARD: Final = REPOSITORY / "infra" / "grafana" / "dashboards" / "intentstream.json"

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs Prometheus's promtool")


def promtool(*arguments: str | Path) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_configuration_with_its_rules() -> None:
    promtool("check", "config", CONFIG)


@needs_promtool
def test_each_alert_fires_on_what_it_is_about_and_not_on_what_is_usual() -> None:
    promtool("test", "rules", Path(__file__).with_name("alerts.yml"))


def test_every_alert_says_how_urgent_it_is_and_what_to_look_at() -> None:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    assert group["rules"]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert {"summary", "description"} <= rule["annotations"].keys()


def test_every_panel_asks_the_data_source_that_is_provisioned_and_has_its_own_place() -> None:
    source = yaml.safe_load((DASHBOARD.parents[1] / "datasource.yml").read_text())["datasources"][0]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
