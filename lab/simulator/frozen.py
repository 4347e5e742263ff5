"""The frozen simulations: their parameters and the digests of what they make.

`python -m lab.simulator.frozen` simulates them again and compares, which takes minutes;
`--write lab/simulator/frozen.json` freezes what the code makes now.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import typer

from lab.exceptions import NotFrozenError
from lab.simulator.output import generate
from lab.simulator.parameters import SimulatorParameters

_FILE: Final = files("lab.simulator").joinpath("frozen.json")

FROZEN: Final = {
    "simulator": SimulatorParameters(),
    "simulator-null": SimulatorParameters().null_twin(),
    "sample": SimulatorParameters(members=40, days=15),
}
"""The two sources, and a small simulation that is checked in a second."""


def describe(parameters: SimulatorParameters) -> dict[str, Any]:
    """Simulate; the `parameters`, and of each table its `rows` and `sha256`."""
    simulated = generate(parameters)
    made = {field.name: getattr(simulated, field.name) for field in dataclasses.fields(simulated)}
    return {
        "parameters": _plain(parameters),
        "rows": {name: len(table) for name, table in made.items()},
        "sha256": {name: digest(table) for name, table in made.items()},
    }


def frozen(name: str) -> dict[str, Any]:
    """What `describe` said of the simulation `name` when it was frozen."""
    known: dict[str, Any] = json.loads(_FILE.read_bytes())[name]
    return known


def check(name: str) -> None:
    """Simulate the frozen simulation `name` again.

    Raises:
        NotFrozenError: when its parameters or what they make have changed.
    """
    then, now = frozen(name), describe(FROZEN[name])
    differing = [
        f"{part}.{key}"
        for part, values in now.items()
        for key, value in values.items()
        if then[part].get(key) != value
    ]
    if differing:
        raise NotFrozenError(
            f"{name} is not what was frozen: {', '.join(differing)} differ; undo the change, or "
            "freeze anew (`python -m lab.simulator.frozen --write lab/simulator/frozen.json`) and "
            "measure every table on simulated data again"
        )


def digest(table: pa.Table) -> str:
    """SHA-256 of the table as CSV, so that it depends on the values alone and on no file format."""
    columns = {
        field.name: pc.binary_join(column, "|") if pa.types.is_list(field.type) else column
        for field, column in zip(table.schema, table.columns, strict=True)
    }
    sink = _Hash()
    csv.write_csv(pa.table(columns), pa.PythonFile(sink, mode="w"))
    return sink.sha256.hexdigest()


class _Hash(io.RawIOBase):
    """A file that keeps nothing but its hash."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return memoryview(data).nbytes


def _plain(parameters: SimulatorParameters) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(parameters), default=str))
    return plain


def _main(
    write: Annotated[
        Path | None, typer.Option(help="Freeze what the code makes now, in this file.")
    ] = None,
) -> None:
    if write is not None:
        made = {name: describe(parameters) for name, parameters in FROZEN.items()}
        write.write_text(json.dumps(made, indent=1) + "\n")
        return
    for name in FROZEN:
        check(name)
        typer.echo(f"{name}: as frozen")


if __name__ == "__main__":
    typer.run(_main)
