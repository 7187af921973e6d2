"""What a figure is, and the one table of all measurements: import the modules that measure, then run FIGURES."""

import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import av

from clipwarden.models.faces import FaceDetector
from clipwarden.models.pipeline import local_manifest
from clipwarden.models.run import read_clip
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Manifest, ManifestDetector
from clipwarden.shared.local.sample import render_sample
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits

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
            return read_clip(fence, self.path, self.manifest, FaceDetector()).clip

    @cached_property
    def bare_decode_s(self) -> float:
        """CPU of decoding every picture and sample with PyAV, on one thread."""
        return cpu_s(self._decode)

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
    before = spent_s()
    work()
    return spent_s() - before


def spent_s() -> float:
    """CPU seconds of this process and of the children that ended in it."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
