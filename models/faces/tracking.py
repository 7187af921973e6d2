"""Who is who from frame to frame: faces found now and then, followed in between, each person under one number.

Following costs a few windows of the cascade's last two stages about where a face should be; the whole picture is
searched for others on a schedule, when a face is lost, and after a cut. A scene that is cut back to has its people.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clipwarden.models.faces.boxes import Floats, area, centre, side
from clipwarden.models.faces.cascade import CELL_PX, MIN_FACE_PX, Face, FaceDetector
from clipwarden.models.faces.pyramid import Picture, Pyramid
from clipwarden.models.faces.quality import quality
from clipwarden.models.faces.scene import Scenes

SEARCH_EVERY_S: Final = 0.5
THOROUGH_EVERY: Final = 8  # searches; the others look for faces that are not small for the picture
SEARCH_SIDE_PX: Final = 256  # longer side of the first pyramid level of those others
FORGET_S: Final = 2.0  # without a face, for who was missed in two frames or more
MOST_PEOPLE: Final = 8  # in one frame, largest first

_REACH, _REACH_PER_S, _MOST_REACH = 0.4, 1.6, 2.0  # how far a face may be from where it is expected, in sides
_REACH_OF_LOST: Final = 0.8
_SETTLING_S: Final = 0.3  # over which a speed is averaged
_PLACES: Final = np.array([(0, 0, 1), (0.3, 0, 1.1), (-0.3, 0, 1.1), (0, 0.3, 1.1), (0, -0.3, 1.1)], np.float32)
"""Where to look for a face: x and y from where it is expected and the side of the window, in sides."""
_ONE_PLACE: Final = 0.4  # overlap from which windows are about the same face


@dataclass(frozen=True, slots=True)
class Tracked:
    """One person in one frame. quality: (3,) as in `quality.quality`."""

    person: int
    face: Face
    quality: Floats


@dataclass(slots=True)
class _Person:
    """velocity: (2,) pixels per second; missed: in how many frames since they were seen."""

    number: int
    face: Face
    seen_s: float
    velocity: Floats
    missed: int = 0

    def expected(self, time_s: float) -> Floats:
        """Box (4,) where they should be by now; a speed is trusted for one second and one side."""
        most = side(self.face.box)
        moved = np.clip(self.velocity * np.clip(time_s - self.seen_s, 0, 1), -most, most)
        return np.asarray(self.face.box + np.tile(moved, 2), np.float32)

    def saw(self, face: Face, time_s: float) -> None:
        """Note where they are now."""
        passed = time_s - self.seen_s
        if passed > 0:
            speed = (centre(face.box) - centre(self.face.box)) / passed
            self.velocity = np.asarray(
                self.velocity + (speed - self.velocity) * (passed / (passed + _SETTLING_S)), np.float32
            )
        self.face, self.seen_s, self.missed = face, time_s, 0


class FaceTracker:
    """Follows the people of one clip. Fed with frames in display order, not necessarily all of them."""

    def __init__(self, detector: FaceDetector) -> None:
        self._detector = detector
        self._scenes = Scenes()
        self._scene = 0
        self._people: list[_Person] = []
        self._elsewhere: dict[int, list[_Person]] = {}
        self._met = 0
        self._prominence: dict[int, float] = {}
        self._last_index, self._last_s = -1, 0.0
        self._searches, self._searched_s = 0, 0.0

    def see(self, index: int, time_s: float, image: Picture) -> list[Tracked]:
        """Who is in this RGB (H, W, 3) frame, most prominent so far first; the image is not kept."""
        if index <= self._last_index:
            raise ValueError(f"frame {index} comes after frame {self._last_index}")
        pyramid = Pyramid(image)
        self._turn_to(self._scenes.look(pyramid))
        self._people = [p for p in self._people if p.missed < 2 or time_s - p.seen_s <= FORGET_S]
        seen = self._meet(self._faces(pyramid, time_s), time_s)
        lasted = max(time_s - self._last_s, 0.0) if self._last_index >= 0 else SEARCH_EVERY_S
        for person in seen:
            self._prominence[person.number] = self._prominence.get(person.number, 0.0) + area(person.face.box) * lasted
        self._last_index, self._last_s = index, time_s
        seen.sort(key=lambda person: -self._prominence[person.number])
        return [Tracked(person.number, person.face, quality(pyramid, person.face)) for person in seen]

    def ranking(self) -> dict[int, int]:
        """Everyone seen so far by prominence, 0 = most: the area of their face times the time they were there."""
        order = sorted(self._prominence, key=lambda number: -self._prominence[number])
        return {number: rank for rank, number in enumerate(order)}

    def _turn_to(self, scene: int) -> None:
        """After a cut, the people of the scene now shown, none if it is new, and a search for all of them."""
        if scene != self._scene:
            self._elsewhere[self._scene], self._people = self._people, self._elsewhere.pop(scene, [])
            self._scene, self._searches = scene, 0
            for person in self._people:
                person.velocity = np.zeros(2, np.float32)

    def _faces(self, pyramid: Pyramid, time_s: float) -> list[Face]:
        """The faces near where people are expected and, where that is called for, all others."""
        places = [_places(person.expected(time_s)) for person in self._people]
        found = self._detector.confirm(pyramid, np.concatenate([np.empty((0, 5), np.float32), *places]), _ONE_PLACE)
        met = _assigned(self._people, found, time_s)
        missed = [person for row, person in enumerate(self._people) if row not in met and not person.missed]
        due = self._searches == 0 or abs(time_s - self._searched_s) >= SEARCH_EVERY_S
        if due or missed:
            smallest = min([self._smallest(pyramid, due), *(0.7 * side(person.face.box) for person in missed)])
            found += self._detector.find(pyramid, max(smallest, MIN_FACE_PX), besides=found)
        if due:
            self._searches, self._searched_s = self._searches + 1, time_s
        return found

    def _smallest(self, pyramid: Pyramid, due: bool) -> float:
        thorough = due and self._searches % THOROUGH_EVERY == 0
        return MIN_FACE_PX if thorough else max(pyramid.height, pyramid.width) * CELL_PX / SEARCH_SIDE_PX

    def _meet(self, faces: Sequence[Face], time_s: float) -> list[_Person]:
        """Give each face to a person, known or new."""
        met = _assigned(self._people, faces, time_s)
        for row, person in enumerate(self._people):
            person.missed += 1
            if row in met:
                person.saw(faces[met[row]], time_s)
        for face in (face for row, face in enumerate(faces) if row not in met.values()):
            self._people.append(_Person(self._met, face, time_s, np.zeros(2, np.float32)))
            self._met += 1
        self._people = sorted(self._people, key=lambda person: -area(person.face.box))[:MOST_PEOPLE]
        return [person for person in self._people if not person.missed]


def _places(box: Floats) -> Floats:
    """Windows (5, 5) about the square of a box, their score 1."""
    extent = side(box) * _PLACES[:, 2:]
    middles = centre(box) + side(box) * _PLACES[:, :2]
    return np.hstack([np.fix(middles - extent / 2), np.fix(middles + extent / 2), np.ones_like(extent)])


def _assigned(people: Sequence[_Person], faces: Sequence[Face], time_s: float) -> dict[int, int]:
    """Row of a face for each row of a person who has one: nearest and most equal in size first, none out of reach."""
    costs = {
        (p, f): cost
        for p, person in enumerate(people)
        for f, face in enumerate(faces)
        if (cost := _cost(person, face, time_s)) is not None
    }
    met: dict[int, int] = {}
    for p, f in sorted(costs, key=lambda pair: costs[pair]):
        if p not in met and f not in met.values():
            met[p] = f
    return met


def _cost(person: _Person, face: Face, time_s: float) -> float | None:
    """Distance in sides plus change of size in octaves; None if that is too far to be the same person."""
    expected, found = person.expected(time_s), face.box
    distance = float(np.linalg.norm(centre(found) - centre(expected))) / max(side(expected), 1.0)
    octaves = abs(float(np.log2(max(side(found), 1.0) / max(side(expected), 1.0))))
    reach = _REACH_OF_LOST if person.missed else _REACH + _REACH_PER_S * max(time_s - person.seen_s, 0.0)
    return distance + octaves if distance <= min(reach, _MOST_REACH) and octaves <= 1 else None
