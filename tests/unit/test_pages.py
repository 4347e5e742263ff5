"""What the pages link to is there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.checkout import REPOSITORY

PAGES = sorted(
    path
    for folder in (".", "docs", "docs/results", "infra/adr", "model_repo")
    for path in (REPOSITORY / folder).glob("*.md")
)


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as hosts of repositories make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", one).lower() for one in headings)
    return {re.sub(r"[^\w\- ]", "", one).strip().replace(" ", "-") for one in plain}


def rows(page: Path, below: str) -> list[str]:
    """Rows of a page's tables, their links as seen from the top of the checkout."""
    home = page.parent.relative_to(REPOSITORY)

    def from_the_top(link: re.Match[str]) -> str:
        target = link[1] if ":" in link[1] else os.path.normpath(home / link[1])
        return f"]({target})"

    lines = page.read_text().partition(f"## {below}")[2].splitlines()
    return [re.sub(r"\]\(([^)]+)\)", from_the_top, one) for one in lines if one.startswith("| ")]


def test_the_figures_of_the_first_page_are_rows_of_all_figures() -> None:
    shown = rows(REPOSITORY / "README.md", "Measured")
    assert len(shown) > 3
    assert set(shown) <= {*rows(REPOSITORY / "docs" / "results" / "README.md", "Models")}


def test_every_decision_is_in_their_list() -> None:
    folder = REPOSITORY / "infra" / "adr"
    listed = re.findall(r"\]\((\d+[^)]*)\)", (folder / "README.md").read_text())
    assert listed == sorted(one.name for one in folder.glob("[0-9]*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_file_and_heading_that_a_page_links_to_is_there(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert not broken
