"""Labels by the name that functions in Feast's registries import them by.

A registry keeps such a function as text, and readers of several releases share it. Ours know the
labels as `stream.domain.labels`.
"""

from stream.domain.labels import GENRES, KINDS
from stream.domain.version_labels import BUILT_IN

BUILT_IN_LABELS_ID = BUILT_IN.id
"""Of the labels of rows that a release wrote before versions had labels of their own."""

__all__ = ["BUILT_IN_LABELS_ID", "GENRES", "KINDS"]
