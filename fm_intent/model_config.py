"""Writes the configurations of the model in Triton's repository, `model_repo/fm_intent`.

    python -m fm_intent.model_config model_repo/fm_intent

Its outputs are derived from the heads, so it is to be run when one comes or gets a label. A test
compares the files with what this module writes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from stream.domain.heads import HEADS

MODEL: Final = "fm_intent"

TOP: Final = 20
"""Next titles in an answer."""

_CPU_HEAD: Final = """\
# FM-Intent; the contract is in ../README.md. `intentstream train` writes the version folders.
"""

_GPU_HEAD: Final = """\
# FM-Intent on a GPU: config.pbtxt but for the instance group.
# Chosen by `tritonserver --model-config-name=gpu`.
"""

_OF_ANY_WIDTH: Final = -1

_OUTPUTS: Final = (
    *(
        (head.probs, "FP32", _OF_ANY_WIDTH if head.own_labels else len(head.labels))
        for head in HEADS
    ),
    ("intent_attention", "FP32", len(HEADS)),
    ("intent_embedding", "FP32", _OF_ANY_WIDTH),
    ("intent_cluster", "INT32", 1),
    ("next_title_hash", "INT64", TOP),
    ("next_title_score", "FP32", TOP),
    ("title_log_norm", "FP32", 1),
    ("user_embedding", "FP32", _OF_ANY_WIDTH),
)
"""Name, type and width of each."""

WIDTHS: Final = {name: width for name, _, width in _OUTPUTS if width != _OF_ANY_WIDTH}
"""Widths of the outputs that have the same width in every version."""

_CONFIG: Final = """\
name: "{model}"
backend: "python"
max_batch_size: 256

# Windows of different lengths may share a batch: the model pads them itself.
input [
  {{ name: "title_hash" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true }},
  {{ name: "action" data_type: TYPE_INT32 dims: [ -1 ] allow_ragged_batch: true }},
  {{ name: "start_ms" data_type: TYPE_INT64 dims: [ -1 ] allow_ragged_batch: true }},
  {{ name: "watched_share" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }},
  {{ name: "device" data_type: TYPE_INT32 dims: [ -1 ] allow_ragged_batch: true }},
  {{ name: "length" data_type: TYPE_INT32 dims: [ 1 ] }},
  {{ name: "profile_hash" data_type: TYPE_INT64 dims: [ 1 ] }},
  {{ name: "sequence_no" data_type: TYPE_INT64 dims: [ 1 ] }}
]

output [
{outputs}
]

version_policy {{ latest {{ num_versions: 2 }} }}

instance_group [ {{ kind: {kind} count: 1 }} ]

# A batch is what arrived while the one before was served; an idle instance answers at once. No queue
# policy: with any, this server's batcher now and then sleeps through a request, for half a second.
dynamic_batching {{ max_queue_delay_microseconds: 0 }}

parameters {{ key: "threads" value: {{ string_value: "1" }} }}

# Of each instance of each loaded version, for keys and values of past interactions: a share of the
# memory that is free when it is loaded, and at least so many MiB. A host's is taken as it is used.
parameters {{ key: "cache_share" value: {{ string_value: "0.25" }} }}
parameters {{ key: "cache_mib" value: {{ string_value: "256" }} }}

# Tensors stay where they are; without this the server copies every input to the CPU first.
parameters {{ key: "FORCE_CPU_ONLY_INPUT_TENSORS" value: {{ string_value: "no" }} }}
"""  # noqa: E501 - the comments are the file's


def _config(head: str, kind: str) -> str:
    outputs = ",\n".join(
        f'  {{ name: "{name}" data_type: TYPE_{dtype} dims: [ {width} ] }}'
        for name, dtype, width in _OUTPUTS
    )
    return head + _CONFIG.format(model=MODEL, outputs=outputs, kind=kind)


CONFIGS: Final = {
    "config.pbtxt": _config(_CPU_HEAD, "KIND_CPU"),
    "configs/gpu.pbtxt": _config(_GPU_HEAD, "KIND_GPU"),
}
"""What the files beside the versions hold, by their paths there."""


def configuration(folder: Path) -> dict[str, bytes]:
    """The configuration in a model's folder, by paths in it; where it has none, that of ours."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.pbtxt")}
    return found or {path: text.encode() for path, text in CONFIGS.items()}


if __name__ == "__main__":
    for path, text in CONFIGS.items():
        (Path(sys.argv[1]) / path).write_text(text)
