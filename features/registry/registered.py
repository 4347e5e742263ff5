"""Whether the registry holds the definitions that a reader of this release needs.

Releases share a registry, and each registers its own definitions in it: `feast apply` or a worker
of an older one, started last, takes features out that a newer reader asks for. Feast reads what is
left without a word, or raises an error that names neither the registry nor the remedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from feast.errors import FeastError, FeastObjectNotFoundException

from features.registry.registration import REMEDY
from stream.exceptions import DefinitionsError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from feast import FeatureService, FeatureStore, FeatureView, Field
    from feast.feature_view_projection import FeatureViewProjection


class Needed:
    """What a reader needs, checked against the registry of its store.

    Args:
        store: Where the reader reads.
        service: This release's service, with features of views of any kind.
        views: This release's views, each with no more features than are needed.
    """

    def __init__(
        self, store: FeatureStore, service: FeatureService, views: Iterable[FeatureView]
    ) -> None:
        self._store = store
        self._service = service
        self._views = list(views)

    def check(self) -> None:
        """Look into the registry.

        Raises:
            DefinitionsError: when it lacks a feature, or has it with another type, or can't be
                read.
        """
        lacking = list(dict.fromkeys([*self._lacking_of_views(), *self._lacking_of_service()]))
        if lacking:
            raise DefinitionsError(
                f"The registry {self._store.config.registry.path} holds definitions of another "
                f"release, or none: it lacks {', '.join(lacking)}. {REMEDY}"
            )

    def _lacking_of_views(self) -> Iterator[str]:
        for view in self._views:
            try:
                registered = self._store.get_feature_view(view.name).features
            except FeastObjectNotFoundException:
                yield view.name
                continue
            types = {feature.name: feature.dtype for feature in registered}
            for feature in view.projection.features:
                if types.get(feature.name) != feature.dtype:
                    yield f"{view.name}:{feature.name}"

    def _lacking_of_service(self) -> Iterator[str]:
        try:
            registered = self._store.get_feature_service(self._service.name)
        except FeastObjectNotFoundException:
            yield self._service.name
            return
        held = {(one.name, feature.name) for one, feature in _projected(registered)}
        for one, feature in _projected(self._service):
            if (one.name, feature.name) not in held:
                yield f"{one.name}:{feature.name}"

    @contextmanager
    def told(self) -> Iterator[None]:
        """Raises `DefinitionsError` for what a read makes of a registry that has been replaced."""
        try:
            yield
        except (FeastError, LookupError, ValueError):
            self.check()
            raise


def _projected(service: FeatureService) -> Iterator[tuple[FeatureViewProjection, Field]]:
    for projection in service.feature_view_projections:
        for feature in projection.features:
            yield projection, feature
