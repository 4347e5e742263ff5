"""Runs Feast's own universal store tests on our stores.

    python -m lab.feast_universal [CHECKOUT]

The tests are in Feast's repository, not in its package. They need packages that ours must not be
held back by, so they run in an environment of their own, which is made once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final
from xml.etree import ElementTree

import typer

from infra.local.stack import Stack
from intentstream.paths import LOCAL
from stream.home import HOME as CHECKOUT
from stream.ports import free_ports
from stream.settings import settings
from stream.steps import step

HOME: Final = LOCAL / "feast-universal"
RELEASE: Final = f"v{version('feast')}"

TESTS: Final = (
    "online_store/test_universal_online.py",
    "online_store/test_universal_online_types.py",
    "online_store/test_universal_e2e.py",
    "online_store/test_push_features_to_online_store.py",
    "materialization/test_universal_materialization.py",
    "offline_store/test_universal_historical_retrieval.py",
    "offline_store/test_universal_materialization.py",
    "offline_store/test_universal_types.py",
    "offline_store/test_persist.py",
)

_PACKAGES: Final = (
    f"feast[redis,grpcio,postgres]=={version('feast')}",
    f"redis=={version('redis')}",
    *("httpx", "orjson", "pydantic-settings", "xxhash"),  # ours
    *("assertpy", "boto3", "cryptography", "google-cloud-bigquery", "minio", "pytest"),
    *("pytest-asyncio", "pytest-env", "pytest-mock", "pytest-timeout", "pytest-xdist"),
    *("python-keycloak", "testcontainers"),
)


def main(
    checkout: Annotated[
        Path | None, typer.Argument(help=f"A checkout of Feast; default: {RELEASE} is cloned.")
    ] = None,
) -> None:
    """Run Feast's universal tests on the fenced Redis store and on the as-served offline store."""
    python = _environment()
    tests = _tests_of(checkout or _clone())
    (port,) = free_ports(1)
    report = HOME / "report.xml"
    with Stack(HOME / "stack", settings().model_copy(update={"redis_port": port})) as stack:
        stack.start("redis")
        code = subprocess.run(  # noqa: S603 - our own command
            [
                *(python, "-m", "pytest", "--integration", "-q", "--disable-warnings"),
                *("-p", "no:cacheprovider", "-k", "not dynamo", f"--junitxml={report}"),
                *(f"tests/integration/{name}" for name in TESTS),
            ],
            cwd=tests,
            env={
                **os.environ,
                "PYTHONPATH": f"{tests}:{CHECKOUT}",
                "FULL_REPO_CONFIGS_MODULE": "lab.feast_universal.stores",
                "FEAST_IS_LOCAL_TEST": "True",
                "INTENT_REDIS_URL": f"127.0.0.1:{port}",
            },
            check=False,
        ).returncode
    _show(report)
    sys.exit(code)


def _environment() -> Path:
    python = HOME / "venv" / "bin" / "python"
    made = HOME / "venv" / "packages"
    if not made.exists() or made.read_text() != str(_PACKAGES):
        with step("make an environment for Feast's tests"):
            venv.create(HOME / "venv", with_pip=True, clear=True)
            install = (python, "-m", "pip", "install", "--quiet", *_PACKAGES)
            subprocess.run(install, check=True)  # noqa: S603 - our own command
            made.write_text(str(_PACKAGES))
    return python


def _tests_of(checkout: Path) -> Path:
    """A folder with Feast's tests alone: beside its source they would test that."""
    source, tests = checkout / "sdk" / "python", HOME / "tests"
    if not (source / "tests" / "integration").is_dir():
        raise typer.BadParameter(f"{checkout} is no checkout of Feast's repository")
    shutil.rmtree(tests, ignore_errors=True)
    shutil.copytree(source / "tests", tests / "tests")
    shutil.copy(source / "pytest.ini", tests)
    return tests


def _clone() -> Path:
    checkout = HOME / "feast"
    if not checkout.exists():
        with step(f"clone Feast {RELEASE}"):
            source = ("https://github.com/feast-dev/feast", checkout)
            command = ("git", "clone", "--quiet", "--depth=1", "--branch", RELEASE, *source)
            subprocess.run(command, check=True)  # noqa: S603 - our own command
    return checkout


def _show(report: Path) -> None:
    """Print, in Markdown, how many cases of each test passed; skipped are those of other stores."""
    told: dict[str, Counter[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 - our own file
        name = f"{case.attrib['classname']}.{case.attrib['name'].split('[')[0]}"
        outcome = next((each.tag for each in case if each.tag != "properties"), "passed")
        told.setdefault(name.removeprefix("tests.integration."), Counter())[outcome] += 1
    print("\n| test | passed | skipped | failed |\n|---|---|---|---|")
    for name, count in told.items():
        bad = count["failure"] + count["error"]
        print(f"| `{name}` | {count['passed']} | {count['skipped']} | {bad} |")


if __name__ == "__main__":
    typer.run(main)
