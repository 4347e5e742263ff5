"""Packages that not every installation has, and what to do where one is missing."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from typing import TYPE_CHECKING, Final

from stream.exceptions import MissingExtraError

if TYPE_CHECKING:
    from types import TracebackType

_MODULES: Final = {
    "ibis-framework": "ibis",
    "opentelemetry-exporter-otlp": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
"""Names of packages whose import name differs."""


@cache
def extras() -> dict[str, list[str]]:
    """The extras of `pyproject.toml` that bring each optional module, by the module's name."""
    found: dict[str, list[str]] = {}
    try:
        requirements = requires("intentstream") or []
    except PackageNotFoundError:
        return found
    for requirement in requirements:
        if extra := re.search(r"extra == [\"'](.+?)[\"']", requirement):
            package = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            module = _MODULES.get(package, package.replace("-", "_"))
            found.setdefault(module, []).append(extra[1])
    return found


def missing_extra(error: BaseException) -> MissingExtraError | None:
    """The error to show when an extra's module is missing; None for any other error."""
    module = error.name if isinstance(error, ModuleNotFoundError) else None
    named = extras().get((module or "").partition(".")[0])
    return MissingExtraError(str(module), named) if named else None


def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """As `sys.excepthook`: a missing extra is told in a sentence, all else as ever."""
    if told := missing_extra(error):
        print(f"{type(told).__name__}: {told}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
