"""Sources of real and simulated histories, converted to one contract on disk."""

from fm_intent.data.sources.preparation import Source, prepare, sources

__all__ = ["Source", "prepare", "sources"]
