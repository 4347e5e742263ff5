"""One Triton, and what its failures mean."""

from __future__ import annotations

import asyncio
from dataclasses import fields
from typing import Final

import grpc
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from stream.domain.prediction import OUTPUTS, Intents
from stream.domain.window import WindowBatch
from stream.exceptions import (
    InferenceRefusedError,
    InferenceUnavailableError,
    VersionNotServedError,
)
from stream.settings import TritonSettings

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

_CHANNEL: Final = (
    # tritonclient's own, which these replace.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server whose machine is gone closes nothing: without probes a call would meet its deadline
    # until TCP gives up, a quarter of an hour later.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # By default up to two minutes, in which each call fails though the server is back.
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

_NOT_SERVED: Final = f"StatusCode.{grpc.StatusCode.NOT_FOUND.name}"


class ModelServer:
    """Asks one Triton, in requests that run side by side.

    Triton's own queue has no bound. Deadlines bound it instead: the server drops a request that
    its client has given up, and no more are in flight than the settings say.
    """

    def __init__(self, address: str, settings: TritonSettings) -> None:
        self._address = address
        self._settings = settings
        self._client = triton.InferenceServerClient(address, channel_args=_CHANNEL)
        self._in_flight = asyncio.Semaphore(settings.inference_concurrency)
        self._outputs = [triton.InferRequestedOutput(name) for name in OUTPUTS]

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def ask(self, batch: WindowBatch, version: str) -> Intents:
        """The intents of every profile of `batch`, in its order, by one request.

        Args:
            batch: the windows.
            version: of the model; empty takes Triton's default.

        Raises:
            InferenceUnavailableError: when a retry may help.
            InferenceRefusedError: when it can't.
        """
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
                problem = f"{self._address}: {error.status()}: {error.message()}"
                if error.status() == _NOT_SERVED:
                    raise VersionNotServedError(problem) from error
                if error.status() in _RETRYABLE:
                    raise InferenceUnavailableError(problem) from error
                raise InferenceRefusedError(
                    f"{problem}; is version {version or '(default)'} of "
                    f"{self._settings.model_name} one that this worker can talk to?"
                ) from error
        return Intents.of(
            {name: result.as_numpy(name) for name in OUTPUTS},
            [result.get_response().model_version] * len(batch),
        )


def _inputs(batch: WindowBatch) -> list[triton.InferInput]:
    inputs = []
    for column in fields(WindowBatch):
        values = getattr(batch, column.name)
        tensor = triton.InferInput(column.name, values.shape, np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    return inputs
