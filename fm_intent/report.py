"""Rows of results as Markdown tables and a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from stream.domain.heads import HEADS, INTENTS

Row = dict[str, Any]

_HEADINGS: Final = (
    "model",
    "seed",
    "HR@10",
    "NDCG@10",
    "MRR",
    "Recall@100",
    "against the best baseline",
    "epochs",
    "minutes",
    "parameters",
)
HELD_OUT: Final = {
    "leave-one-out": "The last play of each profile held out",
    "global-time": "Plays after one moment held out",
    "as-served": "The last play of each profile held out, as served",
}
"""Titles of tables by split, in their order."""

_STRATA: Final = ("discover", "continue", "rewatch", "just-opened")


def write_report(rows: Sequence[Row], results: Path) -> None:
    """Write `results`' tables and picture beside it, by the same name.

    Args:
        rows: of one dataset, the rows of a table (split, told time) one after the other.
        results: the JSON file that holds them.
    """
    tables = [
        (_title(rows_of_one[0]), rows_of_one)
        for _, group in groupby(rows, lambda row: (row["split"], row["target_time"]))
        for rows_of_one in [sorted(group, key=lambda row: float(row["ndcg10"]), reverse=True)]
    ]
    picture = results.with_suffix(".png")
    lines = [
        f"# Models on {rows[0]['dataset']}",
        "",
        "<!-- Written by `intentstream benchmark` from the JSON file beside it. Don't edit. -->",
        "",
        f"![NDCG@10 of each model, with 95 % intervals]({picture.name})",
        "",
    ]
    for title, table in tables:
        lines += [f"## {title}", "", *_next_titles(table)]
        lines += [*_over_seeds(table), *_strata(table), *_intents(table)]
    commands = dict.fromkeys(row["command"] for row in rows)
    lines += ["## Made by", "", "```sh", *commands, "```", ""]
    hashes = sorted({row["data_sha256"] for row in rows})
    lines += [f"Data: SHA-256 `{one}`" for one in hashes]
    results.with_suffix(".md").write_text("\n".join(lines) + "\n")
    _draw(tables, picture)


def _title(row: Row) -> str:
    told = "told when the next play is" if row["target_time"] else "not told when the next play is"
    return f"{HELD_OUT[row['split']]}, {told}"


def _next_titles(table: Sequence[Row]) -> Iterator[str]:
    yield "Next title, among all; 95 % intervals by bootstrap over profiles:"
    yield ""
    yield from markdown_table(
        _HEADINGS,
        (
            [
                _name(row),
                str(row["seed"]),
                _with_interval(row, "hr10"),
                _with_interval(row, "ndcg10") + _share(row["headroom"].get("ndcg10")),
                f"{row['mrr']:.4f}",
                f"{row['recall100']:.4f}",
                _versus(row["vs_best_baseline"]),
                str(row["epochs"]),
                f"{row['seconds'] / 60:.0f}",
                f"{row['params']:,}",
            ]
            for row in table
        ),
    )
    yield f"{table[0]['profiles']:,} profiles."
    if any(row["headroom"] for row in table):
        yield (
            "A share behind an interval is of the headroom: 0 % is who knows everybody's long-run "
            "taste, 100 % who infers intents from the same history by the true process."
        )
    yield ""


def _over_seeds(table: Sequence[Row]) -> Iterator[str]:
    models = {row["model"]: row for row in table if row["over_seeds"]}
    if not models:
        return
    yield (
        "Means over seeds; gains are over the best baseline of the same seeds, by a test of each "
        "profile's means in pairs:"
    )
    yield ""
    rows = []
    for model, row in models.items():
        every, mean = [one for one in table if one["model"] == model], row["over_seeds"]
        figures = sorted(one["ndcg10"] for one in every)
        rows.append(
            [
                _name(row),
                ", ".join(map(str, mean["seeds"])),
                f"{mean['ndcg10']:.4f} ({figures[0]:.4f} – {figures[-1]:.4f})",
                _versus(mean["vs_best_baseline"]),
            ]
        )
    yield from markdown_table(
        ["model", "seeds", "NDCG@10 (lowest – highest)", "against the best baseline"], rows
    )


def _strata(table: Sequence[Row]) -> Iterator[str]:
    present = [name for name in _STRATA if name in table[0]["by_action"]]
    if len(present) < 2:
        return
    yield "NDCG@10 by what the next play was to the profile:"
    yield ""
    counts = [f"{name} ({table[0]['by_action'][name]['profiles']:,})" for name in present]
    yield from markdown_table(
        ["model", "seed", *counts],
        (
            [
                _name(row),
                str(row["seed"]),
                *(_with_interval(row["by_action"][name], "ndcg10") for name in present),
            ]
            for row in table
        ),
    )


def _intents(table: Sequence[Row]) -> Iterator[str]:
    present = [name for name in INTENTS if any(name in row["intents"] for row in table)]
    if not present:
        return
    several = " and ".join(head.name for head in HEADS if head.several)
    yield (
        f"Intent of the next interaction: accuracy, of {several} mean average precision. "
        "*By titles* means: as the distribution over titles has it. Gains are over the baseline "
        "that tells the intent best, by a test in pairs."
    )
    yield ""
    rows = [
        [
            _name(row),
            str(row["seed"]),
            *(_head(row["intents"].get(name), row["headroom"].get(name)) for name in present),
        ]
        for row in table
    ]
    for what, prefix in (("the commonest", "commonest_"), ("as the newest", "newest_")):
        said = [
            next(row["intents"][name] for row in table if name in row["intents"])
            for name in present
        ]
        figures = [f"{head[prefix + main_figure(head)]:.4f}" for head in said]
        rows.append([f"*{what}*", "", *figures])
    yield from markdown_table(
        ["model", "seed", *(name.replace("_", " ") for name in present)], rows
    )


def _head(head: Row | None, share: float | None) -> str:
    if head is None:
        return ""
    told = _with_interval(head, main_figure(head)) + _share(share)
    told += " *by titles*" if head["through_titles"] else ""
    versus = _versus(head["vs_best_baseline"])
    return f"{told}; {versus}" if versus else told


def _share(headroom: float | None) -> str:
    return "" if headroom is None else f", {headroom:.0%}"


def main_figure(head: Row) -> str:
    """The name of the figure that an intent is judged by."""
    return "map" if "map" in head else "accuracy"


def _with_interval(row: Row, figure: str) -> str:
    low, high = row["ci95"][figure]
    return f"{row[figure]:.4f} ({low:.4f} – {high:.4f})"


def _versus(compared: Row | None) -> str:
    if compared is None:
        return ""
    p = "p < 0.001" if compared["p"] < 0.001 else f"p = {compared['p']:.3f}"
    return f"{compared['delta_pct']:+.1f} %, {p} ({compared['model']})"


def _name(row: Row) -> str:
    return str(row["model"]) if row["baseline"] else f"**{row['model']}**"


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, and an empty one behind."""
    cells = [list(headings), ["---"] * len(headings), *rows]
    return ["| " + " | ".join(row) + " |" for row in cells] + [""]


def _draw(tables: Sequence[tuple[str, Sequence[Row]]], path: Path) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot

    heights = [len(table) for _, table in tables]
    figure, every = pyplot.subplots(
        len(tables),
        figsize=(8, sum(heights) * 0.3 + len(tables)),
        height_ratios=heights,
        squeeze=False,
    )
    for axes, (title, table) in zip(every[:, 0], tables, strict=True):
        upwards = table[::-1]
        value = [row["ndcg10"] for row in upwards]
        ends = [row["ci95"]["ndcg10"] for row in upwards]
        reach = [
            [max(0.0, one - low) for one, (low, _) in zip(value, ends, strict=True)],
            [max(0.0, high - one) for one, (_, high) in zip(value, ends, strict=True)],
        ]
        names = [f"{row['model']} ({row['seed']})" for row in upwards]
        colours = ["tab:gray" if row["baseline"] else "tab:red" for row in upwards]
        axes.barh(names, value, xerr=reach, color=colours, error_kw={"linewidth": 1})
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("NDCG@10")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
