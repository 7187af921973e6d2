"""`make bench`: what the work costs, as a table and as `build/bench.json`.

Figures are ratios within one run wherever they can be, so that two machines may be compared. To add one, write a
function that yields Figures, mark it with `@figure`, and name its module here. Exit status 1 if a figure passes its
limit.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from clipwarden.models.assess import load
from clipwarden.models.run import part
from tests.bench import audio_bench, footprint, fusion_bench, gateway_bench, media_bench, runtime_bench, visual_bench
from tests.bench.clips import CLIPS, TWO_HOURS, made
from tests.bench.figures import FIGURES, Bench, Figure, cpu_s, figure

OUT = Path("build/bench.json")
MEASURED_ELSEWHERE = (media_bench, fusion_bench, audio_bench, runtime_bench, visual_bench, footprint, gateway_bench)
"""Imported for the figures that they register."""


@figure
def detector_cost(bench: Bench) -> Iterator[Figure]:
    for entry in bench.ready():
        loaded, mine = load(entry, "cpu"), part(bench.clip, [entry])
        loaded.detector.assess(mine)
        cost = cpu_s(lambda loaded=loaded, mine=mine: loaded.detector.assess(mine))
        yield Figure(f"{entry.name} CPU / bare decode", cost / bench.bare_decode_s, "ratio", limit=6)


@figure
def gateway_import(bench: Bench) -> Iterator[Figure]:
    ours, theirs = (import_cpu_s(module) for module in ("clipwarden.api.app", "fastapi"))
    yield Figure("gateway import / fastapi import", ours / theirs, "ratio", limit=5)


def import_cpu_s(module: str) -> float:
    """CPU of a fresh interpreter that imports a module, less that of one that imports nothing."""

    def python(code: str) -> float:
        return cpu_s(lambda: subprocess.run([sys.executable, "-c", code], check=True), repeats=5)

    return python(f"import {module}") - python("pass")


def main() -> int:
    made([*CLIPS, TWO_HOURS])
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clipwarden-bench-") as directory:
        bench = Bench(Path(directory))
        steps = track(FIGURES, "measuring", console=Console(stderr=True), transient=True)
        figures = [found for measure in steps for found in measure(bench)]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps([asdict(found) for found in figures], indent=1) + "\n", "utf-8")
    show(figures)
    Console().print(f"{OUT} written, {time.monotonic() - started:.0f} s")
    return 0 if all(found.passed for found in figures) else 1


def show(figures: Sequence[Figure]) -> None:
    table = Table("figure", "value", "unit", "better", "limit", "", box=None)
    for found in figures:
        digits = max(0, 2 - math.floor(math.log10(max(found.value, 1e-6))))
        limit = "" if found.limit is None else f"{found.limit:g}"
        table.add_row(
            found.name, f"{found.value:.{digits}f}", found.unit, found.better, limit, "" if found.passed else "PAST"
        )
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
