import cv2
import numpy as np
import pytest
from skimage import data

from clipwarden.models.faces import FaceDetector
from clipwarden.models.faces.pyramid import Pyramid
from clipwarden.models.faces.quality import SHARPNESS_PX, frontality, quality

FRONTAL = np.array([[40, 50], [80, 50], [60, 70], [45, 90], [75, 90]], np.float32)


def turned(degrees: float) -> np.ndarray:
    """Landmarks of a head turned to the side: the nose stands out, by half the distance of the eyes."""
    depth = np.array([0, 0, 20, 0, 0])
    angle = np.deg2rad(degrees)
    x = (FRONTAL[:, 0] - 60) * np.cos(angle) + depth * np.sin(angle)
    return np.stack([x + 60, FRONTAL[:, 1]], axis=1).astype(np.float32)


def test_a_face_seen_from_the_front_is_wholly_frontal():
    assert frontality(FRONTAL) == pytest.approx(1)


def test_frontality_falls_to_nothing_as_the_head_turns():
    values = [frontality(turned(degrees)) for degrees in range(0, 91, 10)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0
    assert 0.2 < frontality(turned(25)) < 0.8
    assert frontality(turned(30)) == pytest.approx(frontality(turned(-30)), abs=1e-6)


def test_looking_down_is_less_frontal():
    down = FRONTAL + np.array([[0, 0], [0, 0], [0, 12], [0, 0], [0, 0]], np.float32)
    assert frontality(down) == pytest.approx(1 - 2 * 12 / 40)


def test_a_tilted_head_is_as_frontal_as_an_upright_one():
    angle = np.deg2rad(35)
    tilt = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert frontality((turned(20) @ tilt.T * 3 + 500).astype(np.float32)) == pytest.approx(
        frontality(turned(20)), abs=1e-4
    )


@pytest.mark.parametrize("landmarks", [np.zeros((5, 2)), np.tile([7.0, 9.0], (5, 1)), np.arange(10).reshape(5, 2)])
def test_landmarks_that_span_nothing_are_not_frontal(landmarks):
    assert frontality(landmarks.astype(np.float32)) == 0


def test_quality_is_size_sharpness_and_pose():
    picture = data.astronaut()
    (face,) = FaceDetector().detect([picture])[0]
    size, sharpness, pose = quality(Pyramid(picture), face)
    assert size == pytest.approx(min(face.box[2:] - face.box[:2]))
    x1, y1, x2, y2 = face.box.round().astype(int)
    grey = cv2.cvtColor(picture[y1:y2, x1:x2], cv2.COLOR_RGB2GRAY)
    scaled = cv2.resize(grey, (SHARPNESS_PX, SHARPNESS_PX), interpolation=cv2.INTER_AREA)
    assert sharpness == pytest.approx(cv2.Laplacian(scaled, cv2.CV_64F).var(), rel=0.15)
    assert 0.5 < pose <= 1


def test_blur_lowers_sharpness():
    picture = data.astronaut()
    (face,) = FaceDetector().detect([picture])[0]
    blurred = [cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in (1, 2, 4)]
    values = [quality(Pyramid(image), face)[1] for image in (picture, *blurred)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0] / 10
