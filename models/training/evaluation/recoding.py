"""Encodes a file once more at one of three strengths: H.264 for video, MP3 for sound, JPEG for a picture.

Decodes in this process, outside the fence, and is meant for the operator's own labelled files that the fence has
already examined.
"""

from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import MediaKind
from clipwarden.shared.errors import MediaError

STRENGTHS: Final = (0, 1, 2)
CRF: Final = (23, 30, 36)
MP3_BIT_RATE: Final = (64_000, 32_000, 16_000)
JPEG_QUALITY: Final = (85, 60, 35)
WORDS: Final = {
    MediaKind.VIDEO: tuple(f"H.264 CRF {crf}" for crf in CRF),
    MediaKind.AUDIO: tuple(f"MP3 {rate // 1000} kbit/s" for rate in MP3_BIT_RATE),
    MediaKind.IMAGE: tuple(f"JPEG {quality}" for quality in JPEG_QUALITY),
}


def recoded(path: Path, kind: MediaKind, strength: int, folder: Path) -> Path:
    """Write the file's copy into the folder. Raises MediaError if it cannot be decoded or encoded."""
    try:
        if kind is MediaKind.VIDEO:
            return _video(path, CRF[strength], folder / "recoded.mkv")
        if kind is MediaKind.AUDIO:
            return _sound(path, MP3_BIT_RATE[strength], folder / "recoded.mp3")
        return _picture(path, JPEG_QUALITY[strength], folder / "recoded.jpg")
    except (av.FFmpegError, cv2.error, ValueError, OverflowError) as error:
        raise MediaError(RejectCode.DECODE_FAILED, f"re-encoding: {error}") from error


def _video(path: Path, crf: int, target: Path) -> Path:
    """Pictures through x264, the sound's packets as they are."""
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        seen = source.streams.video[0]
        heard = source.streams.audio[0] if source.streams.audio else None
        video = out.add_stream("libx264", rate=seen.average_rate or 25, options={"crf": str(crf), "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = seen.width // 2 * 2, seen.height // 2 * 2, "yuv420p"
        if seen.time_base is not None:
            video.codec_context.time_base = seen.time_base
        audio = out.add_stream_from_template(heard) if heard is not None else None
        turned = False
        for packet in source.demux([stream for stream in (seen, heard) if stream is not None]):
            if packet.stream is not seen:
                if packet.dts is not None and audio is not None:
                    packet.stream = audio
                    out.mux(packet)
                continue
            for frame in packet.decode():
                assert isinstance(frame, av.VideoFrame)
                if frame.rotation and not turned:
                    video.set_display_rotation(frame.rotation)
                turned = True
                out.mux(video.encode(frame.reformat(video.width, video.height, "yuv420p")))
        out.mux(video.encode(None))
    return target


def _sound(path: Path, bit_rate: int, target: Path) -> Path:
    with av.open(str(path)) as source, av.open(str(target), "w") as out:
        heard = source.streams.audio[0]
        track = out.add_stream("libmp3lame", rate=heard.rate, layout="mono")
        track.bit_rate = bit_rate
        resampler = av.AudioResampler(format=track.format, layout="mono", rate=heard.rate)
        for frame in source.decode(heard):
            for part in resampler.resample(frame):
                out.mux(track.encode(part))
        for part in resampler.resample(None):
            out.mux(track.encode(part))
        out.mux(track.encode(None))
    return target


def _picture(path: Path, quality: int, target: Path) -> Path:
    picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if picture is None or not cv2.imwrite(str(target), picture, [cv2.IMWRITE_JPEG_QUALITY, quality]):
        raise ValueError("the picture cannot be read")
    return target
