"""The simulated sources, as `fm_intent.data.sources` finds them by their entry point."""

from __future__ import annotations

import json
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from fm_intent.data.sources.preparation import Source
from lab import simulator
from lab.simulator.frozen import frozen
from lab.simulator.hidden_truth import intents_in_force
from lab.simulator.parts import PARTS
from stream.steps import progress

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


def _lay(is_null_twin: bool, _home: Path, directory: Path) -> None:
    parameters = simulator.SimulatorParameters()
    if is_null_twin:
        parameters = parameters.null_twin()
    with progress("members", parameters.members) as advance:
        simulator.simulate(parameters, directory, advance)


def _hidden(
    directory: Path, profile_id: NDArray[np.str_], start_ms: NDArray[np.int64]
) -> dict[str, Any]:
    known = intents_in_force(directory, pa.array(profile_id), start_ms)
    return {name: known[name] for name in PARTS}


def _source(name: str, *, is_null_twin: bool) -> Source:
    described = files("lab.simulator").joinpath("described", name, "source.yaml")
    # What the code makes is checked against the frozen digests, so these say what made the files.
    made_by = json.dumps(frozen(name), sort_keys=True)
    return Source(described.read_text(), partial(_lay, is_null_twin), made_by, hidden=_hidden)


SOURCES: Final = {
    "simulator": _source("simulator", is_null_twin=False),
    "simulator-null": _source("simulator-null", is_null_twin=True),
}
