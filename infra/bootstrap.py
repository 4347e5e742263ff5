"""Sets a checkout up; `make setup` runs it. Standard library only.

Each step prints what it does and how long it took, and is skipped while its inputs are unchanged.
"""

from __future__ import annotations

import argparse
import ctypes.util
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# By where this file is: the bare Python of the system runs it, before anything is installed that
# could tell where the checkout is.
REPOSITORY = Path(__file__).resolve().parents[1]
LOCAL = REPOSITORY / ".local"
VENV = REPOSITORY / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
CONSTRAINTS = REPOSITORY / "constraints.txt"
PYPROJECT = REPOSITORY / "pyproject.toml"
BESIDE = (REPOSITORY / "infra", REPOSITORY / "lab")
"""Projects that a checkout has beside the product."""

TIMES = LOCAL / "setup.json"
POM = REPOSITORY / "infra" / "pom.xml"
KAFKA_LIBS = LOCAL / "kafka" / "libs"
BACKENDS = LOCAL / "triton" / "backends"
MODELS = LOCAL / "triton" / "models"

UV = "uv==0.13.9"
TRITON = "nvidia-pytriton==0.7.0"
EXTRAS = "train,data,spark,bridge,traces,serve,stack,bench,docs,dev"
CONSOLE = "console-test"
PINNED_TOO = ("aws", CONSOLE)
"""Extras that set-up doesn't install, whose packages must go with all others."""
OLDEST, NEWEST = (3, 11), (3, 13)
OLDEST_JAVA = 17
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
POLICY = Path("/usr/sbin/policy-rc.d")


class SetupError(Exception):
    """Set-up can't go on; the message says what to do."""


def main() -> None:
    """Runs every step; with `--constraints` only renews `constraints.txt`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--constraints", action="store_true", help="only renew constraints.txt")
    parser.add_argument("--prometheus", action="store_true", help="what tests of alerts need")
    parser.add_argument("--console", action="store_true", help="what tests of the console need")
    arguments = parser.parse_args()
    try:
        check_python()
        if arguments.constraints:
            renew_constraints()
            return
        programs = [str(shutil.which(name)) for name in ("java", "mvn", "redis-server")]
        python = [sys.version, sys.base_prefix]
        projects = [(one / "pyproject.toml").read_text() for one in (REPOSITORY, *BESIDE)]
        packages = [EXTRAS, TRITON, CONSTRAINTS.read_text(), *projects]
        step("system programs", [*programs, *python], LOCAL, provide_programs)
        step("virtual environment", [*python, UV], VENV, make_environment)
        step("Python packages", packages, VENV, install_packages)
        step("Kafka's jars", [POM.read_text()], LOCAL / "kafka", resolve_jars)
        step("Triton's python backend", [*python, TRITON], LOCAL / "triton", lay_out_backend)
        # Compose mounts it and must not make it: it would be root's.
        MODELS.mkdir(parents=True, exist_ok=True)
        if arguments.prometheus:
            step("Prometheus", [str(shutil.which("prometheus"))], LOCAL, provide_prometheus)
        if arguments.console:
            step("Chromium", [str(shutil.which("chromium"))], LOCAL, provide_chromium)
            step("tests of the console", packages, VENV, install_playwright)
    except SetupError as error:
        sys.exit(f"setup: {error}")
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        sys.exit(f"setup: `{command}` failed with exit code {error.returncode}; see above")


def step(name: str, inputs: list[str], made: Path, action: Callable[[], None]) -> None:
    """Runs `action` unless it has succeeded with the same inputs.

    Args:
        name: what the step provides.
        inputs: all that its result depends on.
        made: the directory that it fills. The stamp lies inside, so that removing the one removes
            the other.
        action: does the work.
    """
    stamp = made / f".{re.sub('[^a-z]+', '-', name.lower())}.stamp"
    digest = hashlib.sha256("\0".join(inputs).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    say(f"{name} ...")
    started = time.monotonic()
    action()
    made.mkdir(parents=True, exist_ok=True)
    stamp.write_text(digest)
    seconds = round(time.monotonic() - started, 1)
    say(f"{name}: {seconds} s")
    record(name, seconds)


def record(name: str, seconds: float) -> None:
    """Keeps the duration of each step's last run, and their sum, in `.local/setup.json`."""
    steps = json.loads(TIMES.read_text())["steps"] if TIMES.exists() else {}
    steps[name] = seconds
    TIMES.parent.mkdir(exist_ok=True)
    TIMES.write_text(json.dumps({"setup_s": round(sum(steps.values()), 1), "steps": steps}) + "\n")


def check_python() -> None:
    """Raises `SetupError` unless this interpreter is one that all dependencies support."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise SetupError(
            f"this is Python {PYTHON}, but 3.11 to 3.13 is needed; "
            "name one that is installed: make setup PYTHON=python3.11"
        )


def provide_programs() -> None:
    """Installs the Debian packages of missing programs, as root; else names the packages."""
    missing = [
        package
        for package, present in (
            ("openjdk-17-jre-headless", java_version() >= OLDEST_JAVA),
            ("maven", shutil.which("mvn")),
            ("redis-server", shutil.which("redis-server")),
            (f"python{PYTHON}-venv", importlib.util.find_spec("ensurepip")),
            # Triton's python backend embeds the interpreter as a shared library.
            (f"libpython{PYTHON}", has_libpython()),
            # LightGBM is linked to it and does not bring it.
            ("libgomp1", ctypes.util.find_library("gomp")),
        )
        if not present
    ]
    if missing:
        install_debian(missing)
        if "redis-server" in missing and shutil.which("systemctl"):
            # Nor at the next boot: the local stack starts its own.
            run("systemctl", "disable", "redis-server.service")
    if java_version() < OLDEST_JAVA:
        raise SetupError(f"the first `java` on PATH is older than {OLDEST_JAVA}; put a newer first")


def install_debian(packages: list[str]) -> None:
    """Installs Debian packages, as root; else names the command that does."""
    command = f"apt-get install -y {' '.join(packages)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise SetupError(f"Debian packages are missing; run: sudo {command}")
    say(f"installing Debian packages as root: {' '.join(packages)}")
    with services_stay_off():
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "update", "-q", env=environment)
        run(*command.split(), "-q", "--no-install-recommends", env=environment)


def provide_prometheus() -> None:
    """Installs Debian's Prometheus, which tests ask what dashboard and alerts ask, if need be."""
    if not shutil.which("prometheus"):
        install_debian(["prometheus"])


def provide_chromium() -> None:
    """Installs Debian's Chromium, which the tests of the console drive, if there is none."""
    if not shutil.which("chromium"):
        install_debian(["chromium", "fonts-dejavu-core"])


@contextmanager
def services_stay_off() -> Iterator[None]:
    """Keeps packages from starting their services, as Debian's redis-server does on port 6379.

    That port is the local stack's. Debian asks `policy-rc.d` before it starts a service; exit code
    101 forbids it. A policy that exists is the administrator's and stays.
    """
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def java_version() -> int:
    """Major version of the first `java` on PATH, 0 when there is none."""
    if not shutil.which("java"):
        return 0
    answer = subprocess.run(
        ["java", "-version"],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r'version "(\d+)', answer.stderr)
    return int(found[1]) if found else 0


def has_libpython() -> bool:
    """Whether this Python also exists as a shared library."""
    library = f"libpython{PYTHON}.so.1.0"
    return (
        Path(str(sysconfig.get_config_var("LIBDIR")), library).exists()
        or ctypes.util.find_library(f"python{PYTHON}") == library
    )


def make_environment() -> None:
    """Makes `.venv` of this Python, unless it is one already, and puts uv into it."""
    if not (VENV_PYTHON.exists() and base_of_environment() == [PYTHON, sys.base_prefix]):
        run(sys.executable, "-m", "venv", "--clear", VENV)
    run(VENV_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV)


def base_of_environment() -> list[str]:
    """Version and prefix of the Python that `.venv` was made of."""
    script = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.base_prefix)"
    answer = subprocess.run(  # noqa: S603 - a fixed command
        [VENV_PYTHON, "-c", script], capture_output=True, text=True, check=False
    )
    return answer.stdout.splitlines()


def install_packages() -> None:
    """Installs our projects as editable with their pinned dependencies, and Triton's server."""
    ours = [word for one in (f"{REPOSITORY}[{EXTRAS}]", *BESIDE) for word in ("--editable", one)]
    uv("pip", "install", "--constraint", CONSTRAINTS, *ours)
    # Its metadata asks for numpy < 2, which only its own Python code needs; we run its binary.
    uv("pip", "install", "--no-deps", TRITON)


def install_playwright() -> None:
    """Installs what drives the browser; the browser itself is Debian's."""
    uv("pip", "install", "--constraint", CONSTRAINTS, "--editable", f"{REPOSITORY}[{CONSOLE}]")


def resolve_jars() -> None:
    """Has Maven copy the broker's jars."""
    shutil.rmtree(KAFKA_LIBS, ignore_errors=True)
    options = ("--quiet", "--batch-mode", "-Dstyle.color=never", "--file", POM)
    goal = ("dependency:copy-dependencies", "-DincludeScope=runtime")
    run("mvn", *options, *goal, f"-DoutputDirectory={KAFKA_LIBS}")


def lay_out_backend() -> None:
    """Copies the backend to where Triton looks for it, with the stub of this Python."""
    packages = VENV / "lib" / f"python{PYTHON}" / "site-packages"
    server = packages / "pytriton" / "tritonserver"
    shutil.rmtree(BACKENDS, ignore_errors=True)
    shutil.copytree(server / "backends" / "python", BACKENDS / "python")
    stub = server / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"
    shutil.copy2(stub, BACKENDS / "python")


def renew_constraints() -> None:
    """Resolves pyproject.toml for all Pythons and platforms; pins stay where they still fit."""
    make_environment()
    uv(
        *("pip", "compile", "--universal", "--python-version", "3.11"),
        *(f"--extra={extra}" for extra in (*EXTRAS.split(","), *PINNED_TOO)),
        *("--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"),
        *("--output-file", CONSTRAINTS, PYPROJECT),
    )


def uv(*arguments: str | Path) -> None:
    """Runs uv on `.venv`."""
    run(VENV_PYTHON, "-m", "uv", *arguments, env={**os.environ, "VIRTUAL_ENV": str(VENV)})


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Runs a command with its output shown; `CalledProcessError` when it fails."""
    subprocess.run(command, check=True, env=env, stdin=subprocess.DEVNULL)  # noqa: S603


def say(text: str) -> None:
    """Prints a line of progress at once."""
    print(f"setup: {text}", flush=True)


if __name__ == "__main__":
    main()
