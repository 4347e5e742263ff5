from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from fm_intent.model_config import CONFIGS, TOP, configuration
from stream.domain.heads import HEADS, INTENTS
from stream.domain.prediction import OUTPUTS
from tests.checkout import REPOSITORY

README = REPOSITORY / "model_repo" / "README.md"
OURS = configuration(Path("nowhere"))


def config(path: str) -> ModelConfig:
    return text_format.Parse(OURS[path], ModelConfig())


@pytest.mark.parametrize("path", CONFIGS)
def test_the_committed_configurations_are_what_the_heads_make_of_them(path: str) -> None:
    assert (README.parent / "fm_intent" / path).read_text() == CONFIGS[path], (
        "run `python -m fm_intent.model_config model_repo/fm_intent`"
    )


def test_outputs_are_those_that_the_worker_asks_for_in_its_order() -> None:
    assert tuple(output.name for output in config("config.pbtxt").output) == OUTPUTS


def test_outputs_are_as_wide_as_the_label_sets_that_all_versions_share() -> None:
    sizes = {output.name: output.dims[0] for output in config("config.pbtxt").output}
    assert {head.name: sizes[head.probs] for head in HEADS} == {
        head.name: -1 if head.own_labels else len(head.labels) for head in HEADS
    }
    assert sizes["intent_attention"] == len(INTENTS)
    assert sizes["next_title_hash"] == sizes["next_title_score"] == TOP


def test_the_gpu_configuration_differs_in_its_instances_alone() -> None:
    on_cpu, on_gpu = config("config.pbtxt"), config("configs/gpu.pbtxt")
    assert on_gpu.instance_group[0].kind != on_cpu.instance_group[0].kind
    on_gpu.ClearField("instance_group")
    on_cpu.ClearField("instance_group")
    assert on_gpu == on_cpu


def test_the_documented_tensors_are_the_configured_ones() -> None:
    documented = []
    for name, dtype in re.findall(r"^\| `([\w<>]+)` \| (\w+) \|", README.read_text(), re.M):
        names = [head.probs for head in HEADS] if name == "<head>_probs" else [name]
        documented += [(one, dtype) for one in names]
    c = config("config.pbtxt")
    types = c.DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"].enum_type
    configured = [
        (tensor.name, types.values_by_number[tensor.data_type].name.removeprefix("TYPE_"))
        for tensor in (*c.input, *c.output)
    ]
    assert documented == configured
