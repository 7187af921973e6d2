"""Traces of how a video was coded, gathered while its packets are walked. Runs inside the fence's child only.

Types and sizes come from the headers of the packets, vectors from the first few pictures, which are decoded without
the loop filter. What the numbers can and cannot show is said where they are put in words (`clipwarden.shared.hints`).
"""

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.media.bitstream import PacketKind
from clipwarden.shared.media.notes import Notes

EXCERPT_PICTURES = 16
EXCERPT_PIXELS = 40_000_000
VECTOR_CODECS = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video", "h263"})
PERIOD_CODECS = frozenset({"h264", "mpeg4"})
"""Codecs whose pictures tell their type and role, so that sizes of like pictures can be compared."""

_TYPES = ("I", "P", "B")
_KEY, _CLEAN, _REFERENCED = 1, 2, 4
_MOST_PICTURES = 6000
_SHORTEST_PERIOD, _LONGEST_PERIOD = 9, 300
_PEAK_SHARE = 0.15
_PEAKED_SHARE = 0.6  # less is what a multiple or a part of the true distance shows
_NEIGHBOURS = 4
_SURE = 18.0


class Vectors:
    """Areas by length of the vectors to earlier pictures, in quarters of a pixel up to 128 pixels."""

    def __init__(self) -> None:
        self.pictures = self._seen = 0
        self._areas = np.zeros(512, np.float64)
        self._pixels = 0

    @property
    def wanted(self) -> bool:
        """Whether the excerpt may go on."""
        return self._seen < EXCERPT_PICTURES and self._pixels < EXCERPT_PIXELS

    def see(self, frame: Any) -> None:
        self._seen += 1
        try:
            found = [data for data in frame.side_data if data.type.name == "MOTION_VECTORS"]
        except ValueError:
            return
        self._pixels += frame.width * frame.height
        if found:
            self._add(np.frombuffer(memoryview(found[0]), _VECTOR), frame.width * frame.height)

    def _add(self, vectors: NDArray[Any], pixels: int) -> None:
        earlier = np.flatnonzero(vectors["source"] < 0)
        if not len(earlier):
            return
        x, y, scale = (vectors[name][earlier].astype(np.float32) for name in ("motion_x", "motion_y", "motion_scale"))
        quarters = 4 * np.hypot(x, y) / np.maximum(scale, 1)
        areas = vectors["w"][earlier].astype(np.float64) * vectors["h"][earlier]
        places = np.minimum(quarters, len(self._areas) - 1).astype(np.int64)
        self._areas += np.bincount(places, areas, len(self._areas)) / pixels
        self.pictures += 1

    def fields(self) -> dict[str, Any] | None:
        """Fields of a Motion; None where no picture told its vectors."""
        total = float(self._areas.sum())
        if not self.pictures or not total:
            return None
        below = np.cumsum(self._areas) / total
        return {
            "pictures": self.pictures,
            "predicted": round(min(total / self.pictures, 1.0), 4),
            "moving": round(min(max(1 - float(below[0]), 0.0), 1.0), 4),
            "median_px": float(np.searchsorted(below, 0.5)) / 4,
            "p95_px": float(np.searchsorted(below, 0.95)) / 4,
        }


_VECTOR = np.dtype(
    {
        "names": ["source", "w", "h", "motion_x", "motion_y", "motion_scale"],
        "formats": ["<i4", "u1", "u1", "<i4", "<i4", "<u2"],
        "offsets": [0, 4, 5, 24, 28, 32],
        "itemsize": 40,
    }
)
"""FFmpeg's AVMotionVector."""


@dataclass(slots=True)
class Traces:
    """Everything `Provenance` holds, as it is met."""

    notes: Notes = field(default_factory=Notes)
    motion: Vectors = field(default_factory=Vectors)
    hidden: int = 0
    tables: tuple[tuple[int, ...], ...] = ()
    _sizes: "array[int]" = field(default_factory=lambda: array("q"))
    _stamps: "array[int]" = field(default_factory=lambda: array("q"))
    _types: bytearray = field(default_factory=bytearray)
    _roles: bytearray = field(default_factory=bytearray)

    def see(self, packet: Any, kind: PacketKind, stamp: int) -> None:
        """Note a packet that is shown."""
        self._sizes.append(packet.size)
        self._stamps.append(stamp)
        self._types.append(_TYPES.index(kind.picture_type) if kind.picture_type else len(_TYPES))
        self._roles.append(_KEY * packet.is_keyframe | _CLEAN * kind.clean_start | _REFERENCED * kind.referenced)

    def fields(self, codec: str | None, pixels: int) -> dict[str, Any]:
        """Fields of a Provenance."""
        sizes, types = np.frombuffer(self._sizes, np.int64), np.frombuffer(self._types, np.uint8)
        roles, coded = np.frombuffer(self._roles, np.uint8), pixels * max(len(self._sizes), 1)
        order = np.argsort(np.frombuffer(self._stamps, np.int64), kind="stable")
        told = codec in PERIOD_CODECS
        return {
            "pictures": {name: _sizes_of(sizes[types == i]) for i, name in enumerate(_TYPES) if np.any(types == i)},
            "groups": _groups(roles),
            "motion": self.motion.fields(),
            "bits_per_pixel": round(8 * float(sizes.sum()) / coded, 4) if coded else 0.0,
            "hidden_pictures": self.hidden,
            "notes": self.notes.listed(),
            "settings": self.notes.settings,
            "openings": self.notes.openings,
            "period": period(sizes[order], types[order], roles[order]) if told else 0,
            "tables": None if not self.tables else "other" if libjpeg_quality(self.tables) is None else "libjpeg",
            "quality": libjpeg_quality(self.tables),
        }


def _sizes_of(sizes: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "count": len(sizes),
        "mean_bytes": round(float(sizes.mean()), 1),
        "deviation_bytes": round(float(sizes.std()), 1),
    }


def _groups(roles: NDArray[np.uint8]) -> dict[str, Any] | None:
    """From key frame to key frame in the order of decoding."""
    starts = np.flatnonzero(roles & _KEY)
    if not len(starts):
        return None
    lengths = np.diff(starts) if len(starts) > 1 else np.array([len(roles) - starts[0]])
    closed = int(np.count_nonzero(roles[starts[: len(lengths)]] & _CLEAN))
    return {
        "count": len(lengths),
        "closed": closed,
        "shortest": int(lengths.min()),
        "median": int(np.median(lengths)),
        "longest": int(lengths.max()),
    }


def period(sizes: NDArray[np.int64], types: NDArray[np.uint8], roles: NDArray[np.uint8]) -> int:
    """Shortest distance in display order at which predicted pictures peak in size, unexplained by key frames, or 0.

    A picture that was a key frame in an earlier coding differs in its noise from its neighbours and is costlier to
    predict (the footprint of Vazquez-Padin et al., "Detection of video double encoding with GOP size estimation", 2012,
    measured here on sizes instead of kinds of blocks). A peak is one of the 15 % of pictures that exceed the median of
    their like neighbours most. A distance counts if chance makes so many of the pictures at one of its offsets peaks
    with a probability below e^-18 (Chernoff's bound), so that it stays below one in a thousand over all distances and
    offsets. Motion that repeats at exactly that distance looks the same; a distance that divides this coding's own
    length of group, or is divided by it, cannot be told apart from it and is left out, as are layers (below 9).
    """
    sizes, types, roles = sizes[:_MOST_PICTURES], types[:_MOST_PICTURES], roles[:_MOST_PICTURES]
    excess, known = _excess(sizes, types, roles)
    if np.count_nonzero(known) < 6 * _SHORTEST_PERIOD:
        return 0
    peaks = known & (excess > max(float(np.quantile(excess[known], 1 - _PEAK_SHARE)), 0.02))
    own = _own_length(roles)
    if any(_best(peaks, known, distance) > _SURE for distance in range(2, _SHORTEST_PERIOD)):
        return 0
    for distance in range(_SHORTEST_PERIOD, min(_LONGEST_PERIOD, len(sizes) // 5) + 1):
        explained = own and (own % distance == 0 or distance % own == 0)
        if not explained and _best(peaks, known, distance) > _SURE:
            return distance
    return 0


def _excess(
    sizes: NDArray[np.int64], types: NDArray[np.uint8], roles: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Logarithm of each size over the median of its neighbours of the same type and role, and where there is one."""
    logs, excess = np.log(sizes + 1.0), np.zeros(len(sizes))
    known = np.zeros(len(sizes), np.bool_)
    usable = types > 0
    usable[1:] &= types[:-1] > 0  # the first picture after an I picture is like no other
    for like in {(int(t), int(r)) for t, r in zip(types, roles & _REFERENCED, strict=True)}:
        places = np.flatnonzero(usable & (types == like[0]) & (roles & _REFERENCED == like[1]))
        if len(places) > 2 * _NEIGHBOURS:
            windows = np.lib.stride_tricks.sliding_window_view(logs[places], 2 * _NEIGHBOURS + 1)
            middle = places[_NEIGHBOURS:-_NEIGHBOURS]
            excess[middle] = logs[middle] - np.median(windows, axis=1)
            known[middle] = True
    return excess, known


def _own_length(roles: NDArray[np.uint8]) -> int:
    """Length of this coding's groups in display order; 0 if they vary."""
    lengths = np.diff(np.flatnonzero(roles & _KEY))
    return int(lengths[0]) if len(lengths) and np.all(np.abs(lengths - lengths[0]) <= 1) else 0


def _best(peaks: NDArray[np.bool_], known: NDArray[np.bool_], distance: int) -> float:
    """Chernoff's bound on chance, as a negative logarithm, at the best offset of a distance."""
    counts, hits = _by_offset(known, distance), _by_offset(peaks, distance)
    shares = np.divide(hits, counts, out=np.zeros(distance), where=counts > 0)
    apart = np.where(shares > _PEAKED_SHARE, shares, _PEAK_SHARE)
    rest = 1 - apart
    against = np.where(rest > 0, rest * np.log(np.maximum(rest, 1e-12) / (1 - _PEAK_SHARE)), 0.0)
    return float((counts * (apart * np.log(apart / _PEAK_SHARE) + against)).max())


def _by_offset(marks: NDArray[np.bool_], distance: int) -> NDArray[np.float64]:
    """How many marks there are at each offset of a distance."""
    padded = np.zeros(-(-len(marks) // distance) * distance)
    padded[: len(marks)] = marks
    sums: NDArray[np.float64] = padded.reshape(-1, distance).sum(axis=0)
    return sums


def libjpeg_quality(tables: tuple[tuple[int, ...], ...]) -> int | None:
    """Quality at which libjpeg makes this luminance table (ITU-T T.81 annex K, scaled); None if at none."""
    if not tables:
        return None
    return next((q for q in range(1, 101) if _scaled(q) == tables[0]), None)


def _scaled(quality: int) -> tuple[int, ...]:
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return tuple(min(max((entry * scale + 50) // 100, 1), 255) for entry in _LUMINANCE)


_LUMINANCE = (
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40,
    26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61, 60, 57, 51,
    56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87,
    95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
)  # fmt: skip
"""The table of annex K in zigzag order."""
