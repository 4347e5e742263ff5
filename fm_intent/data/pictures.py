"""Pictures for a page, as SVG that takes the page's colours and fonts."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

FIRST: Final = "#3f8fd2"
SECOND: Final = "#d98032"
_INK: Final = "#010203"
"""Stands for the page's colour of text."""


def svg(name: str, draw: Callable[[Axes], None]) -> str:
    """A picture of one pair of axes.

    Args:
        name: Of the picture on its page.
        draw: Draws into the axes.
    """
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.family": "sans-serif",
    }
    with mpl.rc_context(style), warnings.catch_warnings():
        # The browser has the letters that this machine's font lacks: texts stay texts.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure((6.4, 3.4), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        out = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    drawn = out.getvalue()
    return drawn[drawn.index("<svg") :].replace(_INK, "currentColor")
