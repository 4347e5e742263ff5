"""Labels by the name that functions in Feast's registries import them by.

A registry keeps such a function as text, and readers of several releases share it. Ours know the
labels as `stream.domain.labels`.
"""

from stream.domain.labels import GENRES, KINDS

__all__ = ["GENRES", "KINDS"]
