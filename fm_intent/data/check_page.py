"""A check's page: one file of HTML with its pictures in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import jinja2

from fm_intent.data.check_pictures import pictures

if TYPE_CHECKING:
    from fm_intent.data.checking import Check

_TEMPLATE: Final = "check.html.j2"


def page(check: Check) -> str:
    """The page; it needs no other file and no network."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fm_intent.data", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    worst = sorted(check.findings, key=lambda one: ("error", "warning", "ok").index(one.level))
    return environment.get_template(_TEMPLATE).render(
        check=check,
        found=[one for one in worst if one.count],
        fine=[one for one in check.findings if not one.count],
        pictures=pictures(check),
    )
