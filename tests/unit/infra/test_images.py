"""Our image of the worker holds what the wheel holds."""

from __future__ import annotations

import re
import tomllib
from typing import Final

from tests.checkout import REPOSITORY

WORKER: Final = (REPOSITORY / "infra" / "docker" / "worker.Dockerfile").read_text()
PUBLISHER: Final = (REPOSITORY / "infra" / "docker" / "publisher.Dockerfile").read_text()


def copied(stage: str) -> set[str]:
    """What a stage takes of the checkout."""
    lines = re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+)$", stage, re.M)
    return {source for line in lines for source in line.split()[:-1]}


def test_the_wheel_of_the_image_is_built_of_all_that_belongs_into_it_and_nothing_else() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    files = {project["project"]["readme"], *project["project"]["license-files"]}
    build, _ = re.split(r"^FROM .+(?<!AS wheel)$", WORKER, flags=re.M)
    wanted = {one for one in packages if "." not in one}
    assert copied(build) == {*wanted, *files, "pyproject.toml"}


def test_the_images_hold_no_source_of_the_checkout() -> None:
    _, image = re.split(r"^FROM .+(?<!AS wheel)$", WORKER, flags=re.M)
    assert copied(image) == {"constraints.txt"}
    assert copied(PUBLISHER) == {"model_repo"}
    assert "editable" not in WORKER + PUBLISHER


def test_what_images_are_built_of_is_sent_to_the_builder() -> None:
    sent = set(re.findall(r"^!(.+)$", (REPOSITORY / ".dockerignore").read_text(), re.M))
    for path in (REPOSITORY / "infra" / "docker").glob("*.Dockerfile"):
        assert {source.partition("/")[0] for source in copied(path.read_text())} <= sent
