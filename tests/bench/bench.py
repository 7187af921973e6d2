"""`make bench`: what the work costs, as a table and as `build/bench.json`.

Figures are ratios within one run wherever they can be, so that two machines may be compared. To add one, write a
function that returns a Figure and mark it with `@figure`. Exit status 1 if a figure passes its limit.
"""

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import av
from rich.console import Console
from rich.progress import track
from rich.table import Table

from clipwarden.models.assess import assess, load
from clipwarden.models.faces import FaceDetector
from clipwarden.models.fusion.bundle import bundle_path, read_bundle
from clipwarden.models.fusion.verdict import judge
from clipwarden.models.pipeline import local_manifest
from clipwarden.models.plan import plan
from clipwarden.models.run import part, prepare
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import BranchResult, Manifest, ManifestDetector
from clipwarden.shared.local.sample import render_sample
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits

OUT = Path("build/bench.json")
REPEATS = 3


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number. `limit` is what it may not pass on the side that is not better; None: only watched."""

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"] = "lower"
    limit: float | None = None

    @property
    def passed(self) -> bool:
        if self.limit is None:
            return True
        return self.value <= self.limit if self.better == "lower" else self.value >= self.limit


Measure = Callable[["Bench"], Iterator[Figure]]
FIGURES: list[Measure] = []


def figure(measure: Measure) -> Measure:
    """Register a measurement; it may yield several figures."""
    FIGURES.append(measure)
    return measure


class Bench:
    """What the measurements share: one generated clip, decoded once, and the installed pipeline."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "sample.mp4"
        render_sample(self.path)

    @cached_property
    def manifest(self) -> Manifest:
        return local_manifest()

    @cached_property
    def clip(self) -> Clip:
        with Fence(MediaLimits()) as fence:
            return self.ingest(fence, FaceDetector())

    @cached_property
    def bare_decode_s(self) -> float:
        """CPU of decoding every picture and sample with PyAV, on one thread."""
        return cpu_s(self._decode)

    def ingest(self, fence: Fence, faces: FaceDetector) -> Clip:
        """Everything that ingest does to a file: probe, plan, decode, faces, views."""
        probe = fence.probe(self.path)
        return prepare(fence, self.path, probe, plan(probe, self.manifest)[0], faces)

    def ready(self) -> list[ManifestDetector]:
        return [entry for entry in self.manifest.detectors if entry.weights]

    def _decode(self) -> None:
        with av.open(self.path) as container:
            for stream in container.streams:
                stream.thread_count = 1
            for frame in container.decode():
                if isinstance(frame, av.VideoFrame):
                    frame.to_ndarray(format="rgb24")


def cpu_s(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Least CPU time of one call, with that of the child processes that ended in it."""
    return min(_cpu_once(work) for _ in range(repeats))


def _cpu_once(work: Callable[[], object]) -> float:
    before = _spent()
    work()
    return _spent() - before


def _spent() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@figure
def ingest_cost(bench: Bench) -> Iterator[Figure]:
    """The fence's own start is left out: a worker pays it once."""
    faces = FaceDetector()

    def clips(count: int) -> None:
        with Fence(MediaLimits()) as fence:
            fence.probe(bench.path)
            for _ in range(count):
                bench.ingest(fence, faces)

    clips(1)
    cost = (cpu_s(lambda: clips(REPEATS)) - cpu_s(lambda: clips(0))) / REPEATS
    yield Figure("ingest CPU / bare decode", cost / bench.bare_decode_s, "ratio", limit=4)


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


@figure
def fusion_cost(bench: Bench) -> Iterator[Figure]:
    """One verdict from the results of every ready detector."""
    bundle = read_bundle(bundle_path())[0]
    results = examined(bench)
    calls = 200

    def many() -> None:
        for _ in range(calls):
            judge(bundle, bench.manifest, results)

    yield Figure("fusion CPU", 1000 * cpu_s(many) / calls, "ms", limit=1)


def examined(bench: Bench) -> list[BranchResult]:
    by_branch = {entry.branch: bench.manifest.ready(entry.branch) for entry in bench.ready()}
    return [
        assess(branch, part(bench.clip, entries), [load(entry, "cpu") for entry in entries])
        for branch, entries in by_branch.items()
    ]


def main() -> int:
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
