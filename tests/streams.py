"""Small clips in every coding that decides how a stream may be decoded in part: references, groups, orders, clocks."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, FRAMES, FPS = 160, 96, 60, 25
CUT_AT = 33
"""Where the scene changes."""


@dataclass(frozen=True, slots=True)
class Coding:
    """How to encode. `hidden` frames at the start are cut off by an edit list; `uneven` varies the frame rate."""

    codec: str
    suffix: str = ".mp4"
    options: str = ""
    private: str = ""
    rotation_deg: int = 0
    uneven: bool = False
    hidden: int = 0
    starts_s: int = 0
    width: int = WIDTH

    def arguments(self) -> dict[str, str]:
        """Options of the encoder; `private` are those of x264, x265 or SVT-AV1 themselves."""
        table = {"libx264": "x264-params", "libx265": "x265-params", "libsvtav1": "svtav1-params"}
        named = dict(pair.split("=") for pair in self.options.split())
        quiet = {"libx265": "log-level=none:"}.get(self.codec, "")
        return named | ({table[self.codec]: quiet + self.private} if self.codec in table else {})


_PYRAMID = "keyint=36:min-keyint=36:scenecut=0:bframes=5:b-adapt=0:b-pyramid=normal:ref=4"
CODINGS = {
    "H.264": Coding("libx264"),
    "H.264 one long group, P only": Coding("libx264", private="keyint=infinite:scenecut=0:bframes=0"),
    "H.264 pyramid": Coding("libx264", private=_PYRAMID),
    "H.264 pyramid, Matroska": Coding("libx264", ".mkv", private=_PYRAMID),
    "H.264 pyramid, transport stream": Coding("libx264", ".ts", private=_PYRAMID),
    "H.264 strict pyramid": Coding("libx264", private="keyint=48:bframes=7:b-adapt=0:b-pyramid=strict"),
    "H.264 open groups": Coding("libx264", private="open-gop=1:keyint=18:min-keyint=18:bframes=3:b-adapt=0"),
    "H.264 slices": Coding("libx264", private="slices=4:bframes=3:keyint=24"),
    "H.264 gradual refresh": Coding("libx264", private="intra-refresh=1:keyint=20:bframes=2"),
    "H.264 interlaced": Coding("libx264", private="interlaced=1:bframes=2:keyint=24"),
    "H.264 field flags only": Coding("libx264", private="fake-interlaced=1:bframes=2:keyint=24"),
    "H.264 hidden start": Coding("libx264", private="keyint=24:bframes=3", hidden=7),
    "H.264 late start": Coding("libx264", private="keyint=24:bframes=3", starts_s=3),
    "H.264 uneven": Coding("libx264", private="keyint=30:bframes=3", uneven=True),
    "H.264 uneven, Matroska": Coding("libx264", ".mkv", private="keyint=30:bframes=3", uneven=True),
    "H.264 in AVI": Coding("libx264", ".avi", private="keyint=24:bframes=0"),
    "HEVC": Coding("libx265", private="keyint=24:bframes=4:b-pyramid=1:open-gop=0"),
    "HEVC open groups": Coding("libx265", private="keyint=18:min-keyint=18:bframes=4:b-pyramid=1:open-gop=1"),
    "HEVC temporal layers": Coding("libx265", private="keyint=36:bframes=3:b-adapt=0:temporal-layers=3:open-gop=0"),
    "HEVC leading pictures": Coding("libx265", private="keyint=18:min-keyint=18:bframes=4:radl=2:open-gop=0"),
    "HEVC intra B": Coding("libx265", private="keyint=36:bframes=4:b-intra=1:weightb=1:open-gop=1"),
    "VP9": Coding("libvpx-vp9", ".webm", "deadline=good cpu-used=5 g=30 auto-alt-ref=1 lag-in-frames=16"),
    "VP9 without hidden frames": Coding("libvpx-vp9", ".webm", "deadline=realtime cpu-used=8 g=24 lag-in-frames=0"),
    "AV1": Coding("libsvtav1", private="keyint=24:preset=12:tune=0"),
    "MPEG-4 in AVI": Coding("mpeg4", ".avi", "bf=2 g=12"),
    "MPEG-4 in MP4": Coding("mpeg4", ".mp4", "bf=2 g=12"),
    "MJPEG": Coding("mjpeg", ".avi"),
    "MPEG-2": Coding("mpeg2video", ".ts", "bf=2 g=12"),
    "turned 90": Coding("libx264", ".mov", rotation_deg=90, private="keyint=24:bframes=3"),
    "turned 180": Coding("libx264", ".mov", rotation_deg=180, private="keyint=24:bframes=3"),
    "turned 270": Coding("libx265", ".mov", rotation_deg=270, private="keyint=24"),
    "turned 90, odd width": Coding("libx264", ".mov", rotation_deg=90, width=150),
}


def scene(width: int = WIDTH, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """Clutter that drifts and turns under grain, with a change of scene; no two frames are alike. RGB."""
    rng = np.random.default_rng(seed)
    grounds = [cv2.resize(rng.integers(0, 256, (24, 40, 3), np.uint8), (320, 192)) for _ in range(2)]
    for i in range(FRAMES):
        turn = cv2.getRotationMatrix2D((160, 96), 0.7 * i, 1 + 0.004 * i)
        turn[:, 2] -= [60 + 0.9 * i, 40 + 0.4 * i]
        moved = cv2.warpAffine(grounds[i >= CUT_AT], turn, (width, HEIGHT), borderMode=cv2.BORDER_REFLECT)
        yield np.clip(moved + rng.normal(0, 3, moved.shape), 0, 255).astype(np.uint8)


def write_coded(path: Path, coding: Coding) -> Path:
    """Encode the scene."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(coding.codec, rate=1000 if coding.uneven else FPS, width=coding.width, height=HEIGHT)
        stream.pix_fmt = "yuvj420p" if coding.codec == "mjpeg" else "yuv420p"
        stream.bit_rate, stream.options, stream.thread_count = 600_000, coding.arguments(), 1
        if coding.rotation_deg:
            stream.set_display_rotation(coding.rotation_deg)
        for i, picture in enumerate(scene(coding.width)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = _stamp(i, coding)
            frame.time_base = Fraction(1, 1000 if coding.uneven else FPS)
            _mux(out, stream.encode(frame), coding)
        _mux(out, stream.encode(), coding)
    return path


def _stamp(i: int, coding: Coding) -> int:
    return (i * 40 + (i * 7919 % 23) + (700 if i >= CUT_AT else 0)) if coding.uneven else i


def _mux(out: av.container.OutputContainer, packets: list[av.Packet], coding: Coding) -> None:
    """Packets before the zero of time are written, and hidden by an edit list; later ones start with a gap."""
    for packet in packets:
        shift = round((coding.starts_s - coding.hidden / FPS) / packet.time_base)
        packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
        out.mux(packet)
