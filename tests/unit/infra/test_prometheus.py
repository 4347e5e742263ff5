from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from grafana_foundation_sdk.models.prometheus import Dataquery
from grafana_foundation_sdk.models.timeseries import Options
from prometheus_client import REGISTRY

import stream.metrics  # noqa: F401 - registers what is told
from tests.checkout import REPOSITORY

PROMTOOL: Final = shutil.which("promtool")
CONFIG: Final = REPOSITORY / "infra" / "prometheus" / "prometheus.yml"
RULES: Final = CONFIG.with_name("rules.yml")
DASHBOARD: Final = REPOSITORY / "infra" / "grafana" / "dashboards" / "intentstream.json"

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="needs Prometheus's promtool")


SUFFIXES: Final = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "gauge": ("",),
}
OF_OTHERS: Final = r"nv_\w+|up"
"""Metrics that Triton's own and Prometheus itself have."""


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


def known_metrics() -> set[str]:
    """Names of the series that our processes tell, and of those of the model in Triton."""
    of_ours = {
        family.name + suffix
        for family in REGISTRY.collect()
        for suffix in SUFFIXES.get(family.type, ())
    }
    # Only Triton can import what it runs.
    served = (REPOSITORY / "fm_intent" / "served" / "model.py").read_text()
    told = re.findall(r'^ +"(\w+)": ', served.partition("class _Metrics")[2], re.MULTILINE)
    of_the_cache = {f"fm_intent_cache_{name}{end}" for name in told for end in ("", "_total")}
    return of_ours | of_the_cache


def asked(expression: str) -> set[str]:
    """Names of the series that an expression asks for."""
    plain = re.sub(r'"[^"]*"|\b(?:by|without|on|ignoring) \([^)]*\)', "", expression)
    words = set(re.findall(r"\b[a-z]\w*_\w+\b(?! *\()|\bup\b", re.sub(r"\{[^}]*\}", "", plain)))
    return words - {"__rate_interval"}


def expressions() -> Iterator[Any]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']}, {target['refId']}")
    for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]:
        yield pytest.param(rule["expr"], id=rule["alert"])


@pytest.mark.parametrize("expression", [*expressions()])
def test_what_panels_and_alerts_ask_for_is_told_by_somebody(expression: str) -> None:
    names = asked(expression)
    assert names
    assert {one for one in names if not re.fullmatch(OF_OTHERS, one)} <= known_metrics()


def unknown_to(model: Any, ours: Any, place: str = "") -> list[str]:
    """What of ours isn't in Grafana's model of it."""
    if isinstance(ours, dict):
        there = model if isinstance(model, dict) else {}
        return [
            found
            for key, value in ours.items()
            for found in (
                unknown_to(there[key], value, f"{place}.{key}")
                if key in there
                else [f"{place}.{key}"]
            )
        ]
    if isinstance(ours, list):
        return [
            found
            for number, (one, value) in enumerate(zip(model, ours, strict=True))
            for found in unknown_to(one, value, f"{place}[{number}]")
        ]
    return [] if model == ours else [place]


def in_grafana_s_model(dashboard: dict[str, Any]) -> list[str]:
    register_default_plugins()
    read = Dashboard.from_json(dashboard)
    assert read.panels
    for panel in read.panels:
        assert isinstance(panel.options, Options)  # type: ignore[union-attr]
        assert all(isinstance(one, Dataquery) for one in panel.targets)  # type: ignore[union-attr]
    return unknown_to(json.loads(JSONEncoder().encode(read)), dashboard)


def test_grafana_s_own_model_of_a_dashboard_knows_all_that_ours_says() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert in_grafana_s_model(dashboard) == []
    dashboard["panels"][0]["options"]["lgend"] = 1
    dashboard["panels"][1]["targets"][0]["expresion"] = "up"
    assert in_grafana_s_model(dashboard) == [
        ".panels[0].options.lgend",
        ".panels[1].targets[0].expresion",
    ]


def test_panels_and_their_queries_are_told_apart_and_have_units_that_grafana_knows() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    for names in ([one["id"] for one in panels], [one["title"] for one in panels]):
        assert len(set(names)) == len(panels)
    for panel in panels:
        letters = [one["refId"] for one in panel["targets"]]
        assert len(set(letters)) == len(letters)
    used = {panel["fieldConfig"]["defaults"]["unit"] for panel in panels}
    assert used <= {value for name, value in vars(units).items() if name[0].isupper()}
