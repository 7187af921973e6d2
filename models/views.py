"""Every detector's pictures, cut from the frames of one pass while they go by.

Each frame is looked at once, in display order: faces are followed through those frames that a face or mouth view wants,
and each view takes its picture at once, so that no full-size frame is kept. Who the most prominent person is shows at
the end; until then the faces of at most MOST_PEOPLE per frame are kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipwarden.models.faces import Face, FaceDetector, FaceTracker, Tracked, crop, mouth_crop
from clipwarden.models.kernels import resize
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.contracts import FrameNeed, MediaProbe, SamplingPlan, ViewPlan
from clipwarden.shared.media.decoded import Shot
from clipwarden.shared.media.fence import Media

MOST_PEOPLE: Final = 4

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Row:
    """One picture of a view, coordinates in pixels of the displayed frame."""

    image: Picture
    frame: int
    time_s: float
    box: NDArray[np.float32]
    person: int
    landmarks: NDArray[np.float32]
    quality: NDArray[np.float32]


def prepare(media: Media, plan: SamplingPlan, faces: FaceDetector) -> Clip:
    """Read the planned frames and sound once, find faces once, and make every planned view.

    Raises MediaError if the file cannot be read. Boxes are in pixels of the displayed frame, also where the frames were
    decoded smaller.
    """
    views = [_Gathered(view, media.probe) for view in plan.views]
    tracker, peopled = FaceTracker(faces), {i for v in views if v.of_people for i in v.wanted}
    for shot in media.read(plan):
        seen = tracker.see(shot.index, shot.time_s, shot.image) if shot.index in peopled else []
        for view in views:
            view.take(shot, seen[:MOST_PEOPLE])
    ranks = tracker.ranking()
    made = {view.need.key: view.made(ranks) for view in views}
    return Clip(views=made, sounds=media.sounds, duration_s=media.probe.duration_s)


class _Gathered:
    """The rows of one view, as they come."""

    def __init__(self, plan: ViewPlan, probe: MediaProbe) -> None:
        self.need, self.wanted = plan.need, frozenset(plan.frame_indices)
        self.of_people = plan.need.view != "frame"
        self._width = probe.width
        self._rows: list[_Row] = []

    def take(self, shot: Shot, seen: Sequence[Tracked]) -> None:
        """Cut what this view wants of a frame, if anything."""
        if shot.index in self.wanted:
            self._rows.extend(self._of_people(shot, seen) if self.of_people else [self._of_frame(shot)])

    def _of_frame(self, shot: Shot) -> _Row:
        height, width = shot.image.shape[:2]
        box = np.array([0, 0, width, height], np.float32) * self._scale(shot)
        image = resize(shot.image, self.need.size_px, self.need.kernel)
        return _Row(image, shot.index, shot.time_s, box, 0, np.zeros((5, 2), np.float32), np.zeros(3, np.float32))

    def _of_people(self, shot: Shot, seen: Sequence[Tracked]) -> Iterator[_Row]:
        scale = self._scale(shot)
        for one in seen:
            face, image = one.face, _cut(shot.image, one.face, self.need)
            quality = one.quality * np.array([scale, 1, 1], np.float32)
            box, landmarks = face.box * scale, face.landmarks * scale
            yield _Row(image, shot.index, shot.time_s, box, one.person, landmarks, quality)

    def _scale(self, shot: Shot) -> np.float32:
        return np.float32(self._width / shot.image.shape[1])

    def made(self, ranks: dict[int, int]) -> View:
        """The view of the most prominent people of each frame, rows by time, then by person."""
        who = ranks if self.of_people else {0: 0}
        ordered = sorted(self._rows, key=lambda row: (row.frame, who[row.person]))
        most = self.need.people if self.of_people else 1
        rows = [row for _, present in groupby(ordered, lambda row: row.frame) for row in islice(present, most)]
        side = self.need.size_px
        return View(
            images=np.stack([r.image for r in rows]) if rows else np.zeros((0, side, side, 3), np.uint8),
            frames=np.array([r.frame for r in rows], np.int64),
            times_s=np.array([r.time_s for r in rows], np.float64),
            boxes=np.array([r.box for r in rows], np.float32).reshape(-1, 4),
            people=np.array([who[r.person] for r in rows], np.int16),
            landmarks=np.array([r.landmarks for r in rows], np.float32).reshape(-1, 5, 2),
            quality=np.array([r.quality for r in rows], np.float32).reshape(-1, 3),
        )


def _cut(frame: Picture, face: Face, need: FrameNeed) -> Picture:
    if need.view == "face":
        return crop(frame, face.box, need.size_px, need.margin, need.kernel)
    return mouth_crop(frame, face, need.size_px, need.margin, need.kernel)
