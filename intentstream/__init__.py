"""Real-time intent features: what a program that reads them needs, and nothing else.

Names are imported when they are first asked for, so that a reader pays for no more than it uses.
What isn't listed here may change from one release to the next.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from features.reading.http_reader import HttpIntentReader as HttpIntentReader
    from features.reading.intents import Freshness as Freshness
    from features.reading.intents import LiveIntent as LiveIntent
    from features.reading.learning import learn_weights as learn_weights
    from features.reading.reader import IntentReader as IntentReader
    from features.reading.rerank import Candidate as Candidate
    from features.reading.rerank import Order as Order
    from features.reading.rerank import Ranked as Ranked
    from features.reading.rerank import Reranker as Reranker
    from features.reading.rerank import Reranking as Reranking
    from features.reading.rerank import ScoreTerm as ScoreTerm
    from features.reading.rerank import Weights as Weights
    from features.reading.rerank import score_terms as score_terms
    from features.registry.store import open_store as open_store
    from stream.exceptions import CandidatesError as CandidatesError
    from stream.exceptions import DefinitionsError as DefinitionsError
    from stream.exceptions import IntentstreamError as IntentstreamError
    from stream.exceptions import InvalidSettingsError as InvalidSettingsError
    from stream.exceptions import NothingLandedError as NothingLandedError
    from stream.exceptions import RefusedError as RefusedError
    from stream.exceptions import StoreRefusedError as StoreRefusedError
    from stream.exceptions import StoreUnavailableError as StoreUnavailableError
    from stream.exceptions import TooManyProfilesError as TooManyProfilesError
    from stream.exceptions import UnavailableError as UnavailableError
    from stream.exceptions import WeightsError as WeightsError
    from stream.settings import Settings as Settings

_HOMES: Final = {
    "features.reading.http_reader": ("HttpIntentReader",),
    "features.reading.intents": ("Freshness", "LiveIntent"),
    "features.reading.learning": ("learn_weights",),
    "features.reading.reader": ("IntentReader",),
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
        "DefinitionsError",
        "IntentstreamError",
        "InvalidSettingsError",
        "NothingLandedError",
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

__all__ = ["__version__", *_HOME_OF]


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
