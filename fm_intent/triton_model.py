"""The `fm_intent` model of Triton's python backend; `model_repo/README.md` has its contract.

Export copies this file into a version's folder as `model.py`, beside `network.py`. Tensors pass by
DLPack alone, which leaves them where they are, on a CPU or a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
import triton_python_backend_utils as pb
from torch import Tensor
from torch.nn import functional
from torch.utils.dlpack import from_dlpack

from .network import FMIntent, Interactions, load

_SEQUENCES: Final = ("title_hash", "action", "start_ms", "watched_share", "device")
_UNREAD: Final = ("profile_hash", "sequence_no")
"""Inputs that name what a window belongs to; a single window's answer doesn't depend on them."""

_OUTPUTS: Final = (
    "action_probs",
    "genre_probs",
    "kind_probs",
    "release_age_probs",
    "intent_attention",
    "intent_embedding",
    "intent_cluster",
    "next_title_hash",
    "next_title_score",
    "user_embedding",
)
_TOP: Final = 20
_NO_CLUSTER: Final = -1
_LONGEST: Final = 256
_LAST_MS: Final = 1 << 53


class TritonPythonModel:
    """One instance of a version."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version beside this file and answer once, so that no caller waits for it."""
        parameters = json.loads(args["model_config"])["parameters"]
        torch.set_num_threads(int(parameters["threads"]["string_value"]))
        on_gpu = args["model_instance_kind"] == "GPU"
        self._device = torch.device(f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu")
        self._model: FMIntent = load(Path(__file__).with_name("model.pt"), self._device)
        with torch.inference_mode():
            self._titles = self._model.titles()
        for rows in (1, 64):
            self._answer([_warm_up_request(rows)])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer all requests of a batch in one pass; a malformed one gets an error of its own."""
        responses: list[Any] = [None] * len(requests)
        good, places = [], []
        for place, request in enumerate(requests):
            tensors = {one.name(): from_dlpack(one.to_dlpack()) for one in request.inputs()}
            complaint = self._complaint(tensors)
            if complaint:
                error = pb.TritonError(complaint, pb.TritonError.INVALID_ARG)
                responses[place] = pb.InferenceResponse(error=error)
            else:
                good.append(tensors)
                places.append(place)
        if good:
            for place, answer in zip(places, self._answer(good), strict=True):
                responses[place] = pb.InferenceResponse(
                    output_tensors=[
                        pb.Tensor.from_dlpack(name, tensor)
                        for name, tensor in zip(_OUTPUTS, answer, strict=True)
                    ]
                )
        return responses

    def _complaint(self, tensors: dict[str, Tensor]) -> str:
        """What is wrong with a request, or nothing."""
        shape = tensors["title_hash"].shape
        length = tensors["length"]
        if len(shape) != 2 or not 1 <= shape[1] <= _LONGEST:
            return f"title_hash has shape {list(shape)}; send [B, L] with L from 1 to {_LONGEST}"
        for name in _SEQUENCES:
            if tensors[name].shape != shape:
                return f"{name} has shape {list(tensors[name].shape)}, title_hash {list(shape)}"
        for name in ("length", *_UNREAD):
            if tensors[name].shape != (shape[0], 1):
                return f"{name} has shape {list(tensors[name].shape)}; send [{shape[0]}, 1]"
        inside = torch.arange(shape[1], device=length.device) < length
        start = tensors["start_ms"]
        falls = inside[:, 1:] & (start[:, 1:] < start[:, :-1])
        domain = self._model.domain
        limits = {"action": domain.actions, "device": domain.devices, "start_ms": _LAST_MS}
        wrong = {
            f"length must be from 1 to {shape[1]}": (length < 1) | (length > shape[1]),
            "start_ms must not fall": falls,
        }
        for name, limit in limits.items():
            outside = (tensors[name] < 0) | (tensors[name] >= limit)
            wrong[f"{name} must be from 0 to {limit - 1}"] = inside & outside
        for rule, where in wrong.items():
            if where.any():
                row = int(where.any(1).nonzero()[0])
                return f"row {row}: {rule}"
        return ""

    @torch.inference_mode()
    def _answer(self, requests: list[dict[str, Tensor]]) -> list[tuple[Tensor, ...]]:
        """The outputs of each request, in the order of `_OUTPUTS`."""
        longest = max(int(request["length"].max()) for request in requests)

        def joined(name: str) -> Tensor:
            parts = [request[name][:, :longest] for request in requests]
            padded = [functional.pad(part, (0, longest - part.shape[1])) for part in parts]
            return torch.cat(padded).to(self._device)

        length = torch.cat([request["length"][:, 0] for request in requests]).to(self._device)
        inside = torch.arange(longest, device=self._device) < length[:, None]
        share = joined("watched_share").nan_to_num(nan=-1.0).clamp(-1.0, 1.0)
        answer = self._model.answer(
            Interactions(
                title_BL=self._model.rows(joined("title_hash") * inside),
                action_BL=joined("action").long() * inside,
                start_ms_BL=joined("start_ms") * inside,
                watched_share_BL=share,
                device_BL=joined("device").long() * inside,
                length_B=length.long(),
            ),
            self._titles,
            _TOP,
        )
        cluster = torch.full((len(length), 1), _NO_CLUSTER, dtype=torch.int32, device=self._device)
        outputs = (
            *answer.intent_probs,
            answer.attention_BM,
            answer.intent_BD,
            cluster,
            answer.next_title_hash,
            answer.next_title_score,
            answer.user_BD,
        )
        rows = [len(request["length"]) for request in requests]
        parts = (torch.split(output.contiguous(), rows) for output in outputs)
        return list(zip(*parts, strict=True))


def _warm_up_request(rows: int) -> dict[str, Tensor]:
    shape = (rows, 64)
    return {
        "title_hash": torch.ones(shape, dtype=torch.int64),
        "action": torch.zeros(shape, dtype=torch.int32),
        "start_ms": torch.arange(shape[1]).expand(shape),
        "watched_share": torch.full(shape, -1.0),
        "device": torch.zeros(shape, dtype=torch.int32),
        "length": torch.full((rows, 1), shape[1], dtype=torch.int32),
    }
