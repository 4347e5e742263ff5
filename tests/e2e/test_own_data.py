"""A service that shares nothing with our sources: from a folder of its files to live features.

The commands are those of docs/your-data.md, in its order, in a folder without anything else.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
import pyarrow.parquet as pq
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from features.reading.intents import LiveIntent
from features.reading.reader import IntentReader
from features.registry.store import open_store
from infra.local.programs import worker_environment
from stream.adapters.registry import reader as adapter
from stream.kafka.connection import running
from tests import bridges
from tests.checkout import REPOSITORY
from tests.conftest import isolate
from tests.made_up_service import DAYS, GENRES, KINDS, Service
from tests.workers import http, lag, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from infra.local.stack import Stack
    from stream.settings import Settings

PAGE: Final = REPOSITORY / "docs" / "your-data.md"
OPTIONS: Final = {
    "profile": ["properties.profil", "userId"],
    "show": "properties.program",
    "browse": {"Title Viewed": "title_open"},
}
VERSION: Final = "951"
"""That no other test has had Triton serve; the page's is the first."""

COMMAND: Final = """\
import sys
from pathlib import Path
import stream.home
stream.home.HOME = Path.cwd()  # as where there is no checkout
from intentstream.cli.main import main
sys.argv[0] = "intentstream"
main()
"""


@dataclass(frozen=True)
class Step:
    """Commands of the page, what it says that they print, and what they printed."""

    commands: str
    said: str
    told: str = ""


@dataclass(frozen=True)
class Walk:
    """What is there once all commands of the page have run."""

    folder: Path
    settings: Settings
    service: Service
    steps: list[Step]
    newest: dict[str, str]
    """The id of the newest event of each profile that the service's topic tells of."""


def steps_of(page: str) -> list[Step]:
    """The blocks of commands, each with the output that follows it, if one is to be the same."""
    blocks = re.findall(r"^```(sh|text same)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    found: list[Step] = []
    for kind, text in blocks:
        if kind == "sh":
            found.append(Step(text, ""))
        else:
            found[-1] = replace(found[-1], said=text)
    return found


def is_said(said: str, told: str) -> bool:
    """Whether a command printed what the page says, where `…` stands for anything."""
    parts, rest = said.split("…"), "\n".join(line.rstrip() for line in told.splitlines())
    return re.search(r"[\s\S]*?".join(re.escape(one.strip()) for one in parts), rest) is not None


@contextmanager
def background(commands: str, settings: Settings, log: Path, **options: Any) -> Iterator[None]:
    """A program of the page that goes on, once it is ready."""
    with log.open("ab") as out:
        line = ["bash", "-c", commands.rstrip().removesuffix("&")]
        process = subprocess.Popen(line, stdout=out, stderr=out, start_new_session=True, **options)
        try:
            until(lambda: http(settings, "/ready")[0] == 200, f"ready: {commands}; see {log}")
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


@pytest.fixture(scope="module")
def walk(
    stack: Stack, kafka: str, redis: str, triton: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Walk]:
    folder, service = tmp_path_factory.mktemp("walk"), Service(profiles=60)
    service.write(folder / "kino", epochs=1, days=DAYS - 1)
    (folder / "model_repo" / "fm_intent" / str(int(VERSION) - 1)).mkdir(parents=True)
    settings = isolate(stack.settings, folder).model_copy(
        update={"bridge_topic": "kino-nord.player-events", "bridge_adapter": "segment"}
    )
    messages = service.messages(DAYS - 1, 1)
    asyncio.run(their_topic(settings))
    bridges.send(settings, [(one["userId"].encode(), orjson.dumps(one)) for one in messages])

    script = folder / "bin" / "intentstream"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\n{COMMAND}")
    script.chmod(0o755)
    told = worker_environment(settings.model_copy(update={"bridge_topic": ""}))
    path = f"{script.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **told, "PATH": path, "PYTHONWARNINGS": "ignore"}
    steps = []
    with ExitStack() as started:
        for number, step in enumerate(steps_of(PAGE.read_text())):
            options: dict[str, Any] = {"cwd": folder, "env": environment}
            if not step.commands.rstrip().endswith("&"):
                done = subprocess.run(
                    ["bash", "-ec", step.commands], capture_output=True, text=True, **options
                )
                assert done.returncode == 0, f"{step.commands}{done.stdout}{done.stderr}"
                steps.append(replace(step, told=done.stdout.replace(VERSION, "1")))
                continue
            port = settings.bridge_port if "bridge &" in step.commands else settings.metrics_port
            asked = settings.model_copy(update={"metrics_port": port})
            log = folder / f"{number}.log"
            started.enter_context(background(step.commands, asked, log, **options))
            bridges.until_bridged(settings)
            if "worker &" in step.commands:
                until(lambda: lag(settings) == 0, "no lag", within_s=180)
        yield Walk(folder, settings, service, steps, newest(messages))


async def their_topic(settings: Settings) -> None:
    async with running(AIOKafkaAdminClient, settings) as admin:
        await admin.create_topics([NewTopic(settings.bridge_topic, bridges.PARTITIONS, 1)])


def newest(messages: Sequence[dict[str, Any]]) -> dict[str, str]:
    read = adapter("segment", OPTIONS)
    events = [event for one in messages for event in read(one).events]
    events.sort(key=lambda one: one["occurred_at_ms"])
    return {one["profile_id"]: one["event_id"] for one in events}


def live(walk: Walk) -> list[LiveIntent]:
    return IntentReader(walk.settings).read(sorted(walk.newest))


def test_the_commands_of_the_page_print_what_it_says(walk: Walk) -> None:
    assert [step for step in walk.steps if not is_said(step.said, step.told)] == []
    assert sum(bool(step.said) for step in walk.steps) > 5


def test_every_profile_of_the_topic_has_its_newest_event_in_its_features(walk: Walk) -> None:
    found = {one.profile_id: one.row and one.row.last_event_id for one in live(walk)}
    assert found == walk.newest
    assert len(found) > walk.service.profiles / 2
    assert not bridges.dead_letters(walk.settings)


def test_its_features_are_under_the_labels_of_the_service(walk: Walk) -> None:
    reader = IntentReader(walk.settings)
    for one in reader.read(sorted(walk.newest)):
        assert one.row is not None
        labels = reader.labels_of(one.row)
        assert {*labels["genre"]} == {*GENRES}
        assert {*labels["kind"]} == {*KINDS}
        for head in ("genre", "kind"):
            assert len(one.row.probs[head]) == len(labels[head])
            assert one.row.labels[head] in labels[head]


def test_next_titles_are_titles_of_the_service(walk: Walk) -> None:
    titles = {one["nummer"] for one in walk.service.titles}
    profiles = sorted(walk.newest)
    read = open_store(walk.settings).get_online_features(
        ["profile_intent:next_title_ids", "profile_intent:model_version"],
        {"profile_id": profiles},
    )
    columns = read.to_dict()
    assert set(columns["model_version"]) == {VERSION}
    assert all(len(one) > 0 and {*one} <= titles for one in columns["next_title_ids"])


def test_episodes_of_a_series_are_sittings_of_one_title(walk: Walk) -> None:
    prepared = walk.folder / ".local" / "data" / "kino-nord"
    titles = {one["nummer"] for one in walk.service.titles}
    events = pq.read_table(prepared / "events", columns=["title_id", "episode"]).to_pylist()
    assert {one["title_id"] for one in events} <= titles
    assert any(one["episode"] for one in events)


def test_damaged_data_are_refused_with_every_kind_of_fault_named(
    walk: Walk, tmp_path: Path
) -> None:
    damaged = tmp_path / "kino"
    shutil.copytree(walk.folder / "kino", damaged)
    put_in = damage(damaged)
    done = subprocess.run(
        [walk.folder / "bin" / "intentstream", "data", "check", "--json", damaged / "source.yaml"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    counts = {one["name"]: one["count"] for one in json.loads(done.stdout)["faults"]}
    assert {name: counts[name] for name in put_in} == put_in


def damage(folder: Path) -> dict[str, int]:
    """Spoil a copy of the files; how often each kind of fault is in it then."""
    events = min((folder / "events").iterdir())
    lines = events.read_text().splitlines()
    one, other = (json.loads(line) for line in lines[:2])
    nowhere = {**other["properties"], "program": "none", "asset_id": "none"}
    late = {**one, "timestamp": "2999-01-01T00:00:00Z"}
    spoilt: list[Any] = [
        *(f'{{"type": "track", "cut{n}' for n in range(200)),
        *([{**one, "timestamp": "yesterday"}] * 700),
        *({**late, "messageId": f"late-{n}"} for n in range(200)),
        *({**other, "messageId": f"none-{n}", "properties": nowhere} for n in range(700)),
        *([one] * 100),
    ]
    more = [line if isinstance(line, str) else json.dumps(line) for line in spoilt]
    events.write_text("\n".join([*lines, *more]) + "\n")
    programme = folder / "programm.csv"
    with programme.open(newline="") as file:
        titles = list(csv.DictReader(file, delimiter=";"))
    with programme.open("w", newline="") as file:
        table = csv.DictWriter(file, list(titles[0]), delimiter=";")
        table.writeheader()
        table.writerows([*titles, *titles[:20], *({**titles[0], "nummer": ""} for _ in range(5))])
    return {
        "line_unreadable": 200,
        "record_refused": 700,
        "time_in_future": 200,
        "title_unknown": 700,
        "event_repeats": 100,
        "title_repeats": 20,
        "title_id_missing": 5,
    }
