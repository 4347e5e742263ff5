"""What the pages show is what there is: code, commands, descriptions."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import typer
import yaml

from intentstream.cli.main import app
from stream.settings import Settings
from tests.checkout import REPOSITORY

PAGES = [
    page
    for folder in (".", "docs", "model_repo")
    for page in sorted((REPOSITORY / folder).glob("*.md"))
    if page.name != "CHANGELOG.md"
]


def blocks(*languages: str) -> Iterator[Any]:
    for page in PAGES:
        text = page.read_text()
        for found in re.finditer(r"^```(\w+).*\n((?s:.*?))^```", text, re.MULTILINE):
            line = text[: found.start()].count("\n") + 1
            if found[1] in languages:
                yield pytest.param(found[1], found[2], id=f"{page.name}:{line}")


def commands() -> Iterator[Any]:
    """Each command line of ours, in a block or between backticks."""
    for page in PAGES:
        text = re.sub(r"\\\n\s*", "", page.read_text())
        shown = re.findall(r"`(intentstream [^`\n]+)`|^(intentstream .+)$", text, re.MULTILINE)
        for line in sorted({inline or block for inline, block in shown}):
            yield pytest.param(line.partition("#")[0].strip(), id=f"{page.name}: {line}")


@pytest.mark.parametrize(("language", "sample"), [*blocks("python")])
def test_python_is_python_and_imports_what_there_is(language: str, sample: str) -> None:
    compile(sample, language, "exec")
    for module, names in re.findall(r"^from ([\w.]+) import ([\w, ]+)", sample, re.MULTILINE):
        if not module.startswith(("my_", "tests")):
            home = import_module(module)
            assert all(hasattr(home, name.strip()) for name in names.split(","))


@pytest.mark.parametrize(("language", "sample"), [*blocks("json", "toml", "yaml")])
def test_data_are_well_formed(language: str, sample: str) -> None:
    read = {"json": json.loads, "toml": tomllib.loads, "yaml": lambda t: [*yaml.safe_load_all(t)]}
    assert read[language](sample)


@pytest.mark.parametrize("line", [*commands()])
def test_commands_and_their_options_exist(line: str) -> None:
    command: Any = typer.main.get_command(app)
    for word in shlex.split(line)[1:]:
        if word in ("|", ">", "&&", ";"):
            break
        if word.startswith("-"):
            options = {name for one in command.params for name in one.opts + one.secondary_opts}
            assert word.partition("=")[0] in options | {"--help"}
        elif hasattr(command, "commands"):
            assert word in command.commands
            command = command.commands[word]


def test_settings_that_pages_name_exist() -> None:
    known = {f"INTENT_{name.upper()}" for name in Settings.model_fields}
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"\b(INTENT_[A-Z_]+[A-Z])\b", page.read_text())
    }
    assert named
    assert {one for one in named if one[1] not in known} == set()
