"""The titles that a model version carries, where its model repository can be read."""

from __future__ import annotations

import logging

from stream.domain.catalogue import CATALOGUE_FILE, Catalogue, read_catalogue
from stream.exceptions import CatalogueError
from stream.home import HOME
from stream.settings import Settings

_log = logging.getLogger(__name__)


def catalogue_of(settings: Settings, version: str) -> Catalogue:
    """Names and durations of titles: those of INTENT_CATALOGUE, else those that a version carries.

    Where neither is to be had it is empty, and the log says so.

    Raises:
        CatalogueError: when the file that INTENT_CATALOGUE names can't be read.
    """
    if settings.catalogue is not None:
        return read_catalogue(settings.catalogue)
    folder = HOME / settings.triton_models / settings.model_name / version
    try:
        if not version:
            raise CatalogueError("no model version was made live yet")
        catalogue = read_catalogue(folder / CATALOGUE_FILE)
    except CatalogueError as error:
        _log.warning(
            "The model version's titles aren't known: next titles may be published as hashes, and "
            "durations are those that events carry; set INTENT_TRITON_MODELS to the repository "
            "that Triton reads, or INTENT_CATALOGUE: %s",
            error,
        )
        return Catalogue()
    _log.info("%d titles of model version %s are known", len(catalogue.title_ids), version)
    return catalogue
