"""`clipwarden models verify [NAME...]`: computes the digest of every installed weights file anew."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Column, Table

from clipwarden.models.weights import WeightsEntry, file_digest, weights_folder, weights_table
from clipwarden.shared.errors import ConfigError

OK, CHANGED, GONE, NOT_INSTALLED = "ok", "changed", "gone", "not installed"
_STYLES = {OK: "green", CHANGED: "red", GONE: "red", NOT_INSTALLED: "yellow"}


@dataclass(frozen=True, slots=True)
class Checked:
    """One file against its manifest; the digest is the one it has now, empty if there is none."""

    detector: str
    file: str
    state: str
    digest: str


def main(argv: Sequence[str]) -> int:
    """Exit status 1 if a file is not what its manifest says, or one that was asked for is not installed."""
    parser = argparse.ArgumentParser("clipwarden models verify", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="detectors; by default all with weights")
    names = parser.parse_args(argv).names
    table = weights_table()
    if unknown := [name for name in names if name not in table]:
        raise ConfigError(f"there is no detector {unknown[0]!r}; there are {', '.join(table)}")
    found = [c for n in names or [n for n, e in table.items() if e.file] for c in checked(n, table[n])]
    shown = Table("detector", "file", "state", Column("digest", overflow="fold"))
    for row in found:
        shown.add_row(row.detector, row.file, f"[{_STYLES[row.state]}]{row.state}[/]", row.digest)
    Console().print(shown)
    return 0 if all(row.state == OK for row in found) else 1


def checked(name: str, entry: WeightsEntry) -> Iterator[Checked]:
    """Every file of an entry."""
    if entry.file is None or entry.sha256 is None:
        yield Checked(name, "", NOT_INSTALLED, "")
        return
    path = weights_folder() / entry.file
    for file, expected in {path.name: entry.sha256, **entry.beside}.items():
        beside = path.with_name(file)
        digest = file_digest(beside) if beside.is_file() else ""
        yield Checked(name, file, GONE if not digest else OK if digest == expected else CHANGED, digest)
