"""The video corpus: its clips, its folds, and each clip's face crops and sound, read as the detectors get them.

Layout of the data folder: `video/folds.csv`, `video/manifest.csv`, and the clips under `video/`.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.detector import DetectorSpec
from clipwarden.models.faces import FaceDetector
from clipwarden.models.plan import plan
from clipwarden.models.training.run_folder import read_table
from clipwarden.models.views import prepare
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import DetectorState, Manifest, ManifestDetector
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits

FOLDS: Final = 5
Copier = Callable[[Path, Path], Path]
"""Writes a copy of a clip into a folder; returns its path."""


@dataclass(frozen=True, slots=True)
class VideoClip:
    """`group` is the generator's family or the source; identity and matched group are empty if unknown."""

    path: str
    fake: bool
    group: str
    fold: int
    identity: str
    matched_group: str
    audio_label: str
    repository: str


def read_clips(data: Path) -> list[VideoClip]:
    """Clips in the order of video/folds.csv. Raises ConfigError if a table is not as expected."""
    columns = ("path", "label", "group", "fold", "identity", "matched_group", "audio_label")
    repositories = {
        r["path"]: r["source_repo"] for r in read_table(data / "video/manifest.csv", ("path", "source_repo"))
    }
    return [
        VideoClip(
            path=r["path"],
            fake=r["label"] == "fake",
            group=r["group"],
            fold=int(r["fold"]),
            identity=r["identity"],
            matched_group=r["matched_group"],
            audio_label=r["audio_label"],
            repository=repositories[r["path"]],
        )
        for r in read_table(data / "video/folds.csv", columns)
    ]


def training_clips(clips: Sequence[VideoClip], tested: Sequence[VideoClip]) -> list[VideoClip]:
    """Clips that share neither fold nor person nor footage with those tested."""
    folds = {c.fold for c in tested}
    people = {c.identity for c in tested if c.identity}
    footage = {c.matched_group for c in tested if c.matched_group}
    return [c for c in clips if c.fold not in folds and c.identity not in people and c.matched_group not in footage]


def clip_weights(clips: Sequence[VideoClip]) -> NDArray[np.float64]:
    """Weights of clips: 1/√n of their generator or source, each label in sum one half."""
    sizes = Counter((c.fake, c.group) for c in clips)
    weights = np.array([sizes[c.fake, c.group] ** -0.5 for c in clips])
    fake = np.array([c.fake for c in clips])
    for side in (fake, ~fake):
        weights[side] *= 0.5 / weights[side].sum()
    return weights


def prepared(
    data: Path, clips: Sequence[VideoClip], spec: DetectorSpec, threads: int, copied: Copier | None = None
) -> Iterator[tuple[VideoClip, Clip]]:
    """Read each clip through the fence for one detector, as an analysis would: planned frames, faces, sound.

    `copied` writes what is read instead of a clip into a folder. Clips that the detector cannot judge by their form (no
    sound) are left out.
    """
    faces, manifest = FaceDetector(threads), _manifest(spec)
    with Fence(MediaLimits()) as fence, TemporaryDirectory() as folder:
        for clip in clips:
            path = data / "video" / clip.path
            with fence.open(copied(path, Path(folder)) if copied else path) as media:
                what, skips = plan(media.probe, manifest)
                content = prepare(media, what, faces) if spec.branch not in skips else None
            if content is not None:
                yield clip, content


def _manifest(spec: DetectorSpec) -> Manifest:
    """A pipeline of this one detector, to plan with; its digests stand for weights that are yet to be made."""
    nothing = f"sha256:{'0' * 64}"
    entry = ManifestDetector(
        name=spec.name,
        version=spec.version,
        branch=spec.branch,
        state=DetectorState.READY,
        weights=nothing,
        needs=spec.needs,
    )
    return Manifest(detectors=(entry,), faces=FaceDetector.VERSION, fusion=nothing)
