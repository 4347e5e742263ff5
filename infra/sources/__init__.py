"""Sources of real and simulated histories, converted to one contract on disk."""

from infra.sources.preparation import SOURCES, Source, prepare

__all__ = ["SOURCES", "Source", "prepare"]
