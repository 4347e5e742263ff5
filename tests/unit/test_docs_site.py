"""The site of the documentation, as `make docs` builds it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import REPOSITORY

CONF = REPOSITORY / "docs" / "site"
FOREIGN = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]+(?:src|href)=.(?:https?:)?//[^>]+>")


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    options = ("--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", CONF)
    command = [sys.executable, "-m", "sphinx", *options, source, out]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(REPOSITORY, out)
    assert done.returncode == 0, done.stderr
    return out


def test_a_browser_asks_no_other_host_for_what_a_page_is_made_of(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 50
    assert [found for page in pages for found in FOREIGN.findall(page.read_text())] == []
    styles = [style.read_text() for style in site.rglob("*.css")]
    assert not any(re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", one) for one in styles)


def test_a_link_to_a_file_of_the_code_leads_to_it(site: Path) -> None:
    page = site / "docs" / "operating.html"
    (link,) = set(re.findall(r'href="([^"]+/settings.py)"', page.read_text()))
    assert (page.parent / link).read_bytes() == (REPOSITORY / "stream/settings.py").read_bytes()


def test_the_search_finds_what_pages_and_docstrings_say(site: Path) -> None:
    index = (site / "searchindex.js").read_text()
    assert all(name in index for name in ("tombston", "IntentReader", "docs/site/api"))


@pytest.mark.parametrize("link", ["nowhere.md", "README.md#nowhere", "nowhere.py"])
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path, link: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "README.md").write_text(f"# Title\n\n[there]({link})\n")
    done = build(source, tmp_path / "out")
    assert done.returncode
    assert re.search(rf"README.md:3: WARNING.*{link.rpartition('#')[2]}", done.stderr)
