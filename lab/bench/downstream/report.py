"""Keeps the results: JSON for programs, a table and a plot for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

from stream.home import HOME

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS: Final = HOME / "docs" / "results"
TASKS: Final = ("ranker", "search")

_PLOTTED: Final = {
    "ranker": (
        ("ranker", ""),
        ("ranker, intents of the night before", "nightly"),
        ("ranker, placebo", "placebo"),
    ),
    "search": (
        ("search", ""),
        ("search, stale intents used too", "any_age"),
        ("search, placebo", "placebo"),
    ),
}
"""Labels of what the plot shows of each task, and where it stands in the task's result."""


def keep(name: str, result: dict[str, Any], folder: Path = RESULTS) -> None:
    """Put the result of one source among those that are there, and write table and plot anew."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "downstream.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    results[name] = result
    path.write_text(json.dumps(results, indent=2) + "\n")
    (folder / "downstream.md").write_text(page(results))
    _plot(results, folder / "downstream.png")


def page(results: dict[str, Any]) -> str:
    """The table, Markdown."""
    head = (
        "# What live intents are worth downstream\n\n"
        "<!-- Written by `python -m lab.bench.downstream`. Don't edit. -->\n\n"
        "NDCG@10 after T2, each profile counting once; the interval is a bootstrap over profiles, "
        "p a permutation test within them. How it was measured: [search.md](../search.md).\n\n"
        "| source | | profiles | requests | without | with | lift | 95 % | p | placebo |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n"
    )
    tables = (
        head,
        *map(_row, _compared(results)),
        "\n![lift](downstream.png)\n",
        *_details(results),
    )
    return "".join(tables)


def _compared(results: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for source, result in results.items():
        for task in TASKS:
            yield source, f"**{task}**", result[task]
            by_target = result[task]["by_target"]
            for kind, lift in by_target.items() if len(by_target) > 1 else ():
                yield source, f"{task}, {kind.replace('_', ' ')}", lift
        yield source, "ranker, intents of the night before", result["ranker"]["nightly"]
        yield source, "ranker, live over these", result["ranker"]["live_over_nightly"]
        yield source, "search, stale intents used too", result["search"]["any_age"]


def _row(compared: tuple[str, str, dict[str, Any]]) -> str:
    source, name, lift = compared
    low, high = lift["ci95"]
    placebo = f"{lift['placebo']['lift_pct']:+.1f} %" if "placebo" in lift else ""
    return (
        f"| {source} | {name} | {lift['profiles']:,} | {lift['requests']:,} "
        f"| {lift['ndcg10_without']:.4f} | {lift['ndcg10_with']:.4f} | {lift['lift_pct']:+.1f} % "
        f"| {low:+.1f} to {high:+.1f} | {lift['p']:.4f} | {placebo} |\n"
    )


def _details(results: dict[str, Any]) -> Iterator[str]:
    for source, result in results.items():
        model = result["model"]
        yield (
            f"\n`{source}`: T1 {result['t1']}, T2 {result['t2']}; model `{model['experiment']}` of "
            f"{model['events_before_t1']:,} events before T1, validation NDCG@10 "
            f"{model['validation_ndcg10']:.4f}; {result['rows']:,} published rows; learnt weights "
            f"{_weights(result['search']['weights'])}; {100 * result['search']['fresh']:.0f} % of "
            f"the searches had a fresh intent. `{result['command']}`, {result['measured_at']}.\n"
        )


def _weights(weights: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in weights.items())


def _plot(results: dict[str, Any], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot

    bars = [
        (f"{source}: {label}", result[task][kind] if kind else result[task])
        for source, result in results.items()
        for task in TASKS
        for label, kind in _PLOTTED[task]
    ]
    figure, axes = pyplot.subplots(figsize=(8, 0.7 + 0.35 * len(bars)))
    for place, (_, lift) in enumerate(bars):
        low, high = lift["ci95"]
        axes.plot([low, high], [place, place], color="tab:blue", linewidth=2)
        axes.plot(lift["lift_pct"], place, "o", color="tab:blue")
    axes.set_yticks(range(len(bars)), [label for label, _ in bars])
    axes.invert_yaxis()
    axes.axvline(0, color="gray", linewidth=1)
    axes.set_xlabel("lift of NDCG@10, per cent; 95 % interval")
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)
