"""`/api/search`: titles by words, and what the re-ranker makes of the order for a member."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Query

from features.reading.rerank import Candidate, Reranker, Reranking, Weights
from intentstream.console.live import Live, LiveAsked
from stream.domain.event_types import LONGEST_ID
from stream.exceptions import StoreRefusedError, StoreUnavailableError, WeightsError

router = APIRouter(prefix="/api/search")

_MOST: Final = 30
_SUGGESTED: Final = 8

Words = Annotated[str, Query(alias="q", max_length=1024)]


@router.get("/titles")
async def titles(live: LiveAsked, words: Words) -> list[dict[str, Any]]:
    """The first titles that have these words."""
    known = await live.titles(await live.version())
    return [asdict(title) for title, _ in known.search(words, _SUGGESTED)]


@router.get("")
async def search(
    live: LiveAsked,
    words: Words,
    profile: Annotated[str, Query(max_length=LONGEST_ID)] = "",
    stale_too: bool = False,
) -> dict[str, Any]:
    """The engine's order, and of each title the terms that re-rank it, unweighted.

    Args:
        live: titles and members.
        words: the query.
        profile: whose intent re-ranks; the engine's order stays where there is none.
        stale_too: also by the intent of a session that has ended, which the service doesn't.
    """
    found = (await live.titles(await live.version())).search(words, _MOST)
    answer: dict[str, Any] = {
        "weights": asdict(_weights(live)),
        "order": "engine",
        "freshness": None,
        "age_ms": None,
        "version": None,
        "candidates": [
            {"title": asdict(title), "score": score, "terms": None} for title, score in found
        ],
    }
    if not found or not profile:
        return answer
    ranked = await _reranked(
        live.reranker(stale_too=stale_too),
        profile,
        [Candidate(title.title_id, score) for title, score in found],
    )
    answer |= {
        "order": ranked.order,
        "freshness": ranked.freshness,
        "age_ms": ranked.age_ms,
        "version": ranked.model_version,
    }
    for one in ranked.candidates:
        if one.reasons:
            answer["candidates"][one.engine_place - 1]["terms"] = {
                reason.term: {"value": reason.value, "term": reason.contribution}
                for reason in one.reasons
            }
    return answer


def _weights(live: Live) -> Weights:
    """Those of the service."""
    path = live.settings.rerank_weights
    try:
        return Weights.read(path) if path else Weights()
    except WeightsError as error:
        raise HTTPException(502, str(error)) from error


async def _reranked(reranker: Reranker, profile_id: str, candidates: list[Candidate]) -> Reranking:
    try:
        return await reranker.rerank_async(profile_id, candidates)
    except StoreUnavailableError as error:
        raise HTTPException(503, str(error)) from error
    except StoreRefusedError as error:
        raise HTTPException(502, str(error)) from error
