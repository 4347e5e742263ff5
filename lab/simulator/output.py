"""Run the simulator and write its files."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fm_intent.data import contract
from lab.exceptions import NobodyWatchesError
from lab.simulator import journal, members, simulator_catalogue
from lab.simulator.hidden_truth import TRUTH_FILE
from lab.simulator.simulation import Lives, Rows, Simulation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lab.simulator.parameters import SimulatorParameters
    from lab.simulator.simulator_catalogue import SimulatorCatalogue

_BLOCK: Final = 500
"""Members that are simulated together: their weights of all titles fill 35 MB."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A catalogue, the events of all members in the contract on disk, and the hidden truth."""

    catalogue: pa.Table
    events: pa.Table
    truth: pa.Table


def simulate(
    parameters: SimulatorParameters,
    directory: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write `catalogue.parquet`, `events.parquet` and, apart from them, `truth.parquet`.

    Args:
        parameters: What the members are like; equal parameters give equal files.
        directory: Where the files go; made when missing.
        progress: Called with the number of members done.

    Raises:
        NobodyWatchesError: When there are so few members and days that nothing happens.
    """
    made = generate(parameters, progress)
    contract.write(directory, made.catalogue, made.events)
    pq.write_table(made.truth, directory / TRUTH_FILE)


def generate(
    parameters: SimulatorParameters, progress: Callable[[int], None] = lambda _: None
) -> Simulated:
    """What `simulate` writes, in memory; it raises the same."""
    titles = load_catalogue(parameters)
    lives, countries = [], []
    done = 0
    for simulation, people in blocks(parameters, titles):
        lives.append(_numbered_from(done, simulation.run()))
        countries.append(people.country_M)
        done += len(people.country_M)
        progress(done)
    everyone = _joined(lives)
    if not (everyone.browsing and everyone.sittings):
        raise NobodyWatchesError(
            f"in {parameters.days} days none of {parameters.members} members watched anything; "
            "simulate more members or days"
        )
    return Simulated(
        titles.table,
        journal.events(parameters, titles, everyone, np.concatenate(countries)),
        journal.truth(titles, everyone.spells),
    )


def load_catalogue(parameters: SimulatorParameters) -> SimulatorCatalogue:
    """The catalogue that these parameters' members meet."""
    return simulator_catalogue.load(parameters, _rng(parameters, 0))


def blocks(
    parameters: SimulatorParameters, titles: SimulatorCatalogue
) -> Iterator[tuple[Simulation, members.Members]]:
    """The simulations to run, block of members by block, each with its own stream of chance."""
    for number, first in enumerate(range(0, parameters.members, _BLOCK)):
        rng = _rng(parameters, 1, number)
        count = min(_BLOCK, parameters.members - first)
        people = members.draw(parameters, titles, rng, count)
        yield Simulation(parameters, titles, people, rng), people


def _rng(parameters: SimulatorParameters, *of: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(parameters.seed, spawn_key=of))


def _numbered_from(first: int, lives: Lives) -> Lives:
    def shifted(rows: Rows) -> Rows:
        return rows | {"member": rows["member"] + first} if rows else rows

    return Lives(*(shifted(getattr(lives, part.name)) for part in fields(Lives)))


def _joined(lives: list[Lives]) -> Lives:
    def joined(blocks: list[Rows]) -> Rows:
        lived = [rows for rows in blocks if rows]
        names = lived[0] if lived else ()
        return {name: np.concatenate([rows[name] for rows in lived]) for name in names}

    return Lives(*(joined([getattr(one, part.name) for one in lives]) for part in fields(Lives)))
