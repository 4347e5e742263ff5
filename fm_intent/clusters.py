"""Clusters of intent embeddings: found, described, drawn, held against hidden intents."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE
from sklearn.metrics import adjusted_rand_score, silhouette_score
from torch import Tensor

from fm_intent.data.dataset import Context, Sequences
from fm_intent.evaluate import exported, in_parts
from fm_intent.export import Clusters
from fm_intent.model_config import MODEL
from fm_intent.report import markdown_table
from fm_intent.served.network import FMIntent
from stream.domain.heads import HEADS, INTENTS
from stream.domain.intent_map import CENTRES_FILE, IntentMap, Traits
from stream.exceptions import NoClustersError

CLUSTERS: Final = 10
"""K, as in the paper."""

_DRAWN: Final = 2_000
"""Embeddings in a picture at most, and in a silhouette."""

_COMMON: Final = 0.05
"""Share of a cluster from which on a label may be what sets it apart."""

Hidden = Callable[[NDArray[np.str_], NDArray[np.int64]], Mapping[str, NDArray[np.int64]]]
"""Gives, for ids of profiles and Unix ms, `[N]` each, each one's hidden intent: parts by the names
in `INTENTS`, `[N]` indices of labels."""


@torch.inference_mode()
def intent_embeddings(
    model: FMIntent, sequences: Sequences, contexts: Context, device: str = "cpu"
) -> NDArray[np.float32]:
    """The intent embedding after each context, `[len(contexts), D]`."""
    titles = model.titles()
    found = np.empty((len(contexts.end), model.architecture.width), np.float32)
    for rows, part in in_parts(contexts):
        encoded = model(sequences.windows(part).to(device), titles, newest_only=True)
        found[rows] = encoded.intent_BLD[:, 0].cpu().numpy()
    return found


def find_centres(embeddings: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Centres `[K, D]` of at most `CLUSTERS` clusters by k-means++, that of the largest first.

    Args:
        embeddings: `[N, D]`.
        seed: of the first centres.
    """
    count = min(CLUSTERS, len(np.unique(embeddings, axis=0)))
    means = KMeans(count, init="k-means++", n_init=10, random_state=seed).fit(embeddings)
    order = np.argsort(-np.bincount(means.labels_, minlength=count), kind="stable")
    centres: NDArray[np.float32] = means.cluster_centers_[order].astype(np.float32)
    return centres


def found_clusters(
    model: FMIntent, sequences: Sequences, contexts: Context, seed: int, device: str = "cpu"
) -> Clusters:
    """The clusters of the intents after these contexts, with their map, described."""
    embeddings = intent_embeddings(model, sequences, contexts, device)
    centres = find_centres(embeddings, seed)
    cluster = _nearest(embeddings, torch.from_numpy(centres))
    described = _described(sequences, contexts, cluster, len(centres))
    traits = [
        {name: Traits.model_validate(one[name]) for name in INTENTS if name in one}
        for one in described
    ]
    sizes = [one["size"] for one in described]
    return Clusters(torch.from_numpy(centres), IntentMap.of(centres, sizes, traits))


def describe(
    data_dir: Path,
    model_repo: Path,
    results: Path,
    *,
    version: int | None = None,
    hidden: Hidden | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Describe an exported version's clusters by what came next; draw them.

    Args:
        data_dir: folder of the source that it was trained on.
        model_repo: Triton model repository.
        results: JSON file that the report is written to; tables and picture stand beside it by the
            same name.
        version: its number; None takes the newest that was trained on this source.
        hidden: the true intents, where somebody knows them.
        command: what makes the report again.

    Returns:
        The report: `version`, `source`, `windows`, `silhouette` (from -1 to 1), per cluster its
        `size` and of each intent what came next most often (`likeliest`) and most often by the
        measure of all windows (`distinctive`); and of each part of the hidden intents, and `all` of
        them together, the `adjusted_rand` index of the `clusters`, 0 by chance and 1 where they
        agree, beside that of what the `newest` interaction was.

    Raises:
        NoClustersError: when the version has none.
        NoVersionError: when there is no such version.
        DataUnusableError: when the data is missing, or is not what the version was trained on.
    """
    it = exported(data_dir, model_repo, version)
    path = model_repo / MODEL / str(it.manifest.version) / CENTRES_FILE
    if not path.exists():
        raise NoClustersError(
            f"version {it.manifest.version} has no clusters: it was exported without, or doesn't "
            "feed intents into the next title; train a hierarchical one"
        )
    contexts = it.sequences.last_contexts(it.manifest.window, it.crops)
    embeddings = intent_embeddings(it.model, it.sequences, contexts)
    centres = torch.load(path, weights_only=True)
    cluster = _nearest(embeddings, centres)
    report: dict[str, Any] = {
        "version": it.manifest.version,
        "source": it.manifest.source,
        "windows": len(cluster),
        "silhouette": _silhouette(embeddings, cluster),
        "clusters": _described(it.sequences, contexts, cluster, len(centres)),
        "command": command,
    }
    if hidden is not None:
        report["adjusted_rand"] = _agreement(it.sequences, contexts, cluster, hidden)
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(report, indent=1) + "\n")
    results.with_suffix(".md").write_text(_markdown(report, results.with_suffix(".png").name))
    _draw(embeddings, cluster, report, results.with_suffix(".png"))
    return report


def _nearest(embeddings: NDArray[np.float32], centres: Tensor) -> NDArray[np.int64]:
    nearest: NDArray[np.int64] = (
        torch.cdist(torch.from_numpy(embeddings), centres).argmin(1).numpy()
    )
    return nearest


def _silhouette(embeddings: NDArray[np.float32], cluster: NDArray[np.int64]) -> float | None:
    drawn = _sample(len(cluster))
    if len(np.unique(cluster[drawn])) < 2:
        return None
    return float(silhouette_score(embeddings[drawn], cluster[drawn]))


def _sample(count: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(0)
    return np.sort(rng.permutation(count)[:_DRAWN])


def _described(
    sequences: Sequences, contexts: Context, cluster: NDArray[np.int64], count: int
) -> list[dict[str, Any]]:
    labels = {head.name: sequences.labels.of_head(head) for head in HEADS}
    shares = {
        name: _shares(label[:, 0].numpy(), len(labels[name]))
        for name, label, trained in zip(
            INTENTS, sequences.intents(contexts), sequences.domain.trained, strict=True
        )
        if trained
    }
    described: list[dict[str, Any]] = []
    for number in range(count):
        inside = cluster == number
        one: dict[str, Any] = {"cluster": number, "size": int(inside.sum())}
        for name, share in shares.items():
            if not share[inside].any():
                continue
            here, everywhere = _mean(share[inside]), _mean(share)
            lift = np.where(here >= _COMMON, here / np.maximum(everywhere, 1e-9), 0)
            one[name] = {
                "likeliest": _named(labels[name], int(here.argmax()), here, everywhere),
                "distinctive": _named(labels[name], int(lift.argmax()), here, everywhere),
            }
        described.append(one)
    return described


def _shares(label: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """`[N, classes]`, of each row's label; all 0 where it isn't known."""
    if label.ndim == 2:
        shares: NDArray[np.float64] = label.astype(np.float64)
        return shares
    one_hot: NDArray[np.float64] = np.eye(classes + 1)[label][:, :classes]
    return one_hot


def _mean(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = shares.sum(0) / shares.sum()
    return mean


def _named(
    labels: tuple[str, ...],
    label: int,
    here: NDArray[np.float64],
    everywhere: NDArray[np.float64],
) -> dict[str, Any]:
    return {
        "label": labels[label],
        "share": round(float(here[label]), 4),
        "share_of_all": round(float(everywhere[label]), 4),
    }


def _agreement(
    sequences: Sequences, contexts: Context, cluster: NDArray[np.int64], hidden: Hidden
) -> dict[str, dict[str, float]]:
    truth = dict(
        hidden(
            sequences.columns.profile_id[contexts.profile], sequences.columns.start_ms[contexts.end]
        )
    )
    before = sequences.intents(contexts._replace(end=contexts.end - 1))
    newest = {
        name: (label[:, 0].argmax(1) if label.dim() == 3 else label[:, 0]).numpy()
        for name, label in zip(INTENTS, before, strict=True)
        if name in truth
    }
    truth["all"], newest["all"] = _together(truth), _together(newest)
    return {
        name: {
            "clusters": float(adjusted_rand_score(part, cluster)),
            "newest": float(adjusted_rand_score(part, newest[name])),
        }
        for name, part in truth.items()
    }


def _together(parts: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """One label for each combination of the parts' labels."""
    found: NDArray[np.int64] = np.unique(
        np.stack(list(parts.values())), axis=1, return_inverse=True
    )[1]
    return found.flatten()


def _markdown(report: dict[str, Any], picture: str) -> str:
    names = [name for name in INTENTS if any(name in one for one in report["clusters"])]
    lines = [
        f"# Clusters of intents on {report['source']}",
        "",
        "<!-- Written by `intentstream clusters`. Don't edit. -->",
        "",
        f"![Intent embeddings by t-SNE, coloured by cluster]({picture})",
        "",
        f"K-means++ over the intent embeddings of {report['windows']:,} held-out windows, model "
        f"version {report['version']}; described by the interaction that came next: its commonest "
        "label, and the one that sets the cluster apart, with their shares in the cluster and "
        "among all.",
        "",
        *markdown_table(
            ["cluster", "windows", *(name.replace("_", " ") for name in names)],
            (
                [str(one["cluster"]), f"{one['size']:,}", *(_cell(one.get(name)) for name in names)]
                for one in report["clusters"]
            ),
        ),
    ]
    if report["silhouette"] is not None:
        lines += [f"Silhouette {report['silhouette']:.3f}.", ""]
    if "adjusted_rand" in report:
        lines += [
            "Adjusted Rand index against the hidden intents:",
            "",
            *markdown_table(
                ["", *(name.replace("_", " ") for name in report["adjusted_rand"])],
                (
                    [title, *(f"{part[of]:.3f}" for part in report["adjusted_rand"].values())]
                    for title, of in (
                        ("clusters", "clusters"),
                        ("*the newest interaction*", "newest"),
                    )
                ),
            ),
        ]
    return "\n".join([*lines, "```sh", report["command"], "```", ""])


def _cell(head: dict[str, Any] | None) -> str:
    if head is None:
        return ""
    labels = {one["label"]: one for one in (head["likeliest"], head["distinctive"])}
    return ", ".join(
        f"{label} {one['share']:.0%} ({one['share_of_all']:.0%})" for label, one in labels.items()
    )


def _draw(
    embeddings: NDArray[np.float32],
    cluster: NDArray[np.int64],
    report: dict[str, Any],
    path: Path,
) -> None:
    mpl.use("Agg")
    from matplotlib import pyplot

    drawn = _sample(len(cluster))
    near = min(30, max(1, (len(drawn) - 1) // 3))
    place = TSNE(perplexity=near, init="pca", random_state=0).fit_transform(embeddings[drawn])
    figure, axes = pyplot.subplots(figsize=(8, 6))
    colours = pyplot.get_cmap("tab10")
    for one in report["clusters"]:
        inside = cluster[drawn] == one["cluster"]
        # Where several labels apply at a time, the commonest is so everywhere.
        labels = [
            one[head.name]["distinctive" if head.several else "likeliest"]["label"]
            for head in HEADS
            if head.name in one
        ]
        name = f"{one['cluster']}: {', '.join(labels)}"
        x, y = place[inside].T
        axes.scatter(x, y, s=6, color=[colours(one["cluster"])], label=name)
    axes.set(xticks=[], yticks=[])
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=3, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
