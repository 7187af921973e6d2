"""From a file to a clip in one process, and `clipwarden analyze`: no services, the steps that the workers take."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from clipwarden.models.assess import Loaded, assess, load, pick_device
from clipwarden.models.examined import Examined, Refused, table
from clipwarden.models.faces import Face, FaceDetector, crop
from clipwarden.models.follow import Box, follow
from clipwarden.models.fusion.bundle import FusionBundle, bundle_path, read_bundle
from clipwarden.models.fusion.verdict import judge
from clipwarden.models.pipeline import local_manifest
from clipwarden.models.plan import HEARS, shortest_sound_s
from clipwarden.models.plan import plan as plan_for
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
    ViewPlan,
)
from clipwarden.shared.errors import ConfigError, MediaError
from clipwarden.shared.media.decoded import SAMPLE_RATE_HZ, Decoded
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits

SMALLEST_FACE_PX = 40
SILENCE_DBFS = -60.0
_DETECT_AT_ONCE = 8
_PROGRESS_AFTER_S = 2.0
_PAGE_WIDTH = 140

Picture = NDArray[np.uint8]


def prepare(fence: Fence, path: Path, probe: MediaProbe, plan: SamplingPlan, faces: FaceDetector) -> Clip:
    """Decode the planned frames and sound once, find faces once, and make every planned view.

    Raises MediaError if the file cannot be read. Boxes are in pixels of the displayed frame, also where the
    frames were decoded smaller.
    """
    decoded = fence.read(path, probe, plan)
    wanted = {i for view in plan.views if view.need.view == "face" for i in view.frame_indices}
    boxes = follow(_detect(decoded, wanted, faces))
    return Clip(
        views={view.need.key: _view(view, decoded, boxes, probe) for view in plan.views},
        wave=decoded.wave,
        sample_rate_hz=SAMPLE_RATE_HZ,
        duration_s=probe.duration_s,
    )


def part(clip: Clip, detectors: Sequence[ManifestDetector]) -> Clip:
    """The clip narrowed to what these detectors read: their views, and the sound up to the longest need."""
    keys = {d.needs.frames.key for d in detectors if d.needs.frames}
    seconds = max((d.needs.audio.seconds for d in detectors if d.needs.audio), default=0.0)
    return Clip(
        views={key: view for key, view in clip.views.items() if key in keys},
        wave=clip.wave[: round(seconds * clip.sample_rate_hz)],
        sample_rate_hz=clip.sample_rate_hz,
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
    manifest = restricted(local_manifest(), only)
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
    off = {"state": DetectorState.DISABLED, "weights": None}
    chosen = (d.model_copy(update=off) if only and d.name in ready - only else d for d in manifest.detectors)
    return manifest.model_copy(update={"detectors": tuple(chosen)})


def examine(path: Path, laboratory: Laboratory) -> Examined:
    """Probe, decode, assess and fuse one file. Raises MediaError if it cannot be analysed."""
    manifest = laboratory.manifest
    probe = laboratory.fence.probe(path)
    sampling, skipped = plan_for(probe, manifest)
    clip = prepare(laboratory.fence, path, probe, sampling, laboratory.faces)
    skipped |= skips(clip, manifest, [b for b in Branch if b not in skipped])
    results = tuple(
        _skipped(branch, skipped[branch])
        if branch in skipped
        else assess(branch, part(clip, manifest.ready(branch)), laboratory.detectors[branch])
        for branch in Branch
    )
    return Examined(path, probe, results, judge(laboratory.bundle, manifest, results))


def main(argv: Sequence[str]) -> int:
    """`clipwarden analyze`. Exit status 1 if any file was refused; the others are examined all the same."""
    parser = argparse.ArgumentParser(prog="clipwarden analyze", description="Examine files in this process.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="video, sound or picture")
    parser.add_argument("--json", action="store_true", help="print one JSON object per file")
    parser.add_argument("--detectors", default="", metavar="A,B", help="run only these detectors")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    chosen = parser.parse_args(argv)
    only = frozenset(name.strip() for name in chosen.detectors.split(",") if name.strip())
    outcomes: list[Examined | Refused] = []
    with Fence(MediaLimits()) as fence:
        for outcome in _examined(chosen.files, open_laboratory(fence, only, chosen.device)):
            outcomes.append(outcome)
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


def _examined(paths: Sequence[Path], laboratory: Laboratory) -> Iterator[Examined | Refused]:
    """One outcome per file; a progress bar on a terminal if all of it takes longer than two seconds."""
    console = Console(stderr=True)
    progress = Progress(console=console, transient=True, disable=not console.is_terminal)
    task, timer = progress.add_task("examining", total=len(paths)), Timer(_PROGRESS_AFTER_S, progress.start)
    timer.start()
    try:
        for path in paths:
            yield _outcome(path, laboratory)
            progress.advance(task)
    finally:
        timer.cancel()
        timer.join()
        progress.stop()


def _outcome(path: Path, laboratory: Laboratory) -> Examined | Refused:
    try:
        return examine(path, laboratory)
    except MediaError as error:
        return Refused(path, error)
    except OSError as error:
        return Refused(path, ConfigError(f"the file cannot be opened: {error.strerror}"))


def _skipped(branch: Branch, code: SkipCode) -> BranchResult:
    return BranchResult(branch=branch, status=OutcomeStatus.SKIPPED, code=code, message=SENTENCES[code])


def _detect(decoded: Decoded, wanted: set[int], faces: FaceDetector) -> dict[int, list[Face]]:
    rows = [row for row, index in enumerate(decoded.frame_indices.tolist()) if index in wanted]
    found: dict[int, list[Face]] = {}
    for start in range(0, len(rows), _DETECT_AT_ONCE):
        chunk = rows[start : start + _DETECT_AT_ONCE]
        for row, seen in zip(chunk, faces.detect([decoded.frames[r] for r in chunk]), strict=True):
            found[int(decoded.frame_indices[row])] = seen
    return found


def _view(plan: ViewPlan, decoded: Decoded, boxes: Mapping[int, Box], probe: MediaProbe) -> View:
    rows = list(_rows(plan, decoded, boxes, probe))
    size = plan.need.size_px
    return View(
        images=np.stack([image for image, _, _ in rows]) if rows else np.zeros((0, size, size, 3), np.uint8),
        times_s=np.array([time for _, time, _ in rows], np.float64),
        boxes=np.stack([box for _, _, box in rows]) if rows else np.zeros((0, 4), np.float32),
    )


def _rows(
    plan: ViewPlan, decoded: Decoded, boxes: Mapping[int, Box], probe: MediaProbe
) -> Iterator[tuple[Picture, float, Box]]:
    """Image, time and box of each planned frame that was decoded and, for a face view, has a face."""
    wanted = set(plan.frame_indices)
    for row, index in enumerate(decoded.frame_indices.tolist()):
        frame = decoded.frames[row]
        height, width = frame.shape[:2]
        box = boxes.get(index) if plan.need.view == "face" else np.array([0, 0, width, height], np.float32)
        if index in wanted and box is not None:
            yield (
                _picture(frame, box, plan.need),
                float(decoded.times_s[row]),
                box * np.float32(probe.width / width),
            )


def _picture(frame: Picture, box: Box, need: FrameNeed) -> Picture:
    if need.view == "face":
        return crop(frame, box, need.size_px, need.margin)
    kernel = cv2.INTER_AREA if max(frame.shape[:2]) > need.size_px else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(frame, (need.size_px, need.size_px), interpolation=kernel), np.uint8)


def _ruled_out(clip: Clip, branch: Branch, ready: Sequence[ManifestDetector]) -> SkipCode | None:
    if branch in HEARS:
        if len(clip.wave) == 0 or len(clip.wave) < shortest_sound_s(ready) * clip.sample_rate_hz:
            return SkipCode.AUDIO_TOO_SHORT
        if _level_dbfs(clip.wave) < SILENCE_DBFS:
            return SkipCode.SILENT_AUDIO
    needs = [d.needs.frames for d in ready if d.needs.frames]
    if not needs or len(needs) < len(ready):
        return None
    return _unseen([(need, clip.view(need)) for need in needs])


def _unseen(views: Sequence[tuple[FrameNeed, View]]) -> SkipCode | None:
    if all(need.view == "face" for need, _ in views):
        boxes = np.concatenate([view.boxes for _, view in views])
        if len(boxes) == 0:
            return SkipCode.NO_FACE
        sides = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        return SkipCode.FACE_TOO_SMALL if sides.max() < SMALLEST_FACE_PX else None
    return None if any(len(view) for _, view in views) else SkipCode.TOO_FEW_FRAMES


def _level_dbfs(wave: NDArray[np.int16]) -> float:
    power = float(np.mean(np.square(wave.astype(np.float64) / 32768)))
    return 10 * float(np.log10(max(power, 1e-20)))
