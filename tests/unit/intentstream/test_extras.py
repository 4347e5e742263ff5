"""Commands in an installation without any extra."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import Final

from intentstream.extras import extras
from tests.checkout import REPOSITORY

BARE: Final = """\
import runpy, sys
from intentstream.extras import extras

extras()  # asks for packages, before any is hidden
hidden = {"matplotlib", "scipy", "sklearn", "supervisor", "torch"}

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
"""Hides what no dependency of the worker brings."""

COMMANDS: Final = (
    BARE
    + """
from intentstream.cli.main import main

for command in sys.argv[1:]:
    sys.argv = ["intentstream", *command.split()]
    try:
        main()
    except SystemExit as end:
        assert end.code == 1
"""
)
MODULE: Final = BARE + 'runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)'


def bare(program: str, *arguments: str) -> tuple[int, list[str]]:
    """Exit code of a program in such an installation, and its complaints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()


def test_a_command_that_lacks_its_extra_says_in_one_sentence_which() -> None:
    of_the_model = ["benchmark gru", "titles 1", "train"]
    of_the_stack = ["demo", "down", "status", "up"]
    code, told = bare(COMMANDS, *of_the_model, *of_the_stack)
    assert code == 0
    lacking = [
        re.fullmatch("MissingExtraError: .* with the extra (.+?): run .*", it) for it in told
    ]
    assert [it and it[1] for it in lacking] == [
        "train or bench",
        "train or serve",
        "train or data or bench",
        *["stack"] * len(of_the_stack),
    ]


def test_so_does_a_benchmark() -> None:
    code, (told,) = bare(MODULE, "lab.bench.gpu")
    assert code == 1
    assert told.startswith("MissingExtraError: torch is not installed here")


def test_every_extra_s_module_is_known_by_the_name_that_is_imported() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = {
        re.split(r"[<>=\[]", requirement)[0]
        for name, requirements in project["optional-dependencies"].items()
        if name not in ("dev", "aws", "console-test")  # set-up installs only the first
        for requirement in requirements
    }
    known = {
        distribution.lower().replace("_", "-")
        for module in extras()
        for distribution in packages_distributions().get(module, ())
    }
    assert wanted <= known
