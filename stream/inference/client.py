"""Windows in, intents out: batches are made here, for one Triton or for several.

With several, a profile is asked at always the same one. A server that answers nothing is left, its
profiles go to the others, which compute their windows whole, and it is asked in the background
until it answers again. The last one is never left: where none answers, the caller waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from stream import metrics
from stream.domain.prediction import Intents, joined
from stream.domain.version_labels import BUILT_IN, VersionLabels
from stream.domain.window import FORGET, WindowBatch
from stream.exceptions import (
    InferenceRefusedError,
    InferenceUnavailableError,
    VersionNotServedError,
)
from stream.inference.model_server import ModelServer
from stream.inference.placement import placed
from stream.settings import TritonSettings

_NOBODY: Final = np.zeros(1, np.int64)
"""A profile that there is not. A server that is asked to forget it shows that it answers."""

_PATIENCE_S: Final = 30.0
"""Deadline of a request that no event waits for."""

_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
"""Before a server that was left is asked again; twice as long each time that it is left anew
without having answered a batch meanwhile."""

_log = logging.getLogger(__name__)


class Asks(Protocol):
    """A connection to one Triton, as far as the client knows it."""

    async def ask(self, batch: WindowBatch, version: str) -> Intents:
        """The intents of every profile of `batch`, in its order, by one request."""

    async def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True, slots=True)
class _Absence:
    """A server that was left: what it missed, and the wait for its return."""

    owed: dict[str, set[int]]
    """Profiles to forget before it is asked again: hashes of their ids, by version."""

    ending: asyncio.Task[None]
    """Ends when the server is back."""


class InferenceClient:
    """Asks one or several Tritons for the intents of windows, in bounded requests side by side.

    Args:
        settings: the servers' addresses and the bounds of requests.
        connect: makes the connection to a server.
        labels_of: the labels of a version.
    """

    def __init__(
        self,
        settings: TritonSettings,
        connect: Callable[[str, TritonSettings], Asks] = ModelServer,
        labels_of: Callable[[str], VersionLabels] = lambda _: BUILT_IN,
    ) -> None:
        self._settings = settings
        self._labels_of = labels_of
        self._servers = {address: connect(address, settings) for address in settings.triton_urls}
        self._left: dict[str, _Absence] = {}
        self._pause_s: dict[str, float] = {}
        self._version = settings.model_version

    @classmethod
    def patient(
        cls,
        settings: TritonSettings,
        labels_of: Callable[[str], VersionLabels] = lambda _: BUILT_IN,
    ) -> Self:
        """One whose requests may take long, for what no event waits for."""
        longer = settings.model_copy(update={"inference_deadline_s": _PATIENCE_S})
        return cls(longer, labels_of=labels_of)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        endings = [absence.ending for absence in self._left.values()]
        for ending in endings:
            ending.cancel()
        await asyncio.gather(*endings, return_exceptions=True)
        for server in self._servers.values():
            await server.close()

    async def infer(self, batch: WindowBatch, version: str = "") -> Intents:
        """The intents of every profile of `batch`, in its order, all of one version.

        Args:
            batch: the windows.
            version: of the model; empty takes the one that the settings pin, else Triton's default.

        Raises:
            InferenceUnavailableError: when a retry may help.
            InferenceRefusedError: when it can't.
        """
        version = self._version = version or self._settings.model_version
        batch = batch.numbered(self._labels_of(version))
        answers: list[tuple[NDArray[np.intp], Intents]] = []
        # Windows of like length share a request, so that little of it is padding.
        rows = np.argsort(batch.length[:, 0], kind="stable")
        while len(rows):
            # What a slow server answered in time is kept, or asking for everything again would keep
            # it as slow.
            answered = await self._answered(batch, rows, version)
            answers += answered
            rows = rows[~np.isin(rows, np.concatenate([rows[:0], *(some for some, _ in answered)]))]
        together = joined([intents for _, intents in answers])
        if len(set(together.model_version)) > 1:
            raise InferenceUnavailableError(
                f"versions {', '.join(sorted(set(together.model_version)))} answered one batch: "
                "Triton's default has just changed, or is not the same on all servers"
            )
        return together.rows(np.argsort(np.concatenate([some for some, _ in answers])))

    async def forget(self, profile_hash: NDArray[np.int64], version: str = "") -> None:
        """Have a version drop what it keeps of profiles, on every server.

        A server that was left does it before it is asked anything else; one that was started anew
        keeps nothing.

        Args:
            profile_hash: `[B]` hashes of their ids.
            version: as for `infer`.

        Raises:
            VersionNotServedError: when no server has the version; so none keeps anything.
            InferenceUnavailableError: when a retry may help.
            InferenceRefusedError: when it can't.
        """
        version = version or self._settings.model_version
        present = self._present()
        results = await asyncio.gather(
            *(self._forget_at(address, profile_hash, version) for address in present),
            return_exceptions=True,
        )
        not_served, failures = [], []
        for address, result in zip(present, results, strict=True):
            if isinstance(result, VersionNotServedError):
                not_served.append(result)
            elif result is not None and not (
                isinstance(result, InferenceUnavailableError) and self._leave(address, result)
            ):
                failures.append(result)
        for absence in self._left.values():
            absence.owed.setdefault(version, set()).update(profile_hash.tolist())
        if failures or len(not_served) == len(present):
            raise (failures or not_served)[0]

    def _present(self) -> list[str]:
        return [address for address in self._servers if address not in self._left]

    async def _answered(
        self, batch: WindowBatch, rows: NDArray[np.intp], version: str
    ) -> list[tuple[NDArray[np.intp], Intents]]:
        """The rows that were answered, with their answers. It fails when no server answered any."""
        requests = list(self._requests(batch, rows))
        results = await asyncio.gather(
            *(self._servers[address].ask(batch.rows(some), version) for address, some in requests),
            return_exceptions=True,
        )
        answers = []
        heard: set[str] = set()
        failures: dict[str, InferenceUnavailableError] = {}
        for (address, some), result in zip(requests, results, strict=True):
            if isinstance(result, Intents):
                answers.append((some, result))
                heard.add(address)
                self._pause_s.pop(address, None)
            elif isinstance(result, InferenceUnavailableError):
                failures[address] = result
            else:
                raise result
        silent = [address for address in failures if address not in heard]
        left = [self._leave(address, failures[address]) for address in silent]
        if not answers and not any(left):
            raise failures[silent[0]]
        return answers

    def _requests(
        self, batch: WindowBatch, rows: NDArray[np.intp]
    ) -> Iterator[tuple[str, NDArray[np.intp]]]:
        present = self._present()
        at = placed(batch.profile_hash[rows, 0], present)
        size = self._settings.inference_batch
        for number, address in enumerate(present):
            own = rows[at == number]
            for start in range(0, len(own), size):
                yield address, own[start : start + size]

    async def _forget_at(self, address: str, profile_hash: NDArray[np.int64], version: str) -> None:
        size = self._settings.inference_batch
        for start in range(0, len(profile_hash), size):
            some = _forgetting(profile_hash[start : start + size])
            await self._servers[address].ask(some, version)

    def _leave(self, address: str, failure: InferenceUnavailableError) -> bool:
        """Ask others instead of this server from now on; False where there is no other."""
        if address in self._left:
            return True
        if len(self._present()) == 1:
            return False
        _log.warning("Going on without a model server that answers nothing: %s", failure)
        metrics.MODEL_SERVERS_LEFT.labels(address).inc()
        pause_s = self._pause_s.get(address, _PAUSE_S)
        self._pause_s[address] = min(2 * pause_s, _LONGEST_PAUSE_S)
        owed: dict[str, set[int]] = {}
        ending = asyncio.create_task(self._take_back(address, owed, pause_s))
        self._left[address] = _Absence(owed, ending)
        return True

    async def _take_back(self, address: str, owed: dict[str, set[int]], pause_s: float) -> None:
        try:
            while True:
                await asyncio.sleep(pause_s)
                try:
                    await self._settle(address, owed)
                    # Of the version that is asked for by now: one that it lacks is no answer.
                    await self._forget_at(address, _NOBODY, self._version)
                except InferenceUnavailableError:
                    continue
                except InferenceRefusedError as answer:
                    _log.error("Model server %s: %s", address, answer)
                if not owed:
                    break
            _log.info("Model server %s answers again", address)
        finally:
            del self._left[address]
            metrics.MODEL_SERVERS_LEFT.labels(address).dec()

    async def _settle(self, address: str, owed: dict[str, set[int]]) -> None:
        """Have the server forget what it owes."""
        while owed:
            version, profiles = owed.popitem()
            try:
                with suppress(VersionNotServedError):  # it keeps nothing
                    await self._forget_at(address, np.array([*profiles], np.int64), version)
            except InferenceUnavailableError:
                owed.setdefault(version, set()).update(profiles)
                raise


def _forgetting(profile_hash: NDArray[np.int64]) -> WindowBatch:
    column = profile_hash[:, None]
    return WindowBatch(
        title_hash=np.zeros_like(column),
        action=np.zeros_like(column, np.int32),
        start_ms=np.zeros_like(column),
        watched_share=np.full_like(column, -1, np.float32),
        device=np.zeros_like(column, np.int32),
        length=np.ones_like(column, np.int32),
        profile_hash=column,
        sequence_no=np.full_like(column, FORGET),
    )
