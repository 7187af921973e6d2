"""Facts that a stream's header states, as checked fields of a `MediaProbe`. Runs inside the fence's child only.

Numbers are those of ITU-T H.273, which H.264, H.265, VP9, AV1, MP4 and Matroska share.
"""

import re
from fractions import Fraction
from typing import Any

import numpy as np

_PRIMARIES = {
    1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020", 10: "smpte428",
    11: "smpte431", 12: "smpte432", 22: "ebu3213",
}  # fmt: skip
_TRANSFERS = {
    1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100", 10: "log316",
    11: "iec61966-2-4", 12: "bt1361e", 13: "srgb", 14: "bt2020-10", 15: "bt2020-12", 16: "pq", 17: "smpte428",
    18: "hlg",
}  # fmt: skip
_MATRICES = {
    0: "rgb", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco", 9: "bt2020nc",
    10: "bt2020c", 11: "smpte2085", 12: "chroma-derived-nc", 13: "chroma-derived-c", 14: "ictcp",
}  # fmt: skip
_RANGES = {1: False, 2: True}
_LARGEST_TERM = 10_000
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def colour_of(frame: Any) -> dict[str, Any]:
    """Fields of a Colour, of a decoded picture."""
    return {
        "pixel_format": frame.format.name,
        "bit_depth": max(component.bits for component in frame.format.components),
        "primaries": _PRIMARIES.get(int(frame.color_primaries)),
        "transfer": _TRANSFERS.get(int(frame.color_trc)),
        "matrix": _MATRICES.get(int(frame.colorspace)),
        "full_range": _RANGES.get(int(frame.color_range)),
    }


def pixel_aspect(stream: Any, swaps_sides: bool) -> tuple[int, int]:
    """Width to height of a pixel as displayed; square where the stream says nothing, or nonsense."""
    said = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
    width, height = said.numerator, said.denominator
    if not (0 < width <= _LARGEST_TERM and 0 < height <= _LARGEST_TERM):
        return 1, 1
    return (height, width) if swaps_sides else (width, height)


def sound_of(stream: Any) -> dict[str, Any]:
    """What a MediaProbe says of its first sound stream."""
    context = stream.codec_context
    layout = _UNPRINTABLE.sub("", context.layout.name)[:40] if context.layout else ""
    return {
        "audio_codec": context.name,
        "sample_rate_hz": max(context.sample_rate or 0, 0),
        "channels": max(context.channels or 0, 0),
        "channel_layout": layout or None,
    }


def flat_share(frame: Any) -> float:
    """Share of a picture's rows, from the lowest up, that equal the lowest: what a decoder leaves of a cut JPEG."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height]
    differ = np.flatnonzero(np.any(rows != rows[-1], axis=1))
    return 1.0 - (int(differ[-1]) + 1) / len(rows) if len(differ) else 1.0
