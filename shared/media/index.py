"""Which packets of a picture stream must be decoded for which frames, from one walk over them. Fence's child only.

A frame's index is its place in display order. If every packet has its own presentation time stamp, that place is known
before decoding, and these rules name the same frames as decoding everything does:

- A packet that no other picture refers to is decoded only if its own frame is wanted.
- Decoding for a frame may start at the last clean start (a picture that nothing later in the stream looks past)
  before it in the order of decoding; what lies between two groups of wanted frames is not decoded at all.

Where that cannot be proved (missing or repeated time stamps, interlaced fields, packets that show no picture or two)
everything up to the last wanted frame is decoded and counted.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.media.bitstream import PacketKind

_REFERENCED, _CLEAN, _HIDDEN, _UNCERTAIN = 1, 2, 4, 8


@dataclass(frozen=True, slots=True)
class Feed:
    """What to decode. needed: bool (P,) by packet; restarts: bool (P,), where the decoder starts anew; ranks: the index
    of each wanted frame by its time stamp.
    """

    needed: NDArray[np.bool_]
    restarts: NDArray[np.bool_]
    ranks: dict[int, int]
    last: int
    """Place of the last packet that is needed; -1 if none is."""

    def needs(self, place: int) -> bool:
        """Whether the packet at this place is decoded."""
        return place <= self.last and bool(self.needed[place])


@dataclass(slots=True)
class PacketIndex:
    """Time stamp and role of each picture packet, in the order of the file."""

    stamps: "array[int]" = field(default_factory=lambda: array("q"))
    roles: bytearray = field(default_factory=bytearray)
    levels: bytearray = field(default_factory=bytearray)

    def see(self, packet: Any, kind: PacketKind) -> None:
        """Note the next packet that has content."""
        role = _REFERENCED * kind.referenced | _CLEAN * kind.clean_start | _HIDDEN * packet.is_discard
        self.stamps.append(packet.pts or 0)
        self.roles.append(role | _UNCERTAIN * (packet.pts is None or kind.pictures != 1))
        self.levels.append(min(kind.temporal_id, 255))

    def feed(self, wanted: Sequence[int], reorders: bool = True) -> Feed | None:
        """The packets that the wanted frames need; None if that cannot be told.

        A codec that never reorders shows frames in the order of the file, also if their time stamps go back.
        """
        stamps, roles = np.frombuffer(self.stamps, np.int64), np.frombuffer(self.roles, np.uint8)
        shown = np.flatnonzero(roles & _HIDDEN == 0)
        order = shown[np.argsort(stamps[shown], kind="stable")]
        if np.any(roles & _UNCERTAIN) or np.any(np.diff(stamps[order]) == 0) or not len(shown):
            return None
        if not reorders and np.any(order != shown):
            return None
        needed = np.zeros(len(roles), np.bool_)
        restarts = np.zeros(len(roles), np.bool_)
        referenced = self._referenced(roles)
        starts = np.flatnonzero(roles & _CLEAN)
        reached = 0
        ranks = {int(stamps[order[i]]): i for i in wanted if i < len(order)}
        for place in sorted(int(order[i]) for i in ranks.values()):
            at = int(np.searchsorted(starts, place, side="right")) - 1
            begin = int(starts[at]) if at >= 0 else 0
            if begin > reached and np.any(referenced[reached:begin]):
                restarts[begin] = True
            first = max(begin, reached)
            needed[first:place] = referenced[first:place]
            needed[place] = True
            reached = place + 1
        return Feed(needed, restarts, ranks, reached - 1)

    def _referenced(self, roles: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """A picture of a lower temporal layer may be referred to by a higher one, whatever it says of its own layer."""
        levels = np.frombuffer(self.levels, np.uint8)
        referenced: NDArray[np.bool_] = (roles & _REFERENCED != 0) | (levels < levels.max())
        return referenced
