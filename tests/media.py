"""Media for tests, drawn and synthesised from seeds: nothing recorded but scikit-image's public-domain astronaut."""

import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

from clipwarden.shared.local.voice import speak

RATE_HZ = 16_000
CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mov": ("libx264", "aac"),
    ".webm": ("libvpx-vp9", "libopus"),
    ".avi": ("mpeg4", "mp3"),
}


def faces(count: int, width: int = 320, height: int = 320, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """The astronaut's head and shoulders, moved and lit a little differently in each frame; RGB."""
    rng = np.random.default_rng(seed)
    portrait = data.astronaut()[:300, 60:360]
    for i in range(count):
        turn = cv2.getRotationMatrix2D((150, 150), 4 * np.sin(i / 7), max(width, height) / 300)
        turn[:, 2] += [width / 2 - 150 + 6 * np.sin(i / 5), height / 2 - 150 + 4 * np.cos(i / 6)]
        frame = cv2.warpAffine(portrait, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        yield np.clip(frame + rng.normal(0, 2, frame.shape) + 5 * np.sin(i / 9), 0, 255).astype(np.uint8)


def scenery(count: int, width: int = 320, height: int = 240, seed: int = 0) -> Iterator[NDArray[np.uint8]]:
    """A drifting gradient with grain and no face; the frame's number is its mean brightness, rising by one."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(-20, 20, width)[None, :, None]
    for i in range(count):
        yield np.clip(40 + i + slope + rng.normal(0, 1, (height, width, 3)), 0, 255).astype(np.uint8)


def speech(seconds: float, seed: int = 0) -> NDArray[np.int16]:
    """Babble that a speech detector takes for speech; mono at 16 kHz."""
    samples = round(seconds * RATE_HZ)
    return (0.45 * 32767 * speak(seconds + 0.01, seed)[:samples]).astype(np.int16)


def silence(seconds: float) -> NDArray[np.int16]:
    return np.zeros(round(seconds * RATE_HZ), np.int16)


def write_clip(
    path: Path,
    frames: Iterator[NDArray[np.uint8]] | None,
    wave: NDArray[np.int16] | None = None,
    fps: int = 25,
    times_ms: list[int] | None = None,
    rotation_deg: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode frames and sound into the container that the suffix names; `times_ms` makes the frame rate variable."""
    video_codec, audio_codec = CODECS[path.suffix]
    with av.open(str(path), "w", options=options or {}) as out:
        video = audio = None
        pictures = list(frames) if frames is not None else []
        if pictures:
            height, width = pictures[0].shape[:2]
            video = out.add_stream(video_codec, rate=1000 if times_ms else fps, width=width, height=height)
            video.pix_fmt, video.bit_rate = "yuv420p", 2_000_000
            if rotation_deg:
                video.set_display_rotation(rotation_deg)
        if wave is not None:
            audio = out.add_stream(audio_codec, rate=48_000 if audio_codec == "libopus" else RATE_HZ, layout="mono")
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = times_ms[i] if times_ms else i
            out.mux(video.encode(frame))
        if video:
            out.mux(video.encode())
        if audio:
            _encode_sound(out, audio, wave)
    return path


def write_sound(path: Path, wave: NDArray[np.int16]) -> Path:
    """Mono 16 kHz sound alone; the suffix names container and codec (.wav, .flac, .mp3, .ogg)."""
    codec = {".wav": "pcm_s16le", ".flac": "flac", ".mp3": "libmp3lame", ".ogg": "libopus"}[path.suffix]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=48_000 if codec == "libopus" else RATE_HZ, layout="mono")
        _encode_sound(out, stream, wave)
    return path


def write_still(path: Path, picture: NDArray[np.uint8]) -> Path:
    """One RGB picture; the suffix names the format (.jpg, .png, .bmp, .webp)."""
    assert cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return path


def write_slow_clip(path: Path, frames: int) -> Path:
    """A small Matroska file whose every picture has 64 million pixels: cheap to make, costly to decode."""
    picture = cv2.imencode(".jpg", np.full((8000, 8000, 3), 90, np.uint8))[1].tobytes()
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25, width=8000, height=8000)
        stream.pix_fmt = "yuvj420p"
        for i in range(frames):
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts = stream, i, i
            packet.time_base, packet.is_keyframe = Fraction(1, 25), True
            out.mux(packet)
    return path


def write_empty_track(path: Path) -> Path:
    """An MP4 that announces a video track and holds no frame of it."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, width=64, height=64)
        stream.pix_fmt = "yuv420p"
        out.start_encoding()
    return path


def claim_hours(path: Path, hours: int, fps: int = 25) -> Path:
    """Rewrite the headers of a one-frame MP4 in place so that they list hours of equal frames, none of them there."""
    content = bytearray(path.read_bytes())
    frames = hours * 3600 * fps
    media_scale, movie_scale = (_number(content, box, 12) for box in (b"mdhd", b"mvhd"))
    size = _number(content, b"stsz", 4) or _number(content, b"stsz", 12)
    for box, at, value in (
        (b"mdhd", 16, hours * 3600 * media_scale),
        (b"mvhd", 16, hours * 3600 * movie_scale),
        (b"tkhd", 20, hours * 3600 * movie_scale),
        (b"elst", 8, hours * 3600 * movie_scale),
        (b"stts", 8, frames),
        (b"stts", 12, media_scale // fps),
        (b"stsz", 4, size),
        (b"stsz", 8, frames),
        (b"stsc", 12, frames),
    ):
        struct.pack_into(">I", content, content.index(box) + 4 + at, value)
    path.write_bytes(content)
    return path


def _number(content: bytearray, box: bytes, at: int) -> int:
    """Big-endian number at `at` bytes behind the name of the first such box."""
    return int(struct.unpack_from(">I", content, content.index(box) + 4 + at)[0])


def write_png_header(path: Path, width: int, height: int) -> Path:
    """A PNG that claims a size and holds almost nothing."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    return path


def _encode_sound(out: av.container.OutputContainer, stream: av.AudioStream, wave: NDArray[np.int16]) -> None:
    frame = av.AudioFrame.from_ndarray(wave.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate, frame.pts = RATE_HZ, 0
    out.mux(stream.encode(frame))
    out.mux(stream.encode())
