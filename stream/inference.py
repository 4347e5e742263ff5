"""The Triton client: windows in, intents out. One client for the process, batches made here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import fields
from typing import Final, Self

import grpc
import numpy as np
import tritonclient.grpc.aio as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from stream.exceptions import InferenceRefused, InferenceUnavailable, VersionNotServed
from stream.intents import OUTPUTS, Intents, joined
from stream.settings import Settings
from stream.window import WindowBatch

_RETRYABLE: Final = {
    f"StatusCode.{code.name}"
    for code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    )
}
"""Codes of failures that pass."""

_NOT_SERVED: Final = f"StatusCode.{grpc.StatusCode.NOT_FOUND.name}"

FORGET: Final = -1
"""The `sequence_no` of a row whose profile the model is to forget."""


class InferenceClient:
    """Asks Triton for the intents of windows, in bounded requests that run side by side.

    Triton's own queue has no bound. Deadlines bound it instead: the server drops a request that
    its client has given up, and no more are in flight than the settings say.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = triton.InferenceServerClient(settings.triton_url)
        self._in_flight = asyncio.Semaphore(settings.inference_concurrency)
        self._outputs = [triton.InferRequestedOutput(name) for name in OUTPUTS]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def infer(self, batch: WindowBatch, version: str = "") -> Intents:
        """The intents of every profile of `batch`, in its order, all of one version.

        Args:
            batch: the windows.
            version: of the model; empty takes the one that the settings pin, else Triton's default.

        Raises:
            InferenceUnavailable: when a retry may help.
            InferenceRefused: when it can't.
        """
        order = np.argsort(batch.length[:, 0], kind="stable")
        requests = list(_split(batch, order, self._settings.inference_batch))
        version = version or self._settings.model_version
        answers: dict[int, Intents] = {}
        while len(answers) < len(requests):
            answers |= await self._answered(
                {i: request for i, request in enumerate(requests) if i not in answers}, version
            )
        together = joined([answers[i] for i in range(len(requests))])
        if len(set(together.model_version)) > 1:
            raise InferenceUnavailable("Triton's default version has just changed")
        return together.rows(np.argsort(order))

    async def forget(self, profile_hash: NDArray[np.int64], version: str = "") -> None:
        """Have a version drop what it keeps of profiles, `[B]` hashes of their ids.

        Raises:
            InferenceUnavailable: when a retry may help.
            InferenceRefused: when it can't.
        """
        column = profile_hash[:, None]
        await self.infer(
            WindowBatch(
                title_hash=np.zeros_like(column),
                action=np.zeros_like(column, np.int32),
                start_ms=np.zeros_like(column),
                watched_share=np.full_like(column, -1, np.float32),
                device=np.zeros_like(column, np.int32),
                length=np.ones_like(column, np.int32),
                profile_hash=column,
                sequence_no=np.full_like(column, FORGET),
            ),
            version,
        )

    async def _answered(self, requests: dict[int, WindowBatch], version: str) -> dict[int, Intents]:
        # What a slow server answered in time is kept, or asking for everything again would keep it
        # as slow; no answer at all is the caller's to wait about.
        results = await asyncio.gather(
            *(self._request(request, version) for request in requests.values()),
            return_exceptions=True,
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, InferenceUnavailable) or len(failures) == len(requests):
                raise failure
        answers = zip(requests, results, strict=True)
        return {i: answer for i, answer in answers if isinstance(answer, Intents)}

    async def _request(self, batch: WindowBatch, version: str) -> Intents:
        async with self._in_flight:
            try:
                result = await self._client.infer(
                    self._settings.model_name,
                    _inputs(batch),
                    model_version=version,
                    outputs=self._outputs,
                    client_timeout=self._settings.inference_deadline_s,
                )
            except InferenceServerException as error:
                if error.status() == _NOT_SERVED:
                    raise VersionNotServed(f"{error.status()}: {error.message()}") from error
                if error.status() in _RETRYABLE:
                    raise InferenceUnavailable(f"{error.status()}: {error.message()}") from error
                raise InferenceRefused(
                    f"{error.status()}: {error.message()}; is version "
                    f"{version or '(default)'} of {self._settings.model_name} one that this "
                    "worker can talk to?"
                ) from error
        return Intents(
            **{name: result.as_numpy(name) for name in OUTPUTS},
            model_version=[result.get_response().model_version] * len(batch),
        )


def _inputs(batch: WindowBatch) -> list[triton.InferInput]:
    inputs = []
    for column in fields(WindowBatch):
        values = getattr(batch, column.name)
        tensor = triton.InferInput(column.name, values.shape, np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    return inputs


def _split(batch: WindowBatch, order: NDArray[np.intp], rows: int) -> Iterator[WindowBatch]:
    # Windows of like length share a request, so that little of it is padding.
    for start in range(0, len(order), rows):
        yield batch.rows(order[start : start + rows])
