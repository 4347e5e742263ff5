"""A real Prometheus scrapes worker, sink and Triton, evaluates the rules, answers the dashboard."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
import yaml

from infra.local.stack import Stack
from stream.kafka.admin import create_topics
from stream.ports import free_ports
from stream.settings import Settings
from tests.checkout import REPOSITORY
from tests.conftest import isolate
from tests.sinks import sink
from tests.workers import ANSWER_S, online, send, title_open, until, worker

PROMETHEUS: Final = shutil.which("prometheus")
CONFIG: Final = REPOSITORY / "infra" / "prometheus" / "prometheus.yml"
DASHBOARD: Final = REPOSITORY / "infra" / "grafana" / "dashboards" / "intentstream.json"
PANELS: Final = json.loads(DASHBOARD.read_text())["panels"]
QUERIES: Final = [
    pytest.param(target["expr"], id=f"{panel['title']}, {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
NOT_SEEN: Final = (
    "intentstream_retries_total",
    "intentstream_shadow_",
    "intentstream_log_resets_total",
    "intentstream_model_server_left",
)
"""Of what doesn't happen here there is no series."""

pytestmark = pytest.mark.skipif(
    PROMETHEUS is None, reason="needs Prometheus: `python infra/bootstrap.py --prometheus`"
)


@dataclass
class Prometheus:
    """A running one, and the worker that it scrapes."""

    address: str
    worker: subprocess.Popen[bytes]

    def ask(self, path: str, **query: str) -> Any:
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=ANSWER_S) as answer:
            told = json.load(answer)
        assert told["status"] == "success"
        return told["data"]

    def answers(self) -> bool:
        try:
            return self.ask("status/runtimeinfo") is not None
        except OSError:
            return False

    def series(self, expression: str) -> list[Any]:
        found: list[Any] = self.ask("query", query=expression)["result"]
        return found

    def rules(self) -> dict[str, Any]:
        return {rule["name"]: rule for rule in self.ask("rules")["groups"][0]["rules"]}


def configuration(stack: Stack, settings: Settings) -> dict[str, Any]:
    """Ours, with the addresses of here and a shorter interval."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    ports = {
        "worker:9464": settings.metrics_port,
        "sink:9465": settings.sink_port,
        "triton:8002": stack.settings.triton_metrics_port,
    }
    for job in config["scrape_configs"]:
        for group in job.get("static_configs", ()):
            group["targets"] = [f"127.0.0.1:{ports.pop(one)}" for one in group["targets"]]
    assert not ports
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(CONFIG.with_name(name)) for name in config["rule_files"]]
    return config


@pytest.fixture(scope="module")
def prometheus(
    stack: Stack,
    kafka: str,
    redis: str,
    served_model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prometheus]:
    home = tmp_path_factory.mktemp("prometheus")
    settings = isolate(stack.settings, home).model_copy(
        update={"model_version": served_model, "sink_interval_s": 1.0}
    )
    asyncio.run(create_topics(settings))
    (home / "prometheus.yml").write_text(yaml.safe_dump(configuration(stack, settings)))
    (port,) = free_ports(1)
    with (
        worker(settings, home / "worker.log", wait=True) as process,
        sink(settings),
        (home / "prometheus.log").open("wb") as log,
    ):
        command = [str(PROMETHEUS), f"--config.file={home / 'prometheus.yml'}"]
        command += [
            f"--storage.tsdb.path={home / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with subprocess.Popen(command, stdout=log, stderr=log) as server:
            try:
                running = Prometheus(f"http://127.0.0.1:{port}", process)
                until(running.answers, "an answer of Prometheus")
                until(lambda: len(running.series("up == 1")) == 3, "three targets that are up")
                for number in range(3):
                    event = title_open("scraped")
                    send(settings, [event, title_open(f"other-{number}"), (b"bad", b"nonsense")])
                    until(
                        lambda event=event: online(settings, "scraped") == event["event_id"],  # type: ignore[misc]
                        "the features",
                    )
                yield running
            finally:
                server.terminate()


@pytest.mark.parametrize("expression", QUERIES)
def test_each_query_of_the_dashboard_has_an_answer(prometheus: Prometheus, expression: str) -> None:
    expression = expression.replace("$__rate_interval", "1m")
    assert "$" not in expression
    if any(name in expression for name in NOT_SEEN):
        assert prometheus.series(expression) == []
    else:
        until(lambda: bool(prometheus.series(expression)), expression)


def test_every_rule_can_be_evaluated(prometheus: Prometheus) -> None:
    until(lambda: all(one["health"] != "unknown" for one in prometheus.rules().values()), "a look")
    assert {one["health"] for one in prometheus.rules().values()} == {"ok"}
    assert {one.get("lastError") for one in prometheus.rules().values()} == {None}
    written = yaml.safe_load(CONFIG.with_name("rules.yml").read_text())["groups"][0]["rules"]
    assert [*prometheus.rules()] == [rule["alert"] for rule in written]


def test_dead_letters_fire_their_alert_and_a_healthy_system_no_other(
    prometheus: Prometheus,
) -> None:
    until(lambda: prometheus.rules()["IntentDeadLetters"]["state"] == "firing", "the alert")
    firing = {name for name, rule in prometheus.rules().items() if rule["state"] == "firing"}
    assert firing == {"IntentDeadLetters"}
    (alert,) = prometheus.rules()["IntentDeadLetters"]["alerts"]
    assert re.fullmatch(
        r"Records of browse-events were rejected: \w+\.", alert["annotations"]["summary"]
    )


def test_a_worker_that_ended_is_a_target_that_is_down(prometheus: Prometheus) -> None:
    prometheus.worker.terminate()
    until(lambda: prometheus.rules()["IntentTargetDown"]["state"] != "inactive", "the alert")
    (alert,) = prometheus.rules()["IntentTargetDown"]["alerts"]
    assert alert["labels"]["job"] == "worker"
