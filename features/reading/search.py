"""`POST /search/rerank`: a query's candidates in the order of the profile's live intent.

The engine calls it with what it found and shows what comes back. When the answer is an error, or
late, the engine's own order is the one to show: this service improves it and is never needed.
"""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Final

import orjson
import uvicorn
from fastapi import FastAPI, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field

from features.reading.rerank import Candidate, Reranker, Reranking
from stream.exceptions import (
    CandidatesError,
    PortTakenError,
    StoreRefusedError,
    StoreUnavailableError,
)
from stream.logs import set_up
from stream.ports import is_free

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stream.settings import Settings

MOST_CANDIDATES: Final = 1000


class Found(BaseModel):
    """A title that the engine found."""

    model_config = ConfigDict(extra="forbid")

    title_id: Annotated[str, Field(min_length=1, max_length=512)]
    score: float | None = Field(None, description="The engine's; for all candidates or for none.")


class Query(BaseModel):
    """A query of the search engine."""

    model_config = ConfigDict(extra="forbid")

    profile_id: Annotated[str, Field(min_length=1, max_length=128)]
    query: str = Field("", max_length=1024, description="What was typed; comes back in the answer.")
    candidates: Annotated[list[Found], Field(min_length=1, max_length=MOST_CANDIDATES)] = Field(
        description="In the engine's order."
    )


@dataclass(frozen=True, slots=True)
class SearchAnswer(Reranking):
    """A re-ranking, and the query that it belongs to."""

    query: str


def create_app(settings: Settings) -> FastAPI:
    """The service; connects with its first request, and closes when it is shut down."""
    reranker = Reranker(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await reranker.close()

    app = FastAPI(
        title="Search re-ranking",
        summary="Candidates in the order of live intent.",
        lifespan=lifespan,
    )

    # The answer is written by orjson: checking a thousand candidates again would only take time.
    @app.post("/search/rerank", response_model=SearchAnswer)
    async def rerank(query: Query) -> Response:
        """Re-rank; `order` says whose order came back, and `reasons` why."""
        found = await _reranked(
            reranker,
            query.profile_id,
            [Candidate(one.title_id, one.score) for one in query.candidates],
        )
        values = {field.name: getattr(found, field.name) for field in fields(Reranking)}
        answer = SearchAnswer(**values, query=query.query)
        return Response(orjson.dumps(answer), media_type="application/json")

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the store can be read: asks it for a title that there is not."""
        await _reranked(reranker, "health", [Candidate("health")])
        return {"status": "ok"}

    return app


async def _reranked(reranker: Reranker, profile_id: str, candidates: list[Candidate]) -> Reranking:
    try:
        return await reranker.rerank_async(profile_id, candidates)
    except CandidatesError as error:
        raise HTTPException(422, str(error)) from error
    except StoreUnavailableError as error:
        raise HTTPException(503, str(error)) from error
    except StoreRefusedError as error:
        raise HTTPException(502, str(error)) from error


def serve(settings: Settings) -> None:
    """Serve until stopped, at `search_host` and `search_port`.

    Raises:
        PortTakenError: when another process listens there.
        WeightsError: when the settings name a file that holds no weights.
    """
    if not is_free(settings.search_port):
        raise PortTakenError("the search service", settings.search_port, "INTENT_SEARCH_PORT")
    if settings.online_store != "redis":
        # Feast reads then, and goes by its registry.
        from features.registry.store import apply

        apply(settings)
    set_up(settings)
    app = create_app(settings)
    # To look for garbage in what is imported by now would hold up a query, now and then.
    gc.collect()
    gc.freeze()
    uvicorn.run(
        app,
        host=settings.search_host,
        port=settings.search_port,
        log_config=None,
        log_level=settings.log_level.lower(),
        access_log=False,
    )
