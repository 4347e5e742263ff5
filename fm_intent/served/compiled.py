"""The pass over new positions as a compiled program: `model_pass.cpp`, called by ctypes.

It says what `FMIntent.answer` says, from a network's weights as they are laid out here. Of one new
position it takes a fraction of what the recorded pass does, and it keeps one vector of half
precision a layer of a past position. It needs a processor with AVX2, FMA and F16C, and a library
that `build` made: an exported version carries one, so where it is served no compiler is needed.

Imports torch, numpy and the network alone: an exported model version carries a copy of this file.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .network import FIRST_ROW, LONGEST_LOG_GAP, Answer, FMIntent, Interactions, Layer, Stage
from .ways import Extended, layers_of, untouched_zeros

_SOURCE: Final = Path(__file__).with_name("model_pass.cpp")
_FEATURES: Final = ("avx2", "fma", "f16c")
_OPTIONS: Final = (
    *("-std=c++17", "-O3", *(f"-m{feature}" for feature in _FEATURES)),
    *("-fno-exceptions", "-fno-rtti", "-static-libstdc++", "-static-libgcc", "-fPIC", "-shared"),
)
_CPUINFO: Final = Path("/proc/cpuinfo")
_SEEN_BYTES: Final = 24
"""Of a position's inputs, and of what follows from them."""

_EIGHTS: Final = 8
_PANEL: Final = 16
_MOST_LABELS: Final = 256
"""Actions and devices take a byte each."""

_ROLES: Final = ("short", "intent", "item")
_TOLD: Final = ("nothing", "entry", "age")


class CompileError(Exception):
    """The pass can't be compiled, loaded or used here; the recorded one serves."""


def library_name() -> str:
    """The file name of what `build` makes of this source with these options."""
    made_of = _SOURCE.read_bytes() + " ".join(_OPTIONS).encode()
    return f"model_pass-{hashlib.sha256(made_of).hexdigest()[:16]}.so"


def build(folder: Path) -> Path:
    """Compile the pass into `folder`, unless it is there.

    Returns:
        The library.

    Raises:
        CompileError: when there is no g++, or it can't.
    """
    library = folder / library_name()
    if library.exists():
        return library
    compiler = shutil.which("g++")
    if compiler is None:
        raise CompileError("there is no g++ to compile the model's pass with; install it")
    folder.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=folder, suffix=".part")
    os.close(handle)
    command = [compiler, *_OPTIONS, "-o", part, str(_SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
        if done.returncode:
            raise CompileError(f"{compiler} can't compile {_SOURCE.name}: {done.stderr.strip()}")
        Path(part).chmod(0o755)
        Path(part).rename(library)
    finally:
        Path(part).unlink(missing_ok=True)
    return library


def built() -> Path:
    """The library beside this file, as a version has it, or the one in the user's cache.

    The latter is made when it isn't there.

    Raises:
        CompileError: when there is none and it can't be compiled.
        OSError: when the cache can't be written.
    """
    beside = _SOURCE.with_name(library_name())
    if beside.exists():
        return beside
    return build(Path.home() / ".cache" / "intentstream")


def unfit(model: FMIntent) -> str:
    """Why this machine, or the program, can't serve the network; nothing where they can."""
    try:
        flags = next(row for row in _CPUINFO.read_text().splitlines() if row.startswith("flags"))
    except (OSError, StopIteration):
        flags = ""
    missing = [feature for feature in _FEATURES if feature not in flags.split()]
    a, d = model.architecture, model.domain
    rules = {
        f"the processor lacks {', '.join(missing)}": bool(missing),
        "the network is on a card": model.title.weight.device.type != "cpu",
        f"a width isn't a multiple of {_EIGHTS}": bool(a.width % _EIGHTS or a.hidden % _EIGHTS),
        f"there are more than {_MOST_LABELS} actions or devices": (
            max(d.actions, d.devices) > _MOST_LABELS
        ),
    }
    if why := next((why for why, holds in rules.items() if holds), ""):
        return why
    try:
        _loaded()
    except (CompileError, OSError) as error:
        return str(error)
    return ""


@cache
def _loaded() -> ctypes.CDLL:
    library = ctypes.CDLL(str(built()))
    library.fm_answer.restype = ctypes.c_int64
    return library


class _Fields(ctypes.Structure):
    """Numbers as `int64_t`, tensors as pointers; keeps what it points to."""

    def __init__(self, **values: Any) -> None:
        super().__init__()
        self.kept: list[Any] = []
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensor = value.detach().cpu()
                tensor = tensor.float() if tensor.is_floating_point() else tensor.long()
                # A vector of the processor reads up to this much behind a row's end.
                value = functional.pad(tensor.flatten(), (0, _PANEL))
                self.kept.append(value)
                value = value.data_ptr()
            setattr(self, name, value)


def _pointers(names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_void_p) for name in names.split()]


def _integers(names: str) -> list[tuple[str, Any]]:
    return [(name, ctypes.c_int64) for name in names.split()]


class _Layer(_Fields):
    _fields_ = _pointers(
        "query query_bias out out_bias feed_in feed_in_bias feed_out feed_out_bias"
    )


class _Stage(_Fields):
    _fields_ = [
        *_integers("role layers"),
        *_pointers("title action age device gap numbers before norm norm_bias outlet outlet_bias"),
    ]


class _Intent(_Fields):
    _fields_ = [
        *_integers("classes predicted told logit share"),
        *_pointers("project project_bias"),
        ("title_share", ctypes.c_float),
    ]


class _Model(_Fields):
    _fields_ = [
        *_integers("width heads hidden stages intents logits shares top"),
        *_integers("titles vocabulary actions devices ages repeats hierarchical within_ms"),
        *_pointers("stage layer intent order time logit logit_bias attend"),
        *_pointers("recall recall_bias recall_key candidates title_shares"),
        *_pointers("release_day time_edges age_edges hash"),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        *_integers("rows length"),
        *_pointers("title action start share device size slots"),
        *_integers("slot_bytes window"),
        *_pointers("valid slot probs attention embedding score log_norm user hash reused"),
    ]


def _panels(weight_NK: Tensor) -> Tensor:
    """A layer's weight in panels of 16 of its outputs, the last filled with zeros."""
    padded = functional.pad(weight_NK.T, (0, -len(weight_NK) % _PANEL))
    return padded.view(len(padded), -1, _PANEL).transpose(0, 1).contiguous()


def _wide(bias_N: Tensor) -> Tensor:
    return functional.pad(bias_N, (0, -len(bias_N) % _PANEL))


def _layer(layer: Layer) -> _Layer:
    """The layer's matrices, with all that is linear multiplied into one another."""
    heads, width = layer.heads, layer.attention_out.weight.shape[0]
    each = width // heads
    gain, shift = layer.attention_norm.weight.double(), layer.attention_norm.bias.double()
    key_HED, value_HED = layer.key_value.weight.double().view(2, heads, each, width)
    query_HED, gate_HED = layer.query_gate.weight.double().view(2, heads, each, width)
    query_HE, gate_HE = layer.query_gate.bias.double().view(2, heads, each)
    out_HDE = layer.attention_out.weight.double().view(width, heads, each).transpose(0, 1)
    # A query meets what its keys are made of; that of all positions alike cancels in the softmax.
    meets_HDE = (key_HED * gain).mT / sqrt(each)
    query = (meets_HDE @ (query_HED * gain)).flatten(0, 1)
    query_bias = (meets_HDE @ (query_HED @ shift + query_HE)[:, :, None]).flatten()
    gate, gate_bias = (gate_HED * gain).flatten(0, 1), (gate_HED @ shift + gate_HE).flatten()
    out = torch.cat([*(out_HDE @ value_HED * gain)], dim=1)
    out_bias = (
        layer.attention_out.bias + (out_HDE @ (value_HED @ shift)[:, :, None]).sum(0).flatten()
    )
    gain, shift = layer.feed_norm.weight.double(), layer.feed_norm.bias.double()
    feed_in = layer.feed_in.weight.double()
    return _Layer(
        query=_panels(torch.cat([query, gate])),
        query_bias=_wide(torch.cat([query_bias, gate_bias])),
        out=_panels(out),
        out_bias=_wide(out_bias),
        feed_in=_panels(feed_in * gain),
        feed_in_bias=_wide(layer.feed_in.bias + feed_in @ shift),
        feed_out=_panels(layer.feed_out.weight),
        feed_out_bias=_wide(layer.feed_out.bias),
    )


def _stage(model: FMIntent, stage: Stage, role: str) -> _Stage:
    """A stage's inlet as sums of rows of tables, one row an input."""
    titles = model.frozen_titles()
    linear, norm = cast("tuple[nn.Linear, nn.LayerNorm]", tuple(stage.inlet)[:2])
    weight = linear.weight.double()
    embeddings = (model.action, model.release_age, model.device, model.gap)
    width, genres = titles.vector_TD.shape[1], titles.genres_TC.shape[1]
    kind = model.kind.weight.shape[1]
    action, age, device, gap = (one.weight.double() for one in embeddings)
    sizes = [width, action.shape[1], genres, kind, age.shape[1], device.shape[1], gap.shape[1], 3]
    parts = torch.split(weight, [*sizes, weight.shape[1] - sum(sizes)], dim=1)
    numbers = parts[7].T.clone()
    numbers[2] /= LONGEST_LOG_GAP
    title = (
        titles.vector_TD.double() * model.title_scale @ parts[0].T
        + titles.genres_TC.double() @ parts[2].T
        + model.kind.weight.double()[model.kind_T] @ parts[3].T
        + linear.bias
    )
    return _Stage(
        role=_ROLES.index(role),
        layers=len(stage.layers),
        title=title,
        action=action @ parts[1].T,
        age=age @ parts[4].T,
        device=device @ parts[5].T,
        gap=gap @ parts[6].T,
        numbers=numbers,
        before=_panels(parts[8]) if parts[8].shape[1] else None,
        norm=norm.weight,
        norm_bias=norm.bias,
        outlet=stage.outlet.weight,
        outlet_bias=stage.outlet.bias,
    )


def _intents(model: FMIntent) -> list[_Intent]:
    found, logit, share = [], 0, 0
    for place, (classes, told) in enumerate(
        zip(model.domain.classes, model.domain.told, strict=True)
    ):
        predicted = place in model.predicted
        project: dict[str, Any] = {}
        if predicted and model.intent is not None:
            linear = cast("nn.Linear", model.project[str(place)])
            project = {"project": _panels(linear.weight), "project_bias": _wide(linear.bias)}
        found.append(
            _Intent(
                classes=classes,
                predicted=predicted,
                told=_TOLD.index(told),
                logit=logit,
                share=share,
                title_share=model.title_share_M[place].item(),
                **project,
            )
        )
        logit += classes * predicted
        share += classes * (told == "entry")
    return found


def _recall(model: FMIntent, last: Layer) -> dict[str, Tensor]:
    """The query that meets what keys are made of, and what a key has without it."""
    if model.recall is None:
        return {}
    width = model.recall.query.weight.shape[0]
    gain, shift = last.attention_norm.weight.double(), last.attention_norm.bias.double()
    key = last.key_value.weight[:width].double() / sqrt(width)
    query, bias = model.recall.query.weight.double(), model.recall.query.bias.double()
    meets, constant = (key * gain).T, key @ shift
    return {
        "recall": _panels(meets @ query),
        "recall_bias": _wide(meets @ bias),
        "recall_key": torch.cat([query.T @ constant, (bias @ constant)[None]]),
    }


def _packed(model: FMIntent, top: int) -> _Model:
    a, d = model.architecture, model.domain
    stages = {
        role: stage
        for role, stage in zip(_ROLES, (model.short, model.intent, model.item), strict=True)
        if stage is not None
    }
    layers = [cast("Layer", layer) for stage in stages.values() for layer in stage.layers]
    intents = _intents(model)
    placed: list[Any] = [*stages.values(), *([model.recall] if model.recall else [])]
    # Without recall the rows behind the stages' stand for nothing.
    order, time = (
        functional.pad(torch.cat([getattr(one, name) for one in placed]), (0, 0, 0, 1))
        for name in ("order_bias_HK", "time_bias_HK")
    )
    heads = [cast("nn.Linear", model.heads[str(one)]) for one in model.predicted]
    logits: dict[str, Tensor] = {}
    if heads:
        logits = {
            "logit": _panels(torch.cat([one.weight for one in heads])),
            "logit_bias": _wide(torch.cat([one.bias for one in heads])),
        }
    if model.intent is not None:
        logits["attend"] = torch.cat([model.attend.weight[0], model.attend.bias])
    scored = slice(FIRST_ROW, FIRST_ROW + d.vocabulary)
    shares = model.shares_TC[scored]
    packed: dict[str, list[Any]] = {
        "stage": [_stage(model, stage, role) for role, stage in stages.items()],
        "layer": [_layer(layer) for layer in layers],
        "intent": intents,
    }
    arrays = {name: (type(rows[0]) * len(rows))(*rows) for name, rows in packed.items()}
    whole = _Model(
        width=a.width,
        heads=a.heads,
        hidden=a.hidden,
        stages=len(stages),
        intents=len(intents),
        logits=sum(one.classes for one in intents if one.predicted),
        shares=shares.shape[1],
        top=top,
        titles=len(model.hash_T),
        vocabulary=d.vocabulary,
        actions=d.actions,
        devices=d.devices,
        ages=len(d.release_age_edges_days) + 1,
        repeats=d.repeats,
        hierarchical=model.intent is not None,
        within_ms=a.short_term_s * 1000,
        **{name: ctypes.addressof(rows) for name, rows in arrays.items()},
        order=order,
        time=time,
        **logits,
        **_recall(model, layers[-1]),
        candidates=_panels(model.candidates(model.titles())),
        title_shares=_panels(shares.T),
        release_day=model.release_day_T,
        time_edges=model.time_edges,
        age_edges=model.age_edges,
        hash=model.hash_T,
    )
    whole.kept += [packed, arrays]
    return whole


class Compiled:
    """A network's pass by the compiled program.

    Args:
        model: in evaluation mode, on the CPU; its weights must not change.
        top: next titles of an answer.
        window: interactions of a slot.

    Raises:
        CompileError: when it can't serve the network on this machine; see `unfit`.
    """

    name: Final = "compiled"

    @torch.inference_mode()
    def __init__(self, model: FMIntent, top: int, window: int) -> None:
        if why := unfit(model):
            raise CompileError(why)
        self._library = _loaded()
        self.window = window
        self._packed = _packed(model, top)
        self._position_bytes = self.slot_bytes(model, 1)
        self._classes, self._top = model.domain.classes, top
        self._width = model.architecture.width
        self.open(0)

    @staticmethod
    def slot_bytes(model: FMIntent, window: int) -> int:
        """Bytes of a slot for `window` interactions."""
        # The first layer looks back at what follows from inputs alone.
        kept = (layers_of(model) - 1) * model.architecture.width * torch.half.itemsize
        return window * (_SEEN_BYTES + kept)

    def open(self, slots: int) -> None:
        """Take memory for so many slots, which is used as they are written."""
        self._slots = untouched_zeros((slots, self.window * self._position_bytes), torch.uint8)
        self._valid = np.zeros(slots, np.int64)

    def extended(self, slots: Sequence[int], x: Interactions) -> Extended:
        """The answers of rows in these slots, computing what can't be reused."""
        return self._answer(x, self._slots, self._valid, np.array(slots), self.window)

    def keep(self, slots: Sequence[int], x: Interactions) -> None:
        """Have the slots' positions count as good, of windows whose answers are sound."""
        self._valid[np.array(slots)] = x.length_B.numpy()

    def clear(self, slots: Sequence[int]) -> None:
        """Overwrite what is kept in these slots."""
        for one in slots:
            self._slots[one] = 0
            self._valid[one] = 0

    def whole(self, x: Interactions) -> Answer:
        """The answers, of which nothing is kept."""
        rows, length = x.title_BL.shape
        slots = torch.empty(rows, length * self._position_bytes, dtype=torch.uint8)
        valid = np.zeros(rows, np.int64)
        return self._answer(x, slots, valid, np.arange(rows), length).answer

    def _answer(
        self,
        x: Interactions,
        slots: Tensor,
        valid: NDArray[np.int64],
        slot_B: NDArray[np.int64],
        window: int,
    ) -> Extended:
        rows, length = x.title_BL.shape
        inputs = [column.contiguous() for column in x]
        answer = Answer(
            intent_probs=tuple(torch.empty(rows, classes) for classes in self._classes),
            attention_BM=torch.empty(rows, len(self._classes)),
            intent_BD=torch.empty(rows, self._width),
            next_title_hash=torch.empty(rows, self._top, dtype=torch.int64),
            next_title_score=torch.empty(rows, self._top),
            title_log_norm_B1=torch.empty(rows, 1),
            user_BD=torch.empty(rows, self._width),
        )
        probs = (ctypes.c_void_p * len(self._classes))(
            *(one.data_ptr() for one in answer.intent_probs)
        )
        reused_B = np.empty(rows, np.int64)
        batch = _Batch(
            rows=rows,
            length=length,
            **{
                name: column.data_ptr()
                for name, column in zip(
                    ("title", "action", "start", "share", "device", "size"), inputs, strict=True
                )
            },
            slots=slots.data_ptr(),
            slot_bytes=slots.shape[1],
            window=window,
            valid=valid.ctypes.data,
            slot=slot_B.ctypes.data,
            probs=ctypes.addressof(probs),
            attention=answer.attention_BM.data_ptr(),
            embedding=answer.intent_BD.data_ptr(),
            score=answer.next_title_score.data_ptr(),
            log_norm=answer.title_log_norm_B1.data_ptr(),
            user=answer.user_BD.data_ptr(),
            hash=answer.next_title_hash.data_ptr(),
            reused=reused_B.ctypes.data,
        )
        spent = self._library.fm_answer(ctypes.byref(self._packed), ctypes.byref(batch))
        if spent < 0:
            raise ValueError("a window's length, title, action or device is out of range")
        return Extended(
            answer=answer,
            hits=int(np.count_nonzero(reused_B)),
            positions=int(x.length_B.sum()) - int(reused_B.sum()),
            whole_s=spent / 1e9,
        )
