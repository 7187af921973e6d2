"""Which scene a frame shows: the one before it, an earlier one that is cut back to, or a new one."""

from collections import OrderedDict
from typing import Final

import cv2
import numpy as np

from clipwarden.models.faces.boxes import Floats
from clipwarden.models.faces.pyramid import Pyramid

THUMBNAIL_PX: Final = 32
MOVED: Final = 26.0  # grey levels; cuts between clips of ours moved 45 and more
RECOLOURED: Final = 12.0  # grey levels; the same cuts 13 and more, one second of motion up to 10
RETURNED: Final = 16.0  # grey levels
MOST_SCENES: Final = 64  # that can be returned to


class Scenes:
    """Remembers each scene by a thumbnail of its last frame."""

    def __init__(self) -> None:
        self._thumbnails: OrderedDict[int, Floats] = OrderedDict()
        self._count = 0

    def look(self, pyramid: Pyramid) -> int:
        """Number of the scene that the next frame shows, from 0.

        A cut is where thumbnails differ both in place, which a moving camera does too, and in the distribution of
        each colour (its earth mover's distance), which people who move leave nearly as it is.
        """
        seen = _thumbnail(pyramid)
        number = self._number(seen)
        self._thumbnails[number] = seen
        self._thumbnails.move_to_end(number)
        if len(self._thumbnails) > MOST_SCENES:
            self._thumbnails.popitem(last=False)
        return number

    def _number(self, seen: Floats) -> int:
        if self._thumbnails:
            last, thumbnail = next(reversed(self._thumbnails.items()))
            if _moved(seen, thumbnail) <= MOVED or _recoloured(seen, thumbnail) <= RECOLOURED:
                return last
            moved, nearest = min((_moved(seen, old), number) for number, old in self._thumbnails.items())
            if moved <= RETURNED:
                return nearest
        self._count += 1
        return self._count - 1


def _moved(thumbnail: Floats, other: Floats) -> float:
    return float(np.abs(thumbnail - other).mean())


def _recoloured(thumbnail: Floats, other: Floats) -> float:
    return float(np.abs(np.sort(thumbnail, axis=0) - np.sort(other, axis=0)).mean())


def _thumbnail(pyramid: Pyramid) -> Floats:
    """Pixels by colour, float32 (THUMBNAIL_PX², 3)."""
    small = pyramid.level(min(THUMBNAIL_PX / min(pyramid.height, pyramid.width), 1.0))
    square = cv2.resize(small, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(square, np.float32).reshape(-1, 3)
