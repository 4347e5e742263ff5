"""What users import is `intentstream`, and that is all that they are shown."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import intentstream
from tests.checkout import REPOSITORY

PAGES = [
    REPOSITORY / "README.md",
    # Whoever extends the product sees more of it than whoever uses it.
    *sorted(set((REPOSITORY / "docs").glob("*.md")) - {REPOSITORY / "docs" / "extending.md"}),
]
EXPORTED = {
    "Candidate",
    "CandidatesError",
    "DefinitionsError",
    "Freshness",
    "HttpIntentReader",
    "IntentReader",
    "IntentstreamError",
    "InvalidSettingsError",
    "LiveIntent",
    "NothingLandedError",
    "Order",
    "Ranked",
    "RefusedError",
    "Reranker",
    "Reranking",
    "ScoreTerm",
    "Settings",
    "StoreRefusedError",
    "StoreUnavailableError",
    "TooManyProfilesError",
    "UnavailableError",
    "Weights",
    "WeightsError",
    "__version__",
    "learn_weights",
    "open_store",
    "score_terms",
}
"""A name that goes from here breaks somebody's program; one that comes has to stay."""


def test_exactly_these_names_are_exported() -> None:
    assert set(intentstream.__all__) == EXPORTED
    assert set(dir(intentstream)) >= EXPORTED


@pytest.mark.parametrize("name", sorted(EXPORTED - {"__version__"}))
def test_each_name_is_what_it_says(name: str) -> None:
    assert getattr(intentstream, name).__name__ == name


def test_the_version_is_that_of_the_installation() -> None:
    assert intentstream.__version__ == version("intentstream")


def test_a_name_that_is_not_exported_is_told() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        intentstream.Pipeline  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    program = "import sys, intentstream; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert "intentstream" in loaded
    assert not loaded & {"feast", "faust", "numpy", "pandas", "torch", "stream", "features"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_show_imports_of_the_public_face_alone(page: Path) -> None:
    ours = r"^ *(?:from|import) (?:stream|features|fm_intent|infra|lab)\b.*"
    assert re.findall(ours, page.read_text(), re.MULTILINE) == []
