import io
from dataclasses import dataclass

import av
import numpy as np
import pytest

from clipwarden.shared.media.bitstream import UNKNOWN, Framing, PacketKind, framing_of, kind
from clipwarden.shared.media.units import Bits
from tests import media

av.logging.set_level(None)
TYPES = {1: "I", 2: "P", 3: "B"}
LAYERED = "log-level=none:pools=none:frame-threads=1:keyint=20:temporal-layers=3:bframes=4"


@dataclass(frozen=True, slots=True)
class Stream:
    """An encoded stream: the kind of each packet by time stamp in the order of decoding, and FFmpeg's type of each."""

    kinds: dict[int, PacketKind]
    types: dict[int, str]
    pictures: dict[int, bytes]
    packets: list[bytes]
    framing: Framing
    codec: str
    content: bytes

    def decoded(self, wanted: range | list[int]) -> dict[int, bytes]:
        """Pictures by time stamp, from the packets at these places alone."""
        pictures: dict[int, bytes] = {}
        places = set(wanted)
        with av.open(io.BytesIO(self.content)) as opened:
            for i, packet in enumerate(opened.demux(video=0)):
                if i in places or not packet.size:
                    pictures |= {frame.pts: frame.to_ndarray().tobytes() for frame in packet.decode()}
        return pictures


def encoded(encoder: str, container: str, options: dict[str, str], count: int = 48) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(encoder, rate=25, width=160, height=128, options=options)
        stream.pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
        stream.thread_count = 1
        for i, picture in enumerate(media.faces(count, 160, 128)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def stream_of(encoder: str, container: str, options: dict[str, str]) -> Stream:
    content = encoded(encoder, container, options)
    with av.open(io.BytesIO(content)) as opened:
        video = opened.streams.video[0]
        context = video.codec_context
        framing = framing_of(context.codec.canonical_name, context.extradata or b"")
        kinds, types, pictures, packets = {}, {}, {}, []
        for packet in opened.demux(video):
            if packet.size:
                packets.append(bytes(packet))
                kinds[packet.pts] = kind(context.name, memoryview(packet), framing=framing)
            for frame in packet.decode():
                types[frame.pts] = TYPES[int(frame.pict_type)]
                pictures[frame.pts] = frame.to_ndarray().tobytes()
        return Stream(kinds, types, pictures, packets, framing, context.name, content)


STREAMS = {
    "H.264, B pictures": ("libx264", "mp4", {"g": "12", "bf": "3"}),
    "H.264, B pyramid, open groups, slices": (
        "libx264",
        "mp4",
        {"x264-params": "keyint=20:min-keyint=20:bframes=4:b-pyramid=normal:open-gop=1:slices=3"},
    ),
    "H.264, start codes": ("libx264", "mpegts", {"x264-params": "keyint=20:bframes=2"}),
    "H.265": ("libx265", "mp4", {"x265-params": "log-level=none:pools=none:frame-threads=1:keyint=20:bframes=4"}),
    "H.265, closed groups, start codes": (
        "libx265",
        "mpegts",
        {"x265-params": "log-level=none:pools=none:frame-threads=1:keyint=20:open-gop=0"},
    ),
    "VP8": ("libvpx", "webm", {"g": "20", "cpu-used": "8"}),
    "VP9": ("libvpx-vp9", "webm", {"g": "20", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "MPEG-4": ("mpeg4", "avi", {"bf": "2", "g": "12"}),
    "MPEG-2": ("mpeg2video", "mpegts", {"bf": "2", "g": "12"}),
    "MJPEG": ("mjpeg", "avi", {}),
}


@pytest.fixture(scope="module")
def streams() -> dict[str, Stream]:
    return {name: stream_of(*how) for name, how in STREAMS.items()}


@pytest.mark.parametrize("name", STREAMS)
def test_types_are_those_that_ffmpeg_decodes(streams: dict[str, Stream], name: str) -> None:
    stream = streams[name]
    assert len(stream.types) == 48
    assert {stamp: one.picture_type for stamp, one in stream.kinds.items()} == stream.types
    assert {one.pictures for one in stream.kinds.values()} == {1}


def test_av1_types_are_those_that_ffmpeg_decodes_where_a_packet_shows_its_own_picture() -> None:
    stream = stream_of("libsvtav1", "mp4", {"g": "20", "preset": "12"})
    told = {stamp: one.picture_type for stamp, one in stream.kinds.items() if one.picture_type}
    assert len(told) >= 24
    assert all(stream.types[stamp] == found for stamp, found in told.items())
    assert [stamp for stamp, one in stream.kinds.items() if one.clean_start] == [
        stamp for stamp, found in stream.types.items() if found == "I"
    ]


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("H.264, B pictures", 4),
        ("H.264, B pyramid, open groups, slices", 1),
        ("H.264, start codes", 3),
        ("H.265", 1),
        ("H.265, closed groups, start codes", 3),
        ("VP8", 3),
        ("VP9", 3),
        ("MPEG-4", 0),
        ("MJPEG", 48),
    ],
)
def test_decoding_may_begin_at_each_clean_start(streams: dict[str, Stream], name: str, starts: int) -> None:
    stream = streams[name]
    found = [i for i, one in enumerate(stream.kinds.values()) if one.clean_start]
    assert len(found) == starts
    for begin in found[1:5]:
        rest = stream.decoded(range(begin, len(stream.packets)))
        assert set(rest) == set(list(stream.kinds)[begin:])
        assert all(stream.pictures[stamp] == picture for stamp, picture in rest.items())


@pytest.mark.parametrize("name", [name for name in STREAMS if name.startswith(("H.26", "MPEG"))])
def test_nothing_is_lost_without_an_unreferenced_picture(streams: dict[str, Stream], name: str) -> None:
    stream = streams[name]
    kinds = list(stream.kinds.values())
    kept = [i for i, one in enumerate(kinds) if one.referenced]
    assert len(kept) < 0.8 * len(kinds)
    rest = stream.decoded(kept)
    assert {list(stream.kinds)[i] for i in kept} == set(rest)
    assert all(stream.pictures[stamp] == picture for stamp, picture in rest.items())


def test_temporal_layers_are_told() -> None:
    stream = stream_of("libx265", "mp4", {"x265-params": LAYERED})
    assert {one.temporal_id for one in stream.kinds.values()} >= {0, 1}
    assert all(one.temporal_id == 0 for one in stream.kinds.values() if one.picture_type == "I")


def test_an_empty_mpeg4_picture_shows_nothing() -> None:
    # A P picture of 25 Hz (5 bits of time) that is not coded: type 01, no second passed, marker, time, marker, 0.
    bits = "01" + "0" + "1" + "00010" + "1" + "0"
    packet = b"\0\0\1\xb6" + int(bits.ljust(16, "0"), 2).to_bytes(2, "big")
    assert kind("mpeg4", memoryview(packet), framing=Framing(time_bits=5)) == PacketKind("P", pictures=0)


def test_exponential_golomb_codes_are_those_of_the_standard() -> None:
    bits = Bits(int("1 010 011 00100 00111 000010000 1".replace(" ", "").ljust(32, "0"), 2).to_bytes(4, "big"))
    assert [bits.golomb() for _ in range(7)] == [0, 1, 2, 3, 6, 15, 0]
    with pytest.raises(EOFError):
        Bits(bytes(4)).golomb()


@pytest.mark.parametrize("codec", ["h264", "hevc", "mpeg4", "mpeg2video", "vp8", "vp9", "av1", "mjpeg", "nothing"])
def test_random_bytes_are_only_unknown(codec: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(400):
        noise = rng.integers(0, 256, rng.integers(0, 90), np.uint8).tobytes()
        for head in (b"", b"\0\0\1", b"\0\0\1\x65", b"\0\0\1\xb6", b"\x12\0", b"\0\0\0\x05"):
            found = kind(codec, memoryview(head + noise), None)
            framed = kind(codec, memoryview(head + noise), int(rng.integers(1, 5)))
            assert {type(found), type(framed)} == {PacketKind}
            assert isinstance(framing_of(codec, head + noise), Framing)
    assert kind(codec, memoryview(b""), None).clean_start is False


@pytest.mark.parametrize("name", STREAMS)
def test_damaged_packets_are_never_an_error(streams: dict[str, Stream], name: str) -> None:
    rng = np.random.default_rng(6)
    stream = streams[name]
    for packet in stream.packets[:24]:
        damaged = np.frombuffer(packet, np.uint8).copy()
        damaged[rng.integers(0, min(len(damaged), 64), 8)] ^= rng.integers(1, 256, 8).astype(np.uint8)
        for cut in (0, 1, 3, 7, 20, len(damaged)):
            assert isinstance(
                kind(stream.codec, memoryview(damaged[:cut].tobytes()), framing=stream.framing), PacketKind
            )


def test_a_packet_whose_lengths_do_not_fit_is_unknown(streams: dict[str, Stream]) -> None:
    stream = streams["H.264, B pictures"]
    assert kind("h264", memoryview(stream.packets[-1][:-1]), 4) == UNKNOWN
    assert kind("h264", memoryview(bytes(4 * 65)), 4) == UNKNOWN
