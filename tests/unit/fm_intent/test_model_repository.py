from __future__ import annotations

import re
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from fm_intent.export import TOP
from fm_intent.triton import configuration
from stream.domain.labels import ACTIONS, GENRES, INTENTS, KINDS, RELEASE_AGES
from tests.checkout import REPOSITORY

README = REPOSITORY / "model_repo" / "README.md"
OURS = configuration(Path("nowhere"))


def config(path: str) -> ModelConfig:
    return text_format.Parse(OURS[path], ModelConfig())


def test_outputs_are_as_wide_as_the_label_sets() -> None:
    sizes = {output.name: output.dims[0] for output in config("config.pbtxt").output}
    assert sizes["action_probs"] == len(ACTIONS)
    assert sizes["genre_probs"] == len(GENRES)
    assert sizes["kind_probs"] == len(KINDS)
    assert sizes["release_age_probs"] == len(RELEASE_AGES)
    assert sizes["intent_attention"] == len(INTENTS)
    assert sizes["next_title_hash"] == sizes["next_title_score"] == TOP


def test_the_gpu_configuration_differs_in_its_instances_alone() -> None:
    on_cpu, on_gpu = config("config.pbtxt"), config("configs/gpu.pbtxt")
    assert on_gpu.instance_group[0].kind != on_cpu.instance_group[0].kind
    on_gpu.ClearField("instance_group")
    on_cpu.ClearField("instance_group")
    assert on_gpu == on_cpu


def test_the_documented_tensors_are_the_configured_ones() -> None:
    documented = re.findall(r"^\| `(\w+)` \| (\w+) \|", README.read_text(), re.M)
    c = config("config.pbtxt")
    types = c.DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"].enum_type
    configured = [
        (tensor.name, types.values_by_number[tensor.data_type].name.removeprefix("TYPE_"))
        for tensor in (*c.input, *c.output)
    ]
    assert documented == configured
