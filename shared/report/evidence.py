"""The evidence of a report: what detectors said over time, and pictures taken into it, as many as fit."""

import hashlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import Final

from markupsafe import Markup
from pydantic import ValidationError

from clipwarden.shared.contracts import Branch, BranchResult, DetectorOutcome, Exhibit, ExhibitKind
from clipwarden.shared.report.case import Case
from clipwarden.shared.series import Series

MOST_BYTES: Final = 3 * 1024 * 1024
"""Of all pictures together, before they are written as text, which makes them a third larger."""
MOST_PICTURES: Final = 48
TYPES: Final = {".jpg": "image/jpeg", ".png": "image/png"}

CAPTIONS: Final[dict[ExhibitKind, str]] = {
    ExhibitKind.FACE: "A face as it was judged",
    ExhibitKind.MOUTH: "A mouth as it was judged",
    ExhibitKind.FRAMES: "Pictures as they were judged, row by row in order of time",
    ExhibitKind.HEATMAP: "Where more of a fake was seen: black none, white most",
    ExhibitKind.RESIDUAL: "Noise of the face, brightened; even grey means none",
    ExhibitKind.SPECTROGRAM: "The sound: time to the right, low tones below, white the loudest",
}

Key = tuple[Branch, str]
"""A detector within its branch."""


@dataclass(frozen=True, slots=True)
class Plate:
    """A picture in the report. `score` is what the detector gave what it shows, where it judged just that;
    a `wide` one shows time from left to right.
    """

    name: str
    caption: str
    href: Markup
    size_bytes: int
    sha256: str
    time_s: float | None
    end_s: float | None
    score: float | None
    wide: bool


@dataclass(frozen=True, slots=True)
class Album:
    """Pictures by detector; `left_out` had no room, `gone` are no longer kept."""

    plates: Mapping[Key, tuple[Plate, ...]]
    left_out: int
    gone: int


def over_time(case: Case) -> dict[Key, Series]:
    """What detectors kept of their scores over time; those whose file is gone or was made otherwise are left out."""
    found: dict[Key, Series] = {}
    for result, outcome in judged(case):
        for exhibit in outcome.evidence.exhibits if outcome.evidence else ():
            content = case.fetch(result, outcome.name, exhibit.name) if exhibit.kind is ExhibitKind.SERIES else None
            if content is not None:
                try:
                    found[result.branch, outcome.name] = Series.model_validate_json(content)
                except ValidationError:
                    continue
    return found


def judged(case: Case) -> Iterator[tuple[BranchResult, DetectorOutcome]]:
    """Every detector that gave evidence, in the order of branches."""
    yield from ((r, o) for r in case.results for o in r.detectors if o.evidence)


def album(case: Case, series: Mapping[Key, Series]) -> Album:
    """The pictures of all detectors, the most telling of each first, until there is no more room."""
    plates: dict[Key, list[Plate]] = {}
    spent = shown = left_out = gone = 0
    for result, outcome, exhibit in _in_turn(case):
        if shown == MOST_PICTURES or spent + exhibit.size_bytes > MOST_BYTES:
            left_out += 1
            continue
        content = case.fetch(result, outcome.name, exhibit.name)
        if content is None or len(content) != exhibit.size_bytes:
            gone += 1
            continue
        key = result.branch, outcome.name
        plates.setdefault(key, []).append(_plate(exhibit, content, series.get(key)))
        spent, shown = spent + len(content), shown + 1
    return Album({key: tuple(of) for key, of in plates.items()}, left_out, gone)


def _in_turn(case: Case) -> Iterator[tuple[BranchResult, DetectorOutcome, Exhibit]]:
    """One picture of each detector, then the next of each."""
    of_each = [
        [(r, o, e) for e in o.evidence.exhibits if e.kind is not ExhibitKind.SERIES]
        for r, o in judged(case)
        if o.evidence
    ]
    yield from (one for turn in zip_longest(*of_each) for one in turn if one is not None)


def _plate(exhibit: Exhibit, content: bytes, series: Series | None) -> Plate:
    kind = TYPES[PurePosixPath(exhibit.name).suffix]
    return Plate(
        name=exhibit.name,
        caption=CAPTIONS[exhibit.kind],
        href=Markup("data:{};base64,{}").format(kind, b64encode(content).decode()),
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        time_s=exhibit.time_s,
        end_s=exhibit.end_s,
        score=_score(exhibit, series),
        wide=exhibit.kind is ExhibitKind.SPECTROGRAM,
    )


def _score(exhibit: Exhibit, series: Series | None) -> float | None:
    """The score of a face or a mouth: that of the look at its moment, the highest if several people were seen then."""
    if series is None or exhibit.time_s is None or exhibit.kind not in {ExhibitKind.FACE, ExhibitKind.MOUTH}:
        return None
    return max((look.score for look in series.looks if abs(look.time_s - exhibit.time_s) < 1e-3), default=None)
