"""The pictures of a check's page, one of each kind of number."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fm_intent.data.pictures import FIRST, SECOND, svg

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from matplotlib.axes import Axes

    from fm_intent.data.checking import Check

Columns = dict[str, list[Any]]


def pictures(check: Check) -> list[str]:
    """One SVG of each picture whose numbers are there."""
    drawn: Mapping[str, Callable[..., None]] = {
        "days": _days,
        "types": _types,
        "sessions": _sessions,
        "histories": _histories,
        "shares": _shares,
        "popularity": _popularity,
        "genres": _genres,
    }
    shown = [
        svg(name, partial(draw, columns=check.pictures[name]))
        for name, draw in drawn.items()
        if any(check.pictures.get(name, {}).values())
    ]
    known = {
        one.fault.name.removesuffix("_missing").removesuffix("_unknown"): 100 * (1 - one.share)
        for one in check.findings
        if one.fault.name in _COVERED and one.of
    }
    covered: Columns = {"of": list(known), "percent": list(known.values())}
    return [*shown, svg("known", partial(_known, columns=covered))]


_COVERED: Final = (
    "genre_missing",
    "kind_missing",
    "release_missing",
    "device_missing",
    "share_unknown",
    "title_unknown",
)


def _days(axes: Axes, columns: Columns) -> None:
    days = np.array(columns["day"]).astype("datetime64[D]")
    every = np.arange(days[0], days[-1] + 1)
    place = (days - days[0]).astype(int)
    for name, label, color in (("plays", "playback", FIRST), ("others", "browsing", SECOND)):
        counts = np.zeros(len(every))
        counts[place] = columns[name]
        axes.plot(every, counts, label=label, color=color, linewidth=1)
    axes.set(title="Events a day", xlabel="day (UTC)", ylabel="events")
    axes.set_ylim(bottom=0)
    axes.tick_params("x", rotation=30)
    axes.legend(frameon=False)


def _types(axes: Axes, columns: Columns) -> None:
    axes.barh(columns["type"], columns["events"], color=FIRST)
    axes.invert_yaxis()
    axes.set(title="Event types", xlabel="events")


def _sessions(axes: Axes, columns: Columns) -> None:
    _doubling(axes, columns["log2"], columns["sessions"], first=0)
    axes.set(title="Session lengths", xlabel="minutes (a session ends after 30 idle minutes)")
    axes.set_ylabel("sessions")


def _histories(axes: Axes, columns: Columns) -> None:
    _doubling(axes, columns["log2"], columns["profiles"], first=1)
    axes.set(title="History lengths", xlabel="plays of a profile", ylabel="profiles")


def _doubling(axes: Axes, log2: Sequence[int], counts: Sequence[int], first: int) -> None:
    """Bars of ranges that double, the narrowest of which begins at `first`."""
    ends = [(2**k - 1 + first, 2 ** (k + 1) - 2 + first) for k in log2]
    labels = [str(low) if low == high else f"{low}–{high}" for low, high in ends]
    axes.bar(labels, counts, color=FIRST)
    axes.tick_params("x", rotation=45)


def _shares(axes: Axes, columns: Columns) -> None:
    axes.bar(
        np.array(columns["twentieth"]) * 5, columns["sittings"], 4.6, align="edge", color=FIRST
    )
    axes.set(title="Watched share, where it is known", xlabel="watched (% of the title's length)")
    axes.set(ylabel="sittings", xlim=(0, 100))


def _popularity(axes: Axes, columns: Columns) -> None:
    plays = np.array(columns["plays"], float)
    picked = np.unique(np.linspace(0, len(plays) - 1, 200).astype(int))
    shares = 100 * np.cumsum(plays) / max(plays.sum(), 1)
    axes.plot(100 * (picked + 1) / len(plays), shares[picked], color=FIRST)
    axes.set(title="Popularity", xlabel="most played titles (% of titles)", ylabel="plays (%)")
    axes.set(xlim=(0, 100), ylim=(0, 101))


def _genres(axes: Axes, columns: Columns) -> None:
    rows = np.arange(len(columns["genre"]))
    for name, shift, color in (("titles", -0.2, FIRST), ("plays", 0.2, SECOND)):
        counts = np.array(columns[name], float)
        axes.barh(rows + shift, 100 * counts / max(counts.sum(), 1), 0.4, label=name, color=color)
    axes.set_yticks(rows, columns["genre"], fontsize=7)
    axes.invert_yaxis()
    axes.set(title="Genres, as labels", xlabel="share of genres (%)")
    axes.legend(frameon=False)


def _known(axes: Axes, columns: Columns) -> None:
    axes.barh(columns["of"], columns["percent"], color=FIRST)
    axes.invert_yaxis()
    axes.set(title="What is known", xlabel="of the titles, sittings or events (%)", xlim=(0, 100))
