"""What a branch shows of what it found: a few pictures and everything over time, as files that its result names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import Final, TypeVar

import cv2
import numpy as np
import structlog
from numpy.typing import NDArray

from clipwarden.models.assess import Loaded, device_failed
from clipwarden.models.brief import ROW_BYTES, brief
from clipwarden.models.sights import WORST, Illustrator, Picture, shown, worst
from clipwarden.shared.clip import Clip, Excerpt
from clipwarden.shared.contracts import (
    BranchResult,
    DetectorOutcome,
    Evidence,
    Exhibit,
    ExhibitKind,
    Needs,
)
from clipwarden.shared.errors import WorkerFault
from clipwarden.shared.series import Series

MOST_PICTURES: Final = 8
"""Of one detector."""
SIDE_PX: Final = 256
FILES_BYTES: Final = 512 * 1024
"""Of all files of a branch."""
LONGEST_SERIES: Final = 1_000
SHEET: Final = 4
SHEET_PX: Final = SIDE_PX // SHEET
JPEG_QUALITY: Final = 90

T = TypeVar("T")
log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Shown:
    """A result as a row may hold it, and the files it names, by `DETECTOR/NAME`."""

    result: BranchResult
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class _File:
    detector: str
    exhibit: Exhibit
    content: bytes


def exhibit(
    clip: Clip, result: BranchResult, detectors: Sequence[Loaded], passing: tuple[type[Exception], ...] = ()
) -> Shown:
    """The files that show what the detectors found in the clip, and the result that names them.

    A file that does not fit, or cannot be made, is left out. Raises WorkerFault if the device failed, and lets through
    exceptions of the kinds in `passing`.
    """
    by_name = {loaded.entry.name: loaded for loaded in detectors}
    found = [(o, o.evidence, by_name[o.name]) for o in result.detectors if o.evidence and o.name in by_name]
    series = [_series(outcome, evidence) for outcome, evidence, _ in found]
    drawn = [_drawn(clip, loaded, evidence, passing) for _, evidence, loaded in found]
    in_turn = (one for turn in zip_longest(*drawn) for one in turn if one is not None)
    kept: list[_File] = []
    said, spent = brief(result), 0
    for file in (*series, *in_turn):
        named = _naming(said, [*kept, file])
        if spent + len(file.content) <= FILES_BYTES and len(named.as_row().encode()) <= ROW_BYTES:
            kept.append(file)
            spent += len(file.content)
    return Shown(_naming(said, kept), {f"{f.detector}/{f.exhibit.name}": f.content for f in kept})


def _naming(result: BranchResult, files: Sequence[_File]) -> BranchResult:
    named: dict[str, list[Exhibit]] = {}
    for file in files:
        named.setdefault(file.detector, []).append(file.exhibit)
    outcomes = (
        o.model_copy(update={"evidence": o.evidence.model_copy(update={"exhibits": tuple(named[o.name])})})
        if o.evidence and o.name in named
        else o
        for o in result.detectors
    )
    return result.model_copy(update={"detectors": tuple(outcomes)})


def _series(outcome: DetectorOutcome, evidence: Evidence) -> _File:
    everything = Series(
        detector=outcome.name,
        version=outcome.version,
        windows=_thinned(evidence.windows),
        gaps=_thinned(evidence.gaps),
        looks=_thinned(evidence.looks),
        curves=tuple(c.model_copy(update={"x": _thinned(c.x), "y": _thinned(c.y)}) for c in evidence.curves),
    )
    content = everything.model_dump_json().encode()
    return _File(outcome.name, Exhibit(kind=ExhibitKind.SERIES, name="series.json", size_bytes=len(content)), content)


def _thinned(values: Sequence[T]) -> tuple[T, ...]:
    return tuple(values[:: max(-(-len(values) // LONGEST_SERIES), 1)])


def _drawn(clip: Clip, loaded: Loaded, evidence: Evidence, passing: tuple[type[Exception], ...]) -> list[_File]:
    """A detector's pictures as files, the most telling first; none if they cannot be made."""
    name = loaded.entry.name
    try:
        pictures = list(islice(_pictures(clip, loaded, evidence), MOST_PICTURES))
        return [_file(name, picture, _before(pictures[:k], picture.kind)) for k, picture in enumerate(pictures)]
    except Exception as error:  # a finding must not be lost for want of a picture; the log keeps the traceback
        if isinstance(error, (WorkerFault, *passing)):
            raise
        if device_failed(error):
            raise WorkerFault(f"the device failed: {error}") from error
        log.exception("no pictures", detector=name)
        return []


def _pictures(clip: Clip, loaded: Loaded, evidence: Evidence) -> Iterator[Picture]:
    """What the detector was shown, what it has to show itself, and the sound, in turn."""
    own = loaded.detector.pictures(clip, evidence) if isinstance(loaded.detector, Illustrator) else ()
    needs = loaded.entry.needs
    for turn in zip_longest(_seen(clip, needs, evidence), own, _heard(clip, needs, evidence)):
        yield from (picture for picture in turn if picture is not None)


def _seen(clip: Clip, needs: Needs, evidence: Evidence) -> Iterator[Picture]:
    """The faces or mouths with the highest scores, or some of the frames on one sheet."""
    need = needs.frames
    if need is None or need.key not in clip.views or not len(clip.view(need)):
        return
    view = clip.view(need)
    if need.view == "frame":
        rows = np.linspace(0, len(view) - 1, min(len(view), SHEET * SHEET)).round().astype(int)
        first_s, last_s = (max(float(view.times_s[row]), 0.0) for row in (rows[0], rows[-1]))
        yield Picture(ExhibitKind.FRAMES, _sheet(view.images[rows]), first_s, last_s)
        return
    kind = ExhibitKind.FACE if need.view == "face" else ExhibitKind.MOUTH
    yield from (shown(kind, view.images[row], view, row, need) for row in worst(view, evidence.looks))


def _sheet(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Up to 16 pictures in rows of four, what is left over black."""
    small = [cv2.resize(image, (SHEET_PX, SHEET_PX), interpolation=cv2.INTER_AREA) for image in images]
    sheet = np.zeros((-(-len(small) // SHEET), SHEET, SHEET_PX, SHEET_PX, 3), np.uint8)
    sheet.reshape(-1, SHEET_PX, SHEET_PX, 3)[: len(small)] = small
    return sheet.transpose(0, 2, 1, 3, 4).reshape(-1, SIDE_PX, 3)


def _heard(clip: Clip, needs: Needs, evidence: Evidence) -> Iterator[Picture]:
    """Spectrograms of the stretches of sound that hold the windows with the highest scores."""
    need = needs.audio
    if need is None:
        return
    from clipwarden.models.audio.mel import SAMPLE_RATE_HZ, spectrogram

    if need.sample_rate_hz != SAMPLE_RATE_HZ:
        return
    excerpts = [(e, e.start_s + len(e.samples) / SAMPLE_RATE_HZ) for e in clip.excerpts(need)]
    chosen: dict[float, tuple[Excerpt, float]] = {}
    for window in sorted(evidence.windows, key=lambda w: -w.score):
        middle = (window.start_s + window.end_s) / 2
        chosen |= {e.start_s: (e, end) for e, end in excerpts if e.start_s <= middle <= end}
    for excerpt, end_s in islice(chosen.values(), WORST):
        yield Picture(ExhibitKind.SPECTROGRAM, spectrogram(excerpt.samples), max(excerpt.start_s, 0.0), end_s)


def _before(pictures: Sequence[Picture], kind: ExhibitKind) -> int:
    return sum(picture.kind is kind for picture in pictures)


def _file(detector: str, picture: Picture, number: int) -> _File:
    """Photographs as JPEG, measured things as PNG, which keeps their numbers."""
    photograph = picture.kind in {ExhibitKind.FACE, ExhibitKind.MOUTH, ExhibitKind.FRAMES}
    suffix, options = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]) if photograph else (".png", [])
    done, content = cv2.imencode(suffix, _bounded(picture.pixels), options)
    if not done:
        raise ValueError(f"a {picture.kind} could not be written as {suffix}")
    facts = Exhibit(
        kind=picture.kind,
        name=f"{picture.kind}-{number}{suffix}",
        size_bytes=len(content),
        time_s=_milliseconds(picture.time_s),
        end_s=_milliseconds(picture.end_s),
        box=picture.box,
    )
    return _File(detector, facts, content.tobytes())


def _bounded(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB or grey to what OpenCV writes, the longer side at most SIDE_PX."""
    longer = max(pixels.shape[:2])
    if longer > SIDE_PX:
        width, height = (max(round(n * SIDE_PX / longer), 1) for n in (pixels.shape[1], pixels.shape[0]))
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels)


def _milliseconds(time_s: float | None) -> float | None:
    return None if time_s is None else round(time_s, 3)
