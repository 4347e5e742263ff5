"""The documentation as a site: `make docs`.

Its source is the checkout itself, so a link means here what it means in a repository: another page,
a heading of one, or a file of the code, which the site then carries. A link that leads nowhere is a
warning, and `make docs` fails on warnings. Fonts and scripts are the site's own.
"""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any, Final

project = "intentstream"
version = release = installed("intentstream")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

root_doc = "README"
include_patterns = [
    "*.md",
    "docs/*.md",
    "docs/results/*.md",
    "docs/site/*.rst",
    "infra/adr/*.md",
    "model_repo/*.md",
]
exclude_patterns = [".*", "build", "dist", "tests", "node_modules"]
myst_heading_anchors = 6
# Docstrings mark names with one backtick, as Markdown does.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = f"intentstream {version}"
html_copy_source = False
html_show_copyright = False
templates_path = ["templates"]
html_additional_pages = {"index": "index.html"}

NAVIGATION: Final = {
    "Use it": [
        "docs/demo",
        "docs/your-data",
        "docs/adapters",
        "docs/features",
        "docs/search",
        "docs/data",
        "docs/source-yaml",
    ],
    "Run it": [
        "docs/operating",
        "docs/console",
        "docs/kafka",
        "docs/kubernetes",
        "docs/models",
        "docs/failures",
        "docs/partitions",
        "docs/erasure",
    ],
    "Judge it": ["docs/results/README", "docs/evaluation", "docs/simulator", "docs/never-run"],
    "Change it": [
        "CONTRIBUTING",
        "docs/extending",
        "model_repo/README",
        "docs/feast-universal",
        "infra/adr/README",
    ],
    "Reference": ["docs/site/api", "docs/site/seams", "CHANGELOG"],
}
"""Pages by what one wants, in the order of the side bar."""

BELOW: Final = {"docs/results/README": "[a-z]*", "infra/adr/README": "[0-9]*"}
"""Pages that lead to all others of their folder."""


def _add_navigation(app: Any, page: str, source: list[str]) -> None:
    """Append what Sphinx goes by to a page, which reads in a repository without it."""
    if page == root_doc:
        for caption, pages in NAVIGATION.items():
            source[0] += _toctree(f":caption: {caption}", *(f"/{one}" for one in pages))
    elif page in BELOW:
        source[0] += _toctree(":glob:", BELOW[page])


def _toctree(option: str, *pages: str) -> str:
    return "\n".join(["\n\n```{toctree}", ":hidden:", option, "", *pages, "```\n"])


def setup(app: Any) -> None:
    """Hang our part into Sphinx."""
    app.connect("source-read", _add_navigation)
