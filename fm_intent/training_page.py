"""The report of a training: Markdown for repositories, and a page with pictures in one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import jinja2

from fm_intent.data.pictures import FIRST, SECOND, svg
from fm_intent.report import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes

    from fm_intent.service_training import TrainingReport

_TEMPLATE: Final = "training.html.j2"
_P: Final = 0.001


def markdown(report: TrainingReport) -> str:
    """The report as Markdown."""
    lines = [f"# Training on {report.source}", "", _verdict(report), ""]
    for title, note, head, rows in tables(report):
        lines += [f"## {title}", "", note, "", *markdown_table(head, rows)]
    return "\n".join(lines).rstrip() + "\n"


def page(report: TrainingReport) -> str:
    """The report as a page; it needs no other file and no network."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fm_intent", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        report=report,
        verdict=_verdict(report),
        tables=list(tables(report)),
        pictures=list(_pictures(report)),
    )


def _verdict(report: TrainingReport) -> str:
    ours = report.models[report.experiment]["ndcg10"]
    common = report.models["popularity"]["ndcg10"]
    told = (
        f"{report.experiment}, judged by {report.split} on {report.tested:,} held-out plays of "
        f"{report.profiles:,} profiles: NDCG@10 {ours:.4f}, {ours / max(common, 1e-9):.1f} times "
        f"that of popularity. {report.interactions:,} interactions, {report.titles:,} titles, best "
        f"in epoch {report.epochs}, {report.seconds / 60:.1f} minutes."
    )
    if report.begun_from:
        told += (
            f" Begun with {report.begun_from.titles:.0%} of the titles and "
            f"{report.begun_from.labels:.0%} of the labels of the version before."
        )
    if report.complaints:
        told += f" Not exported: {'; '.join(report.complaints)}."
    return told


def tables(
    report: TrainingReport,
) -> Iterator[tuple[str, str, Sequence[str], list[list[str]]]]:
    """Title, note, headings and rows of each table."""
    yield (
        "Next title",
        "All titles ranked. In brackets 95 % intervals by bootstrap; p of Student's paired test "
        f"that a model's NDCG@10 is that of {report.experiment}.",
        ["model", "HR@10", "NDCG@10", "MRR", "Recall@100", "p"],
        [
            [
                name,
                _with_interval(one, "hr10"),
                _with_interval(one, "ndcg10"),
                f"{one['mrr']:.4f}",
                f"{one['recall100']:.4f}",
                "" if "p" not in one else f"{one['p']:.2g}" if one["p"] >= _P else "< 0.001",
            ]
            for name, one in report.models.items()
        ],
    )
    yield (
        "Slices",
        "NDCG@10 of some of the plays.",
        ["slice", "plays", report.experiment, "popularity"],
        [
            [one.name, f"{one.plays:,}", *map(_figure, (one.ndcg10, one.popularity_ndcg10))]
            if one.plays
            else [one.name, "0", "", ""]
            for one in report.slices
        ],
    )
    if report.cold["plays"]:
        yield (
            "Titles first seen after the cut",
            "Ranked among all titles of the catalogue, by their metadata alone.",
            ["plays", "HR@100", "HR@100 by chance"],
            [
                [
                    f"{report.cold['plays']:,.0f}",
                    _figure(report.cold["hr100"]),
                    _figure(report.cold["chance_hr100"]),
                ]
            ],
        )
    yield (
        "Intents of the next interaction",
        "Accuracy, where several labels apply at a time mean average precision; beside it that of "
        "naming the commonest label and of naming the newest interaction's. ECE is the expected "
        "calibration error.",
        ["head", report.experiment, "commonest", "newest", "ECE"],
        [list(row) for row in _heads(report)],
    )


def _heads(report: TrainingReport) -> Iterator[tuple[str, ...]]:
    for name, one in report.heads.items():
        figure = "map" if "map" in one else "accuracy"
        calibrated = report.calibration.get(name)
        yield (
            name,
            _with_interval(one, figure),
            _figure(one[f"commonest_{figure}"]),
            _figure(one[f"newest_{figure}"]),
            _figure(calibrated.error) if calibrated else "",
        )


def _figure(value: float) -> str:
    return f"{value:.4f}"


def _with_interval(one: dict[str, Any], figure: str) -> str:
    low, high = one["ci95"][figure]
    return f"{one[figure]:.4f} ({low:.4f} – {high:.4f})"


def _pictures(report: TrainingReport) -> Iterator[str]:
    def models(axes: Axes) -> None:
        names = list(report.models)
        values = [one["ndcg10"] for one in report.models.values()]
        ends = [one["ci95"]["ndcg10"] for one in report.models.values()]
        reach = [
            [v - e[i] if not i else e[i] - v for v, e in zip(values, ends, strict=True)]
            for i in (0, 1)
        ]
        axes.barh(names, values, xerr=reach, color=FIRST)
        axes.invert_yaxis()
        axes.set(title="Next title", xlabel="NDCG@10, with 95 % intervals")

    def curve(axes: Axes) -> None:
        steps = [one["steps"] for one in report.curve]
        axes.plot(steps, [one["ndcg10"] for one in report.curve], color=FIRST)
        axes.set(title="Training", xlabel="steps", ylabel="NDCG@10 of validation")
        right = axes.twinx()
        right.plot(steps, [one["item_loss"] for one in report.curve], color=SECOND)
        right.set_ylabel("loss of next titles")

    yield svg("models", models)
    if report.curve:
        yield svg("curve", curve)
    for name, one in report.calibration.items():

        def reliable(axes: Axes, name: str = name, one: Any = one) -> None:
            axes.plot([0, 1], [0, 1], color=SECOND, linewidth=1)
            sizes = [20 + 200 * count / sum(one.count) for count in one.count]
            axes.scatter(one.confidence, one.right, s=sizes, color=FIRST)
            axes.set(title=f"{name}: expected calibration error {one.error:.3f}")
            axes.set(xlabel="probability of the likeliest label", ylabel="how often it came")
            axes.set(xlim=(0, 1), ylim=(0, 1))

        yield svg(f"reliability-{name}", reliable)
