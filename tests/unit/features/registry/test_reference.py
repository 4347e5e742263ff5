from __future__ import annotations

import pytest

from features.definitions import intent_title_match, profile_intent, title_profile
from features.registry.reference import page
from tests.checkout import REPOSITORY

PAGE = REPOSITORY / "docs" / "features.md"

FEATURES = [*profile_intent.features, *title_profile.features, *intent_title_match.features]


def test_the_page_is_what_the_definitions_say() -> None:
    assert PAGE.read_text() == page(), (
        "run `python -m features.registry.reference > docs/features.md`"
    )


@pytest.mark.parametrize("name", [feature.name for feature in FEATURES])
def test_the_page_has_every_feature(name: str) -> None:
    assert f"| `{name}` |" in page()
