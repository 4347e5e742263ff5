"""Models: which versions there are, what each is in service as, and how good it was when trained.

Nothing here changes the live version; the page tells the commands that do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from starlette.responses import StreamingResponse

from intentstream.console.context import Asked, Console, console_of
from intentstream.console.samples import Samples, total
from intentstream.console.streams import repeated
from intentstream.release_report import Version, all_versions
from stream.domain.heads import INTENTS

_EVERY_S: Final = 10.0


@asynccontextmanager
async def _running(app: FastAPI) -> AsyncIterator[None]:
    app.state.models = repeated(partial(_told_of_all, console_of(app)), _EVERY_S)
    yield


router = APIRouter(prefix="/api/models", lifespan=_running)

_TOLD: Final = ("source", "trained_at", "experiment", "epochs", "params", "titles", "window")
_METRICS: Final = (
    ("ndcg10", "NDCG@10"),
    ("hr10", "HR@10"),
    ("mrr", "MRR"),
    ("recall100", "Recall@100"),
)


@router.get("/live")
async def live(console: Asked, request: Request) -> StreamingResponse:
    """What `intentstream model status` knows, each version's evaluation, and the shadow's drift."""
    return console.hub.answer(request.app.state.models)


async def _told_of_all(console: Console) -> dict[str, Any]:
    found = await all_versions(console.settings)
    release = found.release
    return {
        "live": release.live,
        "previous": release.previous,
        "shadow": release.shadow,
        "shadow_share": release.shadow_share,
        "pinned": console.settings.model_version,
        "tritons": found.tritons,
        "remark": found.remark,
        "versions": [_told(one) for one in reversed(found.versions)],
        "divergence": divergence(console.readings.samples),
    }


def divergence(samples: Samples) -> dict[str, Any]:
    """How far the shadow's answers are from the live ones, since the workers began.

    Args:
        samples: of the workers.

    Returns:
        The mean bits of each head, the mean share of next titles that both propose (None where
        nothing was compared), and how many answers were compared, failed or were skipped.
    """
    sums = total(samples, "intentstream_shadow_divergence_bits_sum", "head")
    counts = total(samples, "intentstream_shadow_divergence_bits_count", "head")
    overlap = total(samples, "intentstream_shadow_overlap_sum").get((), 0.0)
    compared = total(samples, "intentstream_shadow_overlap_count").get((), 0.0)
    return {
        "heads": {
            head: sums[head,] / counts[head,] for head in INTENTS if counts.get((head,), 0.0)
        },
        "overlap": overlap / compared if compared else None,
        "answers": {
            outcome: count
            for (outcome,), count in total(
                samples, "intentstream_shadow_rows_total", "outcome"
            ).items()
        },
    }


def _told(one: Version) -> dict[str, Any]:
    manifest = one.manifest
    metrics = manifest.get("metrics", {})
    report = manifest.get("report", {})
    return {
        "version": one.version,
        "role": one.role,
        "serving": one.serving,
        **{name: manifest.get(name) for name in _TOLD},
        "metrics": [
            {
                "name": label,
                "value": metrics[name],
                "ci95": report.get("ci95", {}).get(name),
                "popularity": metrics.get(f"popularity_{name}"),
            }
            for name, label in _METRICS
            if name in metrics
        ],
        "intents": [
            {
                "head": head,
                "measure": "mean average precision" if measure == "map" else "accuracy",
                "value": of_it[measure],
                "commonest": of_it.get(f"commonest_{measure}"),
                "newest": of_it.get(f"newest_{measure}"),
            }
            for head, of_it in report.get("intents", {}).items()
            for measure in ("map", "accuracy")
            if measure in of_it
        ],
    }
