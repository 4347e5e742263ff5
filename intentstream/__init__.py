"""Real-time intent features: what a program that reads them needs, and nothing else.

Names are imported when they are first asked for, so that a reader pays for no more than it uses.
What isn't listed here may change from one release to the next.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from features.reading.learning import learn_weights
    from features.reading.reader import Freshness, HttpIntentReader, IntentReader, LiveIntent
    from features.reading.rerank import (
        Candidate,
        Order,
        Ranked,
        Reranker,
        Reranking,
        ScoreTerm,
        Weights,
        score_terms,
    )
    from features.registry.store import open_store
    from stream.exceptions import (
        CandidatesError,
        IntentstreamError,
        InvalidSettingsError,
        RefusedError,
        StoreRefusedError,
        StoreUnavailableError,
        TooManyProfilesError,
        UnavailableError,
        WeightsError,
    )
    from stream.settings import Settings

__all__ = [
    "Candidate",
    "CandidatesError",
    "Freshness",
    "HttpIntentReader",
    "IntentReader",
    "IntentstreamError",
    "InvalidSettingsError",
    "LiveIntent",
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
]

_HOMES: Final = {
    "features.reading.learning": ("learn_weights",),
    "features.reading.reader": ("Freshness", "HttpIntentReader", "IntentReader", "LiveIntent"),
    "features.reading.rerank": (
        "Candidate",
        "Order",
        "Ranked",
        "Reranker",
        "Reranking",
        "ScoreTerm",
        "Weights",
        "score_terms",
    ),
    "features.registry.store": ("open_store",),
    "stream.exceptions": (
        "CandidatesError",
        "IntentstreamError",
        "InvalidSettingsError",
        "RefusedError",
        "StoreRefusedError",
        "StoreUnavailableError",
        "TooManyProfilesError",
        "UnavailableError",
        "WeightsError",
    ),
    "stream.settings": ("Settings",),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # PEP 562
    if name == "__version__":
        value: Any = version("intentstream")
    elif name in _HOME_OF:
        value = getattr(import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
