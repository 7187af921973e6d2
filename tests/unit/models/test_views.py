from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from clipwarden.models.faces import FaceDetector
from clipwarden.models.views import prepare
from clipwarden.shared.clip import View
from clipwarden.shared.contracts import FrameNeed, SamplingPlan, ViewPlan
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from tests import media

Picture = NDArray[np.uint8]
FRAMES = tuple(range(0, 40, 4))
ONE = FrameNeed(view="face", count=10, size_px=64)
TWO = FrameNeed(view="face", count=10, size_px=64, people=2)
MOUTH = FrameNeed(view="mouth", count=10, size_px=48, margin=0.6)
WHOLE = FrameNeed(view="frame", count=10, size_px=32)


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(MediaLimits()) as opened:
        yield opened


@pytest.fixture(scope="module")
def faces() -> FaceDetector:
    return FaceDetector()


def views(path: Path, fence: Fence, faces: FaceDetector, *needs: FrameNeed) -> list[View]:
    plan = SamplingPlan(views=tuple(ViewPlan(need=need, frame_indices=FRAMES) for need in needs))
    with fence.open(path) as opened:
        clip = prepare(opened, plan, faces)
    return [clip.view(need) for need in needs]


def two_people(count: int) -> Iterator[Picture]:
    """A large face on the left, a smaller one on the right."""
    for large, small in zip(media.faces(count), media.faces(count, seed=1), strict=True):
        right = np.full((320, 320, 3), 90, np.uint8)
        right[60:260, 60:260] = cv2.resize(small, (200, 200), interpolation=cv2.INTER_AREA)
        yield np.hstack([large, right])


def montage(count: int) -> Iterator[Picture]:
    """First a face before one wall, then, after a cut, a smaller one before another."""
    for index, frame in enumerate(two_people(count)):
        yield frame[:, :320] if index < count * 3 // 4 else 255 - cv2.flip(255 - frame[:, 320:], 1) // 2


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return media.write_clip(tmp_path_factory.mktemp("views") / "pair.mp4", two_people(40))


def test_the_most_prominent_person_comes_first(pair: Path, fence: Fence, faces: FaceDetector) -> None:
    one, two = views(pair, fence, faces, ONE, TWO)
    assert one.frames.tolist() == list(FRAMES)
    assert set(one.people.tolist()) == {0}
    assert two.frames.tolist() == [i for i in FRAMES for _ in range(2)]
    assert two.people.tolist() == [0, 1] * len(FRAMES)
    centres = (two.boxes[:, 0] + two.boxes[:, 2]) / 2
    assert (centres[::2] < 320).all()
    assert (centres[1::2] > 320).all()
    np.testing.assert_array_equal(two.images[::2], one.images)


def test_every_scene_of_a_montage_is_looked_at(tmp_path: Path, fence: Fence, faces: FaceDetector) -> None:
    (seen,) = views(media.write_clip(tmp_path / "montage.mp4", montage(40)), fence, faces, ONE)
    assert seen.frames.tolist() == list(FRAMES)
    assert seen.people.tolist() == [0] * 8 + [1] * 2


def test_a_mouth_lies_between_its_corners(pair: Path, fence: Fence, faces: FaceDetector) -> None:
    mouths, whole = views(pair, fence, faces, MOUTH, WHOLE)
    assert mouths.images.shape == (10, 48, 48, 3)
    corners = mouths.landmarks[:, 3:]
    assert (corners[:, 0, 0] < corners[:, 1, 0]).all()
    inside = (mouths.boxes[:, None, :2] < corners) & (corners < mouths.boxes[:, None, 2:])
    assert inside.all()
    assert (mouths.quality[:, 0] > 80).all()
    assert whole.landmarks.shape == (10, 5, 2)
    assert not whole.landmarks.any()
