import numpy as np

from clipwarden.models.faces import Face
from clipwarden.models.follow import follow


def face(x: float, y: float, side: float) -> Face:
    return Face(np.array([x, y, x + side, y + side], np.float32), 1.0, np.zeros((5, 2), np.float32))


def test_the_largest_face_of_the_first_frame_is_followed() -> None:
    track = follow({0: [face(0, 0, 50), face(100, 0, 80)], 5: [face(2, 0, 120), face(110, 0, 60)]})
    assert track[0].tolist() == [100, 0, 180, 80]
    assert track[5].tolist() == [110, 0, 170, 60]


def test_a_face_that_moved_clear_of_its_box_is_still_followed() -> None:
    track = follow({0: [face(0, 0, 50)], 1: [face(70, 0, 50), face(300, 0, 90)]})
    assert track[1].tolist() == [70, 0, 120, 50]


def test_after_a_cut_the_largest_face_starts_anew() -> None:
    track = follow({0: [face(0, 0, 50)], 1: [face(400, 0, 40), face(600, 0, 90)]})
    assert track[1].tolist() == [600, 0, 690, 90]


def test_frames_without_a_face_are_absent() -> None:
    assert list(follow({0: [], 1: [face(0, 0, 50)], 2: [], 3: [face(5, 0, 50)]})) == [1, 3]
