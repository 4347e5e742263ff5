"""The `fm_intent` model of Triton's python backend; `model_repo/README.md` has its contract.

Export copies this package into a version's folder, where Triton looks for a file of this name.
Tensors pass by DLPack alone: under numpy 2 the server's own conversions give tensors of no size.
Requests are checked and joined by numpy on the host, where they arrive: for a row or two it takes a
fraction of what torch takes to begin an operation, and a GPU would be waited for at each.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final

import numpy as np
import torch
import triton_python_backend_utils as pb
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from .cache import Cache
from .memory import free_bytes
from .network import Interactions, load

_SEQUENCES: Final = ("title_hash", "action", "start_ms", "watched_share", "device")
_PER_ROW: Final = ("length", "profile_hash", "sequence_no")

_BEHIND_INTENTS: Final = (
    "intent_attention",
    "intent_embedding",
    "intent_cluster",
    "next_title_hash",
    "next_title_score",
    "title_log_norm",
    "user_embedding",
)
"""Outputs that follow the intents' probabilities, which are named by the version's intents."""

_TOP: Final = 20
_NO_CLUSTER: Final = -1
_LONGEST: Final = 256
_COUNT_EVERY_S: Final = 0.1
_LAST_MS: Final = 1 << 53

Batch = dict[str, NDArray[Any]]
"""Inputs by name: `[B, L]` sequences, `[B, 1]` the others."""


class TritonPythonModel:
    """One instance of a version."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version and answer once, so that no caller waits for it."""
        parameters = json.loads(args["model_config"])["parameters"]
        torch.set_num_threads(int(parameters["threads"]["string_value"]))
        on_gpu = args["model_instance_kind"] == "GPU"
        self._device = torch.device(f"cuda:{args['model_instance_device_id']}" if on_gpu else "cpu")
        folder = Path(args["model_repository"], args["model_version"])
        manifest = json.loads((folder / "manifest.json").read_text())
        window = manifest["window"]
        budget = _cache_bytes(parameters, self._device)
        self._model = load(folder / "model.pt", self._device)
        self._outputs = (
            *(f"{name}_probs" for name in self._model.domain.intents),
            *_BEHIND_INTENTS,
        )
        self._cache = Cache(self._model, _TOP, window, budget, manifest["served_by"])
        centres = folder / "centres.pt"
        self._centres_KD = (
            torch.load(centres, map_location=self._device, weights_only=True)
            if centres.exists()
            else None
        )
        for rows in (1, 64):
            # All positions are new, then one is, then nothing is to be kept.
            for sequence_no in (0, 0, -1):
                self._answer(_warm_up_batch(rows, window, sequence_no))
        self._metrics = _Metrics(args, self._cache)
        # What is imported by now is never garbage, and to look through it holds up every answer.
        gc.collect()
        gc.freeze()
        pb.Logger.log_info(
            f"{args['model_instance_name']} keeps {self._cache.slots:,} profiles of "
            f"{self._cache.profile_bytes / 1024:.1f} KiB, {budget >> 20:,} MiB at most, and is "
            f"served by the {self._cache.way.name} pass"
            + (f": {why}" if (why := self._cache.why_recorded) else "")
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer all requests of a batch in one pass; a malformed one gets an error of its own."""
        responses: list[Any] = [None] * len(requests)
        good: dict[int, Batch] = {}
        for place, request in enumerate(requests):
            batch = {one.name(): _array(one) for one in request.inputs()}
            if complaint := _misshapen(batch):
                responses[place] = _refusal(complaint)
            else:
                good[place] = batch
        joined = _joined(good.values())
        if broken := self._broken(good, joined):
            for place, complaint in broken.items():
                responses[place] = _refusal(complaint)
                del good[place]
            joined = _joined(good.values())
        if good:
            answer = self._answer(joined)
            parts: Iterable[Sequence[Tensor]] = [answer]
            if len(good) > 1:
                rows = [len(batch["length"]) for batch in good.values()]
                parts = zip(*(torch.split(output, rows) for output in answer), strict=True)
            for place, part in zip(good, parts, strict=True):
                responses[place] = pb.InferenceResponse(
                    output_tensors=[
                        pb.Tensor.from_dlpack(name, tensor)
                        for name, tensor in zip(self._outputs, part, strict=True)
                    ]
                )
        return responses

    def finalize(self) -> None:
        """Count what wasn't yet, and end."""
        self._metrics.close()

    def _broken(self, requests: dict[int, Batch], batch: Batch) -> dict[int, str]:
        """What is wrong with the numbers of requests, by place; of those alone that break a rule.

        Args:
            requests: of the right shapes.
            batch: the same, joined.
        """
        if not requests:
            return {}
        length, start = batch["length"], batch["start_ms"]
        rows = [len(one["length"]) for one in requests.values()]
        width_B1 = np.repeat([one["action"].shape[1] for one in requests.values()], rows)[:, None]
        inside = np.arange(start.shape[1]) < length
        rules = {
            "length must be from 1 to {width}": (length < 1) | (length > width_B1),
            "start_ms must not fall": inside[:, 1:] & (start[:, 1:] < start[:, :-1]),
        }
        domain = self._model.domain
        limits = {"action": domain.actions, "device": domain.devices, "start_ms": _LAST_MS}
        for name, limit in limits.items():
            outside = (batch[name] < 0) | (batch[name] >= limit)
            rules[f"{name} must be from 0 to {limit - 1}"] = inside & outside
        if not any(where.any() for where in rules.values()):
            return {}
        broken_BR = np.stack([where.any(1) for where in rules.values()], axis=1)
        complaints = {}
        for (place, one), broken in zip(
            requests.items(), np.split(broken_BR, np.cumsum(rows)[:-1]), strict=True
        ):
            if broken.any():
                rule, row = np.argwhere(broken.T)[0]
                text = list(rules)[rule].format(width=one["action"].shape[1])
                complaints[place] = f"row {row}: {text}"
        return complaints

    @torch.inference_mode()
    def _answer(self, batch: Batch) -> list[Tensor]:
        """The outputs of a batch, in the order of `_outputs`."""
        length = batch["length"]
        longest = int(length.max())
        inside = np.arange(longest) < length
        x = {name: batch[name][:, :longest] for name in _SEQUENCES}
        share = np.where(np.isfinite(x["watched_share"]), x["watched_share"], -1)
        kept = batch["sequence_no"] >= 0
        answer = self._cache.answer(
            self._tensor(batch["profile_hash"][:, 0]),
            Interactions(
                title_BL=self._model.rows(self._tensor(x["title_hash"] * inside)),
                action_BL=self._tensor(x["action"] * inside, np.int64),
                start_ms_BL=self._tensor(x["start_ms"] * inside),
                watched_share_BL=self._tensor(share.clip(-1, 1)),
                device_BL=self._tensor(x["device"] * inside, np.int64),
                length_B=self._tensor(length[:, 0], np.int64),
            ),
            None if kept.all() else self._tensor(kept[:, 0]),
        )
        if not kept.all():
            self._cache.forget(batch["profile_hash"][~kept].tolist())
        if self._centres_KD is None:
            cluster = torch.full_like(answer.next_title_hash[:, 0], _NO_CLUSTER)
        else:
            cluster = torch.cdist(answer.intent_BD, self._centres_KD).argmin(1)
        outputs = (
            *answer.intent_probs,
            answer.attention_BM,
            answer.intent_BD,
            cluster.int()[:, None],
            answer.next_title_hash,
            answer.next_title_score,
            answer.title_log_norm_B1,
            answer.user_BD,
        )
        return [output.contiguous() for output in outputs]

    def _tensor(self, array: NDArray[Any], dtype: type[np.generic] | None = None) -> Tensor:
        kept = array if dtype is None else array.astype(dtype)
        return torch.from_numpy(kept).to(self._device)


def _cache_bytes(parameters: Mapping[str, Mapping[str, str]], device: torch.device) -> int:
    """The share of the memory that is free now, and no less than the least that is asked for."""
    # A configuration from before there were shares has none.
    share = float(parameters.get("cache_share", {"string_value": "0"})["string_value"])
    least = int(parameters["cache_mib"]["string_value"]) << 20
    return max(round(share * free_bytes(device)), least)


class _Metrics:
    """What the cache does, among Triton's own metrics, by version and instance.

    A metric is kept by the server's process, and to count in it takes a message and its answer: on
    an idle machine longer than to answer a request. So a thread counts, now and then, what was done
    since the last time.
    """

    def __init__(self, args: dict[str, str], cache: Cache) -> None:
        self._cache = cache
        self._counted = cache.counts
        self._labels = {
            "model": args["model_name"],
            "version": args["model_version"],
            "instance": args["model_instance_name"],
        }
        self._families: list[Any] = []
        counters = {
            "hits": "Windows of which kept positions were reused",
            "misses": "Windows that were computed whole",
            "evictions": "Profiles whose place in the cache went to another",
            "positions": "Positions computed, padding included",
            "miss_seconds": "Time that windows of which nothing was reused took",
        }
        self._counters = {
            name: self._metric(f"{name}_total", text, pb.MetricFamily.COUNTER)
            for name, text in counters.items()
        }
        sizes = {
            "profile_bytes": ("Memory of one profile's place in the cache", cache.profile_bytes),
            "capacity_profiles": ("Profiles that the cache holds at most", cache.slots),
        }
        self._gauges = [
            self._metric(name, text, pb.MetricFamily.GAUGE) for name, (text, _) in sizes.items()
        ]
        for gauge, (_, value) in zip(self._gauges, sizes.values(), strict=True):
            gauge.set(value)
        self._closed = Event()
        self._thread = Thread(target=self._now_and_then, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Count what wasn't yet; nothing is counted afterwards."""
        self._closed.set()
        self._thread.join()

    def _now_and_then(self) -> None:
        while not self._closed.wait(_COUNT_EVERY_S):
            self._count()
        self._count()

    def _count(self) -> None:
        counts = self._cache.counts
        done, before = asdict(counts), asdict(self._counted)
        for name, counter in self._counters.items():
            if done[name] > before[name]:
                counter.increment(done[name] - before[name])
        self._counted = counts

    def _metric(self, name: str, text: str, kind: Any) -> Any:
        family = pb.MetricFamily(f"fm_intent_cache_{name}", text, kind)
        self._families.append(family)  # a metric ends with its family
        return family.Metric(labels=self._labels)


def _array(tensor: Any) -> NDArray[Any]:
    array: NDArray[Any] = from_dlpack(tensor.to_dlpack()).cpu().numpy()
    return array


def _misshapen(batch: Batch) -> str:
    """What is wrong with a request's shapes, or nothing."""
    shape = batch["title_hash"].shape
    if len(shape) != 2 or not shape[0] or not 1 <= shape[1] <= _LONGEST:
        return f"title_hash has shape {list(shape)}; send [B, L], B from 1, L from 1 to {_LONGEST}"
    for name in _SEQUENCES:
        if batch[name].shape != shape:
            return f"{name} has shape {list(batch[name].shape)}, title_hash {list(shape)}"
    for name in _PER_ROW:
        if batch[name].shape != (shape[0], 1):
            return f"{name} has shape {list(batch[name].shape)}; send [{shape[0]}, 1]"
    return ""


def _refusal(complaint: str) -> Any:
    error = pb.TritonError(complaint, pb.TritonError.INVALID_ARG)
    return pb.InferenceResponse(error=error)


def _joined(requests: Collection[Batch]) -> Batch:
    """The rows of all requests, right-padded to the longest."""
    if len(requests) < 2:
        return next(iter(requests), {})
    rows = sum(len(one["length"]) for one in requests)
    longest = max(one["action"].shape[1] for one in requests)
    first = next(iter(requests))
    joined = {
        name: np.zeros((rows, longest if name in _SEQUENCES else 1), first[name].dtype)
        for name in (*_SEQUENCES, *_PER_ROW)
    }
    start = 0
    for one in requests:
        end = start + len(one["length"])
        for name, column in joined.items():
            column[start:end, : one[name].shape[1]] = one[name]
        start = end
    return joined


def _warm_up_batch(rows: int, length: int, sequence_no: int) -> Batch:
    shape = (rows, length)
    return {
        "title_hash": np.ones(shape, np.int64),
        "action": np.zeros(shape, np.int32),
        "start_ms": np.broadcast_to(np.arange(length), shape),
        "watched_share": np.full(shape, -1, np.float32),
        "device": np.zeros(shape, np.int32),
        "length": np.full((rows, 1), length, np.int32),
        "profile_hash": np.arange(rows)[:, None],
        "sequence_no": np.full((rows, 1), sequence_no),
    }
