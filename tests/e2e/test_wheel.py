"""What `pip install` of our wheel brings, far from any checkout: a system that works."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from infra.local.programs import worker_environment
from tests.checkout import REPOSITORY
from tests.conftest import isolate
from tests.workers import HANG_S, exit_code, http, send, title_open, until

if TYPE_CHECKING:
    from infra.local.stack import Stack
    from stream.settings import Settings

PACKAGES: Final = ("stream", "features", "fm_intent", "intentstream")
SOURCE: Final = "movietweetings"
"""A source that the wheel carries itself."""

FEAST: Final = "import sys; from feast.cli.cli import cli; sys.exit(cli())"
WHERE: Final = f"""
from importlib import import_module
from pathlib import Path
for name in {PACKAGES}:
    print(Path(import_module(name).__file__).parent)
"""
READ: Final = """
from features.reading.reader import IntentReader
from stream.settings import Settings
intent = IntentReader(Settings()).read(["me"])[0]
print(intent.row and intent.row.last_event_id)
"""
ELSEWHERE: Final = ("INTENT_DATA_DIR", "INTENT_FEATURE_REGISTRY", "INTENT_OFFLINE_DIR")
"""Settings of the tests' own, whose defaults are looked at here."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy, as in the image: a checkout may hold what an earlier build left."""
    source = tmp_path_factory.mktemp("source")
    ignored = shutil.ignore_patterns("__pycache__", "*.db")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    build = ("build", "--wheel", "--offline", "--no-build-isolation", "--out-dir", "dist")
    subprocess.run([sys.executable, "-m", "uv", *build], cwd=source, check=True)
    (made,) = (source / "dist").glob("*.whl")
    return made


@dataclass
class Installation:
    """An environment that has our wheel, and the folder that its user works in."""

    environment: Path
    folder: Path
    variables: dict[str, str]

    @property
    def packages(self) -> Path:
        return next(self.environment.glob("lib/python*/site-packages"))

    def start(self, program: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
        line = [str(self.environment / "bin" / program), *arguments]
        settings = {"cwd": self.folder, "env": self.variables, "text": True, **options}
        return subprocess.Popen(line, **settings)  # type: ignore[call-overload,no-any-return]

    def run(self, program: str, *arguments: str, **options: object) -> str:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = self.start(program, *arguments, **pipes)
        told, complaints = process.communicate(timeout=HANG_S)
        assert process.returncode == 0, f"{told}{complaints}"
        return told


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel in an environment of its own, which borrows others' packages, but none of ours."""
    home = tmp_path_factory.mktemp("installed")
    environment, borrowed, folder = (home / name for name in ("venv", "borrowed", "work"))
    venv.create(environment, symlinks=True)
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("INTENT_", "PYTHON", "VIRTUAL_ENV"))
    }
    made = Installation(environment, folder, variables)
    python = environment / "bin" / "python"
    install = ("pip", "install", "--offline", "--no-deps", "--python", python, wheel)
    subprocess.run([sys.executable, "-m", "uv", *install], check=True)
    borrowed.mkdir()
    folder.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "intentstream" not in path.name:
            (borrowed / path.name).symlink_to(path)
    (made.packages / "borrowed.pth").write_text(f"{borrowed}\n")
    return made


@pytest.fixture(scope="module")
def settings(
    stack: Stack, kafka: str, redis: str, triton: str, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    return isolate(stack.settings, tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture
def connected(installation: Installation, settings: Settings) -> Installation:
    """The installation, told where the servers are and nothing else."""
    told = worker_environment(settings)
    for name in ELSEWHERE:
        told.pop(name, None)
    return Installation(
        installation.environment, installation.folder, {**installation.variables, **told}
    )


def test_the_wheel_holds_the_product_and_its_types(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    folders = {name.partition("/")[0] for name in names}
    assert {one for one in folders if not one.endswith(".dist-info")} == set(PACKAGES)
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


def test_its_packages_are_imported_from_where_it_was_installed(installation: Installation) -> None:
    places = installation.run("python", "-c", WHERE).split()
    assert places == [str(installation.packages / name) for name in PACKAGES]


def test_its_command_line_has_the_product_s_commands_and_no_complaint(
    installation: Installation,
) -> None:
    told = installation.run("intentstream", "--help", stderr=subprocess.STDOUT).split()
    assert {"worker", "topics", "features", "model", "train"} <= set(told)
    assert not {"up", "demo", "left"} & set(told)


def test_a_model_is_published_and_an_event_becomes_features(
    connected: Installation, settings: Settings, tmp_path: Path
) -> None:
    connected.run("intentstream", "topics")
    connected.run("intentstream", "features", "init")
    repository = connected.folder / "features"
    connected.run("python", "-c", FEAST, "apply", cwd=repository)
    registry = repository / "data" / "registry.db"
    applied = registry.read_bytes()

    export_a_small_model(connected.folder / "model_repo")
    published = connected.run("intentstream", "model", "publish", "--shadow-s", "0")
    assert "version 901 is live" in published

    with (tmp_path / "worker.log").open("w") as log:
        worker = connected.start("intentstream", "worker", stdout=log, stderr=log)
        try:
            until(lambda: http(settings, "/ready")[0] == 200, "a ready worker")
            event = title_open("me", title_id="tt0002844")
            send(settings, [event])
            read = ("python", "-W", "ignore", "-c", READ)
            until(lambda: connected.run(*read).strip() == event["event_id"], "its features")
        finally:
            worker.terminate()
            exit_code(worker)
    # By the same definitions as Feast's own command line: it had nothing to register anew.
    assert registry.read_bytes() == applied
    assert not (connected.packages / "features" / "data").exists()


def export_a_small_model(repository: Path) -> None:
    """A version as `intentstream train` exports it, without Triton's configuration beside it."""
    from fm_intent.export import export
    from tests.unit.fm_intent import tiny
    from tests.unit.fm_intent.test_export import manifest

    # The next number is one that no other test has had Triton serve.
    (repository / "fm_intent" / "900").mkdir(parents=True, exist_ok=True)
    sequences = tiny.sequences()
    model = tiny.network(sequences)
    export(model, manifest(SOURCE), tiny.windows(sequences), repository)
    for path in (repository / "fm_intent").rglob("*.pbtxt"):
        path.unlink()
