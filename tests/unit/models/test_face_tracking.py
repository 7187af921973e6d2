"""Who is who in clips of one and two people who move, cross, leave, and are cut between."""

import cv2
import numpy as np
import pytest
from skimage import data

from clipwarden.models.faces import FaceDetector, FaceTracker, tracking
from clipwarden.models.faces.pyramid import Pyramid

WIDTH, HEIGHT, STEP_S = 640, 360, 0.2
FACE = (162, 110)  # of the portrait below, its centre
NEAR_PX = 30


class Counting(FaceDetector):
    """Notes which pictures were searched as a whole, by the smallest face that was looked for."""

    def __init__(self):
        super().__init__()
        self.searched = []

    def find(self, pyramid, smallest_px=40, besides=()):
        self.searched.append(smallest_px)
        return super().find(pyramid, smallest_px, besides)


@pytest.fixture(scope="module")
def detector():
    return Counting()


@pytest.fixture
def tracker(detector):
    detector.searched.clear()
    return FaceTracker(detector)


def backdrop(colour=90, seed=0):
    """A wall with a soft pattern."""
    noise = np.random.default_rng(seed).normal(0, 30, (9, 16, 3)).astype(np.float32)
    return np.clip(colour + cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def show(scene, x, y, scale=0.8, mirrored=False):
    """Put the astronaut's head into a scene, the middle of the face at (x, y)."""
    portrait = data.astronaut()[:250, 60:330]
    shift = np.array([[scale, 0, x - scale * FACE[0]], [0, scale, y - scale * FACE[1]]])
    if mirrored:
        shift = np.array([[-scale, 0, x + scale * FACE[0]], [0, scale, y - scale * FACE[1]]])
    mask = np.zeros(portrait.shape[:2], np.uint8)
    cv2.ellipse(mask, FACE, (85, 108), 0, 0, 360, 255, -1)
    here = cv2.warpAffine(mask, shift, (WIDTH, HEIGHT)) > 127
    shown = scene.copy()
    shown[here] = cv2.warpAffine(portrait, shift, (WIDTH, HEIGHT))[here]
    return shown


def follow(tracker, frames, step_s=STEP_S, start=0):
    """What the tracker sees in each frame."""
    return [tracker.see(start + i, (start + i) * step_s, frame) for i, frame in enumerate(frames)]


def who(seen, x, y):
    """The person whose face is at a place, None if nobody's is."""
    for one in seen:
        if np.linalg.norm((one.face.box[:2] + one.face.box[2:]) / 2 - [x, y]) < NEAR_PX:
            return one.person
    return None


def test_one_who_walks_keeps_their_number(tracker):
    places = [(120 + 20 * i, 180 + 10 * np.sin(i)) for i in range(20)]
    seen = follow(tracker, [show(backdrop(), *place) for place in places])
    assert [who(frame, *place) for frame, place in zip(seen, places, strict=True)] == [0] * 20
    assert tracker.ranking() == {0: 0}


def test_one_who_comes_nearer_keeps_their_number(tracker):
    scales = np.geomspace(0.6, 1.6, 12)
    seen = follow(tracker, [show(backdrop(), 320, 180, scale) for scale in scales])
    assert [[one.person for one in frame] for frame in seen] == [[0]] * 12
    assert seen[-1][0].quality[0] > 2.2 * seen[0][0].quality[0]


def test_following_finds_the_box_and_landmarks_that_detection_finds(tracker, detector):
    scene = [show(backdrop(), 200 + 4 * i, 180) for i in range(4)]
    seen = follow(tracker, scene, step_s=0.04)
    (face,) = detector.detect([scene[-1]])[0]
    assert len(detector.searched) == 2  # of the tracker's first frame, and just now
    assert np.abs(seen[-1][0].face.box - face.box).max() <= 6
    assert np.abs(seen[-1][0].face.landmarks - face.landmarks).max() <= 4


def test_two_who_cross_keep_their_numbers(tracker):
    steps = np.linspace(0, 1, 25)
    left, right = [(130 + 380 * s, 150) for s in steps], [(510 - 380 * s, 220) for s in steps]
    frames = [show(show(backdrop(), *b, mirrored=True), *a) for a, b in zip(left, right, strict=True)]
    seen = follow(tracker, frames)
    a, b = who(seen[0], *left[0]), who(seen[0], *right[0])
    assert {a, b} == {0, 1}
    assert who(seen[-1], *left[-1]) == a
    assert who(seen[-1], *right[-1]) == b
    assert set(tracker.ranking()) == {0, 1}


def test_two_who_swap_sides_around_each_other_keep_their_numbers(tracker):
    turns = np.linspace(0, np.pi, 30)
    first = [(320 - 170 * np.cos(t), 180 - 75 * np.sin(t)) for t in turns]
    second = [(320 + 170 * np.cos(t), 180 + 75 * np.sin(t)) for t in turns]
    frames = [show(show(backdrop(), *a, 0.6), *b, 0.6, mirrored=True) for a, b in zip(first, second, strict=True)]
    seen = follow(tracker, frames)
    a, b = who(seen[0], *first[0]), who(seen[0], *second[0])
    assert {a, b} == {0, 1}
    for frame, one, other in zip(seen, first, second, strict=True):
        assert who(frame, *one) in {a, None}
        assert who(frame, *other) in {b, None}
    assert (who(seen[-1], *first[-1]), who(seen[-1], *second[-1])) == (a, b)


def test_two_who_pass_quickly_are_told_apart_by_where_they_were_going(tracker):
    right, left = [(145 + 70 * i, 150) for i in range(6)], [(495 - 70 * i, 200) for i in range(6)]
    frames = [show(show(backdrop(), *a, 0.6), *b, 0.6, mirrored=True) for a, b in zip(right, left, strict=True)]
    seen = follow(tracker, frames, step_s=0.5)
    assert len({who(frame, *place) for frame, place in zip(seen, right, strict=True)}) == 1
    assert len({who(frame, *place) for frame, place in zip(seen, left, strict=True)}) == 1
    assert set(tracker.ranking()) == {0, 1}


def test_one_who_leaves_and_another_who_comes_are_two(tracker):
    stays = (480, 200)
    empty = show(backdrop(), *stays)
    frames = [show(empty, 150, 150, 0.6)] * 4 + [empty] * 4 + [show(empty, 300, 120, 0.6, mirrored=True)] * 4
    seen = follow(tracker, frames)
    assert len({who(frame, *stays) for frame in seen}) == 1
    left, came = who(seen[0], 150, 150), who(seen[-1], 300, 120)
    assert None not in {left, came}
    assert left != came
    assert [len(frame) for frame in seen[4:8]] == [1] * 4


def test_one_who_looks_away_for_a_moment_is_the_same(tracker):
    hidden = backdrop()
    seen = follow(tracker, [show(hidden, 300, 180), hidden, hidden, show(hidden, 330, 180)])
    assert [[one.person for one in frame] for frame in seen] == [[0], [], [], [0]]


def test_who_takes_the_place_of_one_long_gone_is_new(tracker):
    gone = round(tracking.FORGET_S / STEP_S) + 1
    there = show(backdrop(), 300, 180)
    seen = follow(tracker, [there, *[backdrop()] * gone, there])
    assert seen[0][0].person != seen[-1][0].person


def test_who_comes_into_the_picture_is_found_within_the_schedule(tracker):
    scene = show(backdrop(), 150, 180)
    frames = [scene] * 3 + [show(scene, 450, 180, mirrored=True)] * 20
    seen = follow(tracker, frames, step_s=0.04)
    first = next(i for i, frame in enumerate(seen) if len(frame) == 2)
    assert (first - 1) * 0.04 < tracking.SEARCH_EVERY_S


def test_after_a_cut_everyone_is_new(tracker):
    before, after = backdrop(60, 1), backdrop(190, 2)
    seen = follow(tracker, [show(before, 300, 180)] * 3 + [show(after, 310, 180, mirrored=True)] * 3)
    assert [[one.person for one in frame] for frame in seen] == [[0]] * 3 + [[1]] * 3


def test_who_is_cut_back_to_has_the_old_number(tracker):
    here, there = show(backdrop(60, 1), 300, 180), show(backdrop(190, 2), 310, 180, mirrored=True)
    seen = follow(tracker, [here, here, there, there, here, there])
    assert [frame[0].person for frame in seen] == [0, 0, 1, 1, 0, 1]


def test_one_who_is_seen_once_in_nine_seconds_keeps_their_number(tracker):
    frames = [show(backdrop(), 300 + 25 * np.sin(i), 180) for i in range(8)]
    frames[4] = backdrop()
    seen = follow(tracker, frames, step_s=9.0)
    assert {one.person for frame in seen for one in frame} == {0}


def test_the_most_prominent_has_the_largest_face_for_the_longest_time(tracker):
    both = show(show(backdrop(), 150, 180, 0.6), 450, 180, 1.0, mirrored=True)
    frames = [show(backdrop(), 150, 180, 0.6)] * 2 + [both] * 10
    seen = follow(tracker, frames)
    small, large = who(seen[-1], 150, 180), who(seen[-1], 450, 180)
    assert tracker.ranking() == {large: 0, small: 1}
    assert [one.person for one in seen[-1]] == [large, small]


def test_a_long_stay_outweighs_a_large_face(tracker):
    scene = show(backdrop(), 150, 180, 0.8)
    seen = follow(tracker, [show(scene, 450, 180, 1.0, mirrored=True)] * 2 + [scene] * 10)
    assert tracker.ranking()[who(seen[0], 150, 180)] == 0


def test_between_searches_only_windows_are_looked_at(tracker, detector):
    follow(tracker, [show(backdrop(), 300 + i, 180) for i in range(30)], step_s=0.04)
    assert len(detector.searched) == 1 + int(29 * 0.04 / tracking.SEARCH_EVERY_S)


def test_a_person_who_is_gone_is_searched_for_once(tracker, detector):
    follow(tracker, [show(backdrop(), 300, 180)] * 2 + [backdrop()] * 8, step_s=0.04)
    assert len(detector.searched) == 2


def test_an_empty_scene_has_nobody(tracker):
    assert follow(tracker, [backdrop()] * 3) == [[]] * 3
    assert tracker.ranking() == {}


def test_frames_that_run_backwards_are_refused(tracker):
    tracker.see(5, 0.2, backdrop())
    with pytest.raises(ValueError, match="frame 5 comes after frame 5"):
        tracker.see(5, 0.4, backdrop())


def test_times_that_stand_still_do_no_harm(tracker):
    seen = follow(tracker, [show(backdrop(), 300, 180)] * 3, step_s=0.0)
    assert [[one.person for one in frame] for frame in seen] == [[0]] * 3


def test_a_crowd_is_bounded(tracker):
    scene = backdrop()
    for k in range(12):
        scene = show(scene, 60 + 100 * (k % 6), 100 + 170 * (k // 6), 0.45, mirrored=bool(k % 2))
    assert len(Counting().find(Pyramid(scene))) > tracking.MOST_PEOPLE
    assert len(tracker.see(0, 0.0, scene)) == tracking.MOST_PEOPLE


@pytest.mark.parametrize("shape", [(1, 1), (2, 3000), (3000, 2), (30, 30), (2160, 3840)])
def test_a_picture_of_any_shape_is_looked_at(tracker, shape):
    noise = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert follow(tracker, [noise] * 2) == [[], []]
