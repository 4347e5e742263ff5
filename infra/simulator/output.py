"""Run the simulator and write its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow.parquet as pq

from infra.simulator import catalogue, journal, members
from infra.simulator.simulation import Simulation
from infra.sources import contract

if TYPE_CHECKING:
    from pathlib import Path

    from infra.simulator.parameters import SimulatorParameters

TRUTH_FILE: Final = "truth.parquet"


def simulate(parameters: SimulatorParameters, directory: Path) -> None:
    """Write `catalogue.parquet`, `events.parquet` and, apart from them, `truth.parquet`.

    Args:
        parameters: What the members are like; equal parameters give equal files.
        directory: Where the files go; made when missing.
    """
    rng = np.random.default_rng(parameters.seed)
    titles = catalogue.load(parameters, rng)
    people = members.draw(parameters, titles, rng)
    browsing, sittings, sessions = Simulation(parameters, titles, people, rng).run()
    events = journal.events(parameters, titles, people, browsing, sittings)
    contract.write(directory, titles.table, events)
    pq.write_table(journal.truth(parameters, sessions), directory / TRUTH_FILE)
