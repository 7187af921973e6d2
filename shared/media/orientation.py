"""How a decoded picture has to be turned to be shown: the display matrix of the container, or EXIF of a still."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.media.stills import ORIENTATION, exif_tags


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways a picture can lie: swap rows and columns first, then mirror."""

    swaps_sides: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def degrees(self) -> int:
        """Counter-clockwise turn in [0, 360), after left and right have changed places if it is mirrored."""
        if self.swaps_sides:
            return 270 if self.mirror_x else 90
        return 180 if self.mirror_y else 0

    @property
    def mirrored(self) -> bool:
        """Whether left and right change places, beyond any turn."""
        return self.mirror_x ^ self.mirror_y ^ self.swaps_sides

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 (H, W, 3) as coded → as displayed, contiguous."""
        if self.swaps_sides:
            image = image.transpose(1, 0, 2)
        image = image[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]
        return np.ascontiguousarray(image)


def orientation_of(frame: Any, exif: Orientation | None = None) -> Orientation:
    """Orientation of a PyAV frame; turns that are no multiple of 90 degrees are rounded to one.

    PyAV cannot list the side data of a frame that carries EXIF, and tells the turn of such a frame but not whether it
    is mirrored: what `from_exif` says of a still goes before what the decoder says.
    """
    if exif is not None:
        return exif
    try:
        matrices = [bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"]
    except ValueError:
        return _TURNS[round(frame.rotation / 90) % 4]
    return from_matrix(matrices[0]) if matrices else Orientation()


def from_exif(content: memoryview) -> Orientation | None:
    """As the EXIF of a JPEG, PNG or WebP file says; None if it says nothing."""
    said = exif_tags(content).get(ORIENTATION)
    return _BY_EXIF[said - 1] if isinstance(said, int) and 1 <= said <= len(_BY_EXIF) else None


def from_matrix(matrix: bytes) -> Orientation:
    """From FFmpeg's matrix of nine int32: x' = a x + c y, y' = b x + d y, with a b c d at 0 1 3 4."""
    if len(matrix) < 36:
        return Orientation()
    a, b, _, c, d = struct.unpack("<5i", matrix[:20])
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Orientation(True, c < 0, b < 0)
    return Orientation(False, a < 0, d < 0)


_TURNS = (
    Orientation(),
    Orientation(swaps_sides=True, mirror_y=True),
    Orientation(mirror_x=True, mirror_y=True),
    Orientation(swaps_sides=True, mirror_x=True),
)
"""By quarter turns counter-clockwise."""

_BY_EXIF = (
    Orientation(),
    Orientation(mirror_x=True),
    Orientation(mirror_x=True, mirror_y=True),
    Orientation(mirror_y=True),
    Orientation(swaps_sides=True),
    Orientation(swaps_sides=True, mirror_x=True),
    Orientation(swaps_sides=True, mirror_x=True, mirror_y=True),
    Orientation(swaps_sides=True, mirror_y=True),
)
"""By the value of the EXIF tag, from 1."""
