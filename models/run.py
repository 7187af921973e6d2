"""From a file to a clip in one process, and `clipwarden analyze`: no services, the steps that the workers take."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from clipwarden.models.assess import Loaded, assess, load, pick_device
from clipwarden.models.brief import brief
from clipwarden.models.examined import Examined, Refused, table, write_files
from clipwarden.models.exhibits import Shown, exhibit
from clipwarden.models.faces import FaceDetector
from clipwarden.models.fusion.bundle import FusionBundle, bundle_path, read_bundle
from clipwarden.models.fusion.verdict import judge
from clipwarden.models.pipeline import local_manifest
from clipwarden.models.plan import HEARS, plan, shortest_sound_s
from clipwarden.models.views import prepare
from clipwarden.models.weights import bring
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.codes import SENTENCES, SkipCode
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    DetectorState,
    FrameNeed,
    Manifest,
    ManifestDetector,
    MediaProbe,
    OutcomeStatus,
    SamplingPlan,
)
from clipwarden.shared.errors import ConfigError, MediaError
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits

SMALLEST_FACE_PX = 40
SILENCE_DBFS = -60.0
_PROGRESS_AFTER_S = 2.0
_PAGE_WIDTH = 140


def read_clip(fence: Fence, path: Path, manifest: Manifest, faces: FaceDetector) -> "Read":
    """Probe a file, plan for the pipeline's ready detectors, and read it once. Raises MediaError, WorkerFault."""
    with fence.open(path) as media:
        sampling, skipped = plan(media.probe, manifest)
        clip = prepare(media, sampling, faces)
    skipped |= skips(clip, manifest, [b for b in Branch if b not in skipped])
    return Read(media.probe, sampling, clip, skipped)


@dataclass(frozen=True, slots=True)
class Read:
    """A file as the pipeline sees it, and why each branch that cannot judge it cannot."""

    probe: MediaProbe
    plan: SamplingPlan
    clip: Clip
    skipped: Mapping[Branch, SkipCode]


def part(clip: Clip, detectors: Sequence[ManifestDetector]) -> Clip:
    """The clip narrowed to what these detectors read: their views and the sounds of their rates."""
    keys = {need.key for d in detectors for need in d.needs.views}
    rates = {d.needs.audio.sample_rate_hz for d in detectors if d.needs.audio}
    return Clip(
        views={key: view for key, view in clip.views.items() if key in keys},
        sounds={rate: sound for rate, sound in clip.sounds.items() if rate in rates},
        duration_s=clip.duration_s,
    )


def skips(clip: Clip, manifest: Manifest, branches: Iterable[Branch]) -> dict[Branch, SkipCode]:
    """Which of the branches the decoded content rules out for all their ready detectors, and why."""
    found = {branch: _ruled_out(clip, branch, manifest.ready(branch)) for branch in branches}
    return {branch: code for branch, code in found.items() if code is not None}


@dataclass(frozen=True, slots=True)
class Laboratory:
    """Everything that one-process analysis needs, loaded once."""

    fence: Fence
    faces: FaceDetector
    manifest: Manifest
    bundle: FusionBundle
    detectors: Mapping[Branch, tuple[Loaded, ...]]


def open_laboratory(fence: Fence, only: frozenset[str] = frozenset(), device: str = "auto") -> Laboratory:
    """Load the installed detectors, or those named in `only`. Raises ConfigError for a name that cannot run."""
    manifest = restricted(local_manifest(only), only)
    where = pick_device(device)
    detectors = {branch: tuple(load(entry, where) for entry in manifest.ready(branch)) for branch in Branch}
    return Laboratory(fence, FaceDetector(), manifest, read_bundle(bundle_path(), manifest.fusion)[0], detectors)


def restricted(manifest: Manifest, only: frozenset[str]) -> Manifest:
    """The manifest with every ready detector but those in `only` disabled; unchanged if `only` is empty."""
    ready = {d.name for d in manifest.detectors if d.state is DetectorState.READY}
    if unusable := only - ready:
        raise ConfigError(
            f"no such ready detector: {', '.join(sorted(unusable))}; ready are {', '.join(sorted(ready))}"
        )
    return manifest.only(only or None)


def examine(path: Path, laboratory: Laboratory, show: bool = False) -> Examined:
    """Probe, decode, assess and fuse one file; `show` keeps what there is to look at. Raises MediaError."""
    read = read_clip(laboratory.fence, path, laboratory.manifest, laboratory.faces)
    return judged(path, read, laboratory, show)


def judged(path: Path, read: Read, laboratory: Laboratory, show: bool = False) -> Examined:
    """Assess and fuse a file that was read. Results are as stage rows hold them: workers would judge the same."""
    manifest = laboratory.manifest
    found = {branch: _found(branch, read, laboratory, show) for branch in Branch}
    results = tuple(one.result for one in found.values())
    files = {f"{branch}/{name}": content for branch, one in found.items() for name, content in one.files.items()}
    return Examined(path, read.probe, results, judge(laboratory.bundle, manifest, results), files)


def _found(branch: Branch, read: Read, laboratory: Laboratory, show: bool) -> Shown:
    if branch in read.skipped:
        return Shown(_skipped(branch, read.skipped[branch]), {})
    clip, detectors = part(read.clip, laboratory.manifest.ready(branch)), laboratory.detectors[branch]
    result = assess(branch, clip, detectors)
    return exhibit(clip, result, detectors) if show else Shown(brief(result), {})


def main(argv: Sequence[str]) -> int:
    """`clipwarden analyze`. Exit status 1 if any file was refused; the others are examined all the same."""
    parser = argparse.ArgumentParser(prog="clipwarden analyze", description="Examine files in this process.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="video, sound or picture")
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")
    parser.add_argument("--detectors", default="", metavar="A,B", help="run only these detectors")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a weights.toml of your own, its files beside it")
    parser.add_argument("--evidence", type=Path, metavar="DIR", help="write what there is to look at into folders here")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    chosen = parser.parse_args(argv)
    bring(chosen.weights)
    only = frozenset(name.strip() for name in chosen.detectors.split(",") if name.strip())
    outcomes: list[Examined | Refused] = []
    with Fence(MediaLimits()) as fence:
        laboratory = open_laboratory(fence, only, chosen.device)
        for outcome in _examined(chosen.files, laboratory, show=chosen.evidence is not None):
            outcomes.append(outcome)
            if chosen.evidence and isinstance(outcome, Examined):
                write_files(outcome, chosen.evidence)
            if chosen.json:
                print(json.dumps(outcome.as_json(), ensure_ascii=False), flush=True)
    if not chosen.json:
        _print_table([o for o in outcomes if isinstance(o, Examined)])
    refused = [o for o in outcomes if isinstance(o, Refused)]
    for one in refused:
        print(f"clipwarden: {one.path}: {one.error}", file=sys.stderr)
    return 1 if refused else 0


def _print_table(examined: Sequence[Examined]) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _PAGE_WIDTH
    if examined:
        console.print(table(examined))


def _examined(paths: Sequence[Path], laboratory: Laboratory, show: bool) -> Iterator[Examined | Refused]:
    """One outcome per file; a progress bar on a terminal if all of it takes longer than two seconds."""
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    task, timer = progress.add_task("examining", total=len(paths)), Timer(_PROGRESS_AFTER_S, progress.start)
    timer.start()
    try:
        for path in paths:
            yield _outcome(path, laboratory, show)
            progress.advance(task)
    finally:
        timer.cancel()
        timer.join()
        progress.stop()


def _outcome(path: Path, laboratory: Laboratory, show: bool) -> Examined | Refused:
    try:
        return examine(path, laboratory, show)
    except MediaError as error:
        return Refused(path, error)
    except OSError as error:
        return Refused(path, ConfigError(f"the file cannot be opened: {error.strerror}"))


def _skipped(branch: Branch, code: SkipCode) -> BranchResult:
    return BranchResult(branch=branch, status=OutcomeStatus.SKIPPED, code=code, message=SENTENCES[code])


def _ruled_out(clip: Clip, branch: Branch, ready: Sequence[ManifestDetector]) -> SkipCode | None:
    if branch in HEARS:
        waves = {rate: sound.wave for rate, sound in part(clip, ready).sounds.items()}
        if all(len(wave) == 0 or len(wave) < shortest_sound_s(ready) * rate for rate, wave in waves.items()):
            return SkipCode.AUDIO_TOO_SHORT
        if all(_level_dbfs(wave) < SILENCE_DBFS for wave in waves.values()):
            return SkipCode.SILENT_AUDIO
    unseen = {_unseen([(need, clip.view(need)) for need in d.needs.views]) for d in ready}
    order = (SkipCode.TOO_FEW_FRAMES, SkipCode.FACE_TOO_SMALL, SkipCode.NO_FACE)
    return None if None in unseen else next((code for code in order if code in unseen), None)


def _unseen(views: Sequence[tuple[FrameNeed, View]]) -> SkipCode | None:
    """Why a detector that needs all these views has nothing to look at; None if it may have, or looks at nothing."""
    for need, view in views:
        if len(view) == 0:
            return SkipCode.TOO_FEW_FRAMES if need.view == "frame" else SkipCode.NO_FACE
        sides = np.minimum(view.boxes[:, 2] - view.boxes[:, 0], view.boxes[:, 3] - view.boxes[:, 1])
        if need.view != "frame" and sides.max() < SMALLEST_FACE_PX:
            return SkipCode.FACE_TOO_SMALL
    return None


def _level_dbfs(wave: NDArray[np.int16]) -> float:
    power = float(np.mean(np.square(wave.astype(np.float64) / 32768)))
    return 10 * float(np.log10(max(power, 1e-20)))
