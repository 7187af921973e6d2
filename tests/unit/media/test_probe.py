"""What a probe says of whole files, and what becomes of broken ones: every row of the table in `probing`."""

import io
import json
import re
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from clipwarden.shared.cli import main
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import FrameNeed, MediaKind, SamplingPlan, ViewPlan
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media import probing
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from tests import media
from tests.streams import CODINGS, FRAMES, HEIGHT, WIDTH, Coding, scene, write_coded

NEED = FrameNeed(view="frame", count=8, size_px=32)
GROUPS = "keyint=15:min-keyint=15:scenecut=0:bframes=2"


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(MediaLimits(threads=1)) as opened:
        yield opened


def encoded(
    path: Path, codec: str, pix_fmt: str = "yuv420p", rate: Fraction = Fraction(25), **attributes: object
) -> Path:
    """The scene; attributes are those of PyAV's encoder context."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, width=WIDTH, height=HEIGHT)
        stream.pix_fmt, stream.thread_count = pix_fmt, 1
        for name, value in attributes.items():
            setattr(stream.codec_context, name, value)
        for i, picture in enumerate(scene()):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = i, 1 / rate
            for name in attributes.keys() & {"color_primaries", "color_trc"}:
                setattr(frame, name, attributes[name])
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("coding", "codec"),
    [
        ("H.264", "h264"),
        ("HEVC", "hevc"),
        ("VP9", "vp9"),
        ("AV1", "libdav1d"),
        ("MPEG-4 in AVI", "mpeg4"),
        ("MJPEG", "mjpeg"),
    ],
)
def test_each_codec_is_probed(fence: Fence, tmp_path: Path, coding: str, codec: str) -> None:
    probe = fence.probe(write_coded(tmp_path / f"x{CODINGS[coding].suffix}", CODINGS[coding]))
    assert (probe.video_codec, probe.kind, probe.frames) == (codec, MediaKind.VIDEO, FRAMES)
    assert (probe.width, probe.height, probe.pixel_aspect) == (WIDTH, HEIGHT, (1, 1))
    assert (probe.variable_frame_rate, probe.interlaced, probe.repairs, probe.audio_streams) == (False, False, (), 0)
    assert probe.fps == pytest.approx(25, rel=0.05)
    assert probe.header_duration_s == pytest.approx(probe.duration_s, abs=0.1)
    assert probe.colour is not None
    assert (probe.colour.bit_depth, probe.colour.hdr) == (8, False)
    assert probe.provenance is not None
    assert sum(sizes.count for sizes in probe.provenance.pictures.values()) >= FRAMES / 2
    assert probe.provenance.groups is not None


def test_an_uneven_rate_is_called_variable_and_rounded_time_stamps_are_not(fence: Fence, tmp_path: Path) -> None:
    uneven = write_coded(tmp_path / "x.mkv", CODINGS["H.264 uneven, Matroska"])
    rounded = encoded(tmp_path / "y.mkv", "libx264", rate=Fraction(30000, 1001))
    assert fence.probe(uneven).variable_frame_rate
    probe = fence.probe(rounded)
    assert not probe.variable_frame_rate
    assert probe.fps == pytest.approx(29.97, abs=0.02)


@pytest.mark.parametrize(("transfer", "name"), [(16, "pq"), (18, "hlg")])
def test_a_high_dynamic_range_is_told(fence: Fence, tmp_path: Path, transfer: int, name: str) -> None:
    options = {"x265-params": f"log-level=none:colorprim=9:transfer={transfer}:colormatrix=9:range=limited"}
    path = encoded(tmp_path / "x.mp4", "libx265", "yuv420p10le", options=options, color_primaries=9, color_trc=transfer)
    colour = fence.probe(path).colour
    assert colour is not None
    assert (colour.pixel_format, colour.bit_depth, colour.hdr) == ("yuv420p10le", 10, True)
    assert (colour.primaries, colour.transfer) == ("bt2020", name)


def test_interlaced_pictures_are_told(fence: Fence, tmp_path: Path) -> None:
    assert fence.probe(write_coded(tmp_path / "x.mp4", CODINGS["H.264 interlaced"])).interlaced


def test_pixels_that_are_not_square_are_told_and_read_as_they_are_stored(fence: Fence, tmp_path: Path) -> None:
    path = encoded(tmp_path / "x.mp4", "libx264", sample_aspect_ratio=Fraction(16, 11))
    with fence.open(path) as opened:
        shots = [s.image.shape for s in opened.read(SamplingPlan(views=(ViewPlan(need=NEED, frame_indices=(0,)),)))]
        assert opened.probe.pixel_aspect == (16, 11)
    assert shots == [(HEIGHT, WIDTH, 3)]


def test_every_sound_track_counts_and_the_first_is_described(fence: Fence, tmp_path: Path) -> None:
    path, encoded_sound = tmp_path / "x.mkv", []
    with av.open(str(path), "w") as out:
        for rate, layout in ((48_000, "5.1"), (16_000, "mono")):
            stream = out.add_stream("flac", rate=rate, layout=layout)
            wave = np.zeros((1, rate * stream.channels), np.int16)
            frame = av.AudioFrame.from_ndarray(wave, format="s16", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            encoded_sound.append((stream, frame))
        for stream, frame in encoded_sound:
            out.mux(stream.encode(frame))
        for stream, _ in encoded_sound:
            out.mux(stream.encode())
    probe = fence.probe(path)
    assert (probe.kind, probe.audio_streams, probe.sample_rate_hz) == (MediaKind.AUDIO, 2, 48_000)
    assert (probe.channels, probe.audio_codec) == (6, "flac")
    assert (probe.channel_layout or "").startswith("5.1")
    assert probe.colour is None


def test_a_still_has_colour_and_no_clock(fence: Fence, still: Path) -> None:
    probe = fence.probe(still)
    assert (probe.kind, probe.fps, probe.duration_s, probe.header_duration_s) == (MediaKind.IMAGE, 0.0, 0.0, None)
    assert probe.colour is not None
    assert probe.colour.full_range


def test_the_command_tells_and_goes_on_after_a_refused_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, still: Path, wav: Path
) -> None:
    bad = tmp_path / "[b]bad.mp4"
    bad.write_bytes(b"not media at all" * 9)
    assert main(["probe", str(still), str(bad), str(wav)]) == 1
    out, err = capsys.readouterr()
    assert "mjpeg 320 x 320" in out
    assert "pcm_s16le 16000 Hz" in out
    assert "[b]bad.mp4: The file is not video" in err
    assert main(["probe", "--json", str(wav), str(tmp_path / "absent")]) == 1
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["probe"] and one["probe"]["kind"] for one in told] == ["audio", None]
    assert told[1]["error"]["code"] == "config"


# One made file per row of the table.

Make = Callable[[Path], bytes]


def coded(suffix: str, codec: str = "libx264", private: str = GROUPS, options: str = "") -> Make:
    def make(folder: Path) -> bytes:
        return write_coded(folder / f"made{suffix}", Coding(codec, suffix, options, private)).read_bytes()

    return make


def changed(make: Make, change: Callable[[bytearray], bytes | bytearray | None]) -> Make:
    def changing(folder: Path) -> bytes:
        content = bytearray(make(folder))
        made = change(content)
        return bytes(content if made is None else made)

    return changing


def hide_all(content: bytearray) -> None:
    struct.pack_into(">i", content, content.index(b"elst") + 16, 2**30)


def count_edits(count: int) -> Callable[[bytearray], None]:
    return lambda content: struct.pack_into(">I", content, content.index(b"elst") + 8, count)


def promise(seconds: float) -> Callable[[bytearray], None]:
    """Change the duration in a Matroska header."""
    return lambda content: struct.pack_into(">d", content, content.index(b"\x44\x89\x88") + 3, 1000 * seconds)


def live(content: bytearray) -> bytearray:
    """A Matroska file without cues, of unknown size."""
    at = content.index(b"\x18S\x80g") + 4
    content[at : at + 8] = b"\x01" + b"\xff" * 7
    return content[: content.rindex(b"\x1cS\xbbk")]


def unfinished_avi(content: bytearray) -> bytearray:
    struct.pack_into("<I", content, content.index(b"movi") - 4, 0)
    return content[: content.rindex(b"idx1")]


def unfinished_wav(content: bytearray) -> None:
    struct.pack_into("<I", content, 4, 0)
    struct.pack_into("<I", content, content.index(b"data") + 4, 0xFFFFFFFF)


def point_elsewhere(content: bytearray) -> None:
    at = content.index(b"stco") + 8
    for place in range(at + 4, at + 4 + 4 * struct.unpack_from(">I", content, at)[0], 4):
        struct.pack_into(">I", content, place, struct.unpack_from(">I", content, place)[0] + 1500)


def fragmented(folder: Path) -> bytes:
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "300000"}
    return media.write_clip(folder / "made.mp4", media.faces(75, 160, 160), options=options).read_bytes()


def jumping(folder: Path) -> bytes:
    late = Coding("libx264", ".ts", private=GROUPS, starts_s=50_000)
    return coded(".ts")(folder) + write_coded(folder / "late.ts", late).read_bytes()


def jpeg(folder: Path) -> bytes:
    return media.write_still(folder / "made.jpg", next(media.faces(1))).read_bytes()


def photo_with_film(folder: Path) -> bytes:
    return jpeg(folder) + coded(".mp4")(folder)


def without_key_frame(folder: Path) -> bytes:
    """MPEG-4 of which only the predicted pictures were kept."""
    source = av.open(io.BytesIO(coded(".mp4", private="keyint=infinite:scenecut=0:bframes=0")(folder)))
    path = folder / "predicted.mp4"
    with source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size and not packet.is_keyframe:
                packet.stream = stream
                out.mux(packet)
    return path.read_bytes()


MP4, TS, MKV = coded(".mp4"), coded(".ts"), coded(".mkv")
ROWS: dict[str, Make] = {
    "MP4: an edit list that shows nothing": changed(MP4, hide_all),
    "MP4: an edit list of more than a thousand edits": changed(MP4, count_edits(1001)),
    "MP4, Matroska: a header that promises up to twice": changed(MKV, lambda c: c[: len(c) * 7 // 10]),
    "MP4, Matroska: a header that promises less": changed(MKV, promise(1)),
    "MP4: fragments, the last of them cut": changed(fragmented, lambda c: c[: len(c) * 9 // 10]),
    "Matroska: no cues, no sizes (a live recording)": changed(MKV, live),
    "AVI: no index, or sizes that were never filled in": changed(coded(".avi", "mpeg4", ""), unfinished_avi),
    "MPEG-TS: the first packet is cut": changed(TS, lambda c: c[100:]),
    "MPEG-TS, MPEG-PS, Ogg: a clock that jumps": jumping,
    "MPEG-TS: packets are missing": changed(TS, lambda c: c[: 188 * 40] + c[188 * 50 :]),
    "AVI: H.264 with B pictures, of which it has no times": coded(".avi", private="bframes=2:keyint=24"),
    "WAV: sizes that were never filled in": changed(
        lambda folder: media.write_sound(folder / "made.wav", media.speech(3)).read_bytes(), unfinished_wav
    ),
    "JPEG: cut, at least half of its rows are there": changed(jpeg, lambda c: c[: len(c) * 8 // 10]),
    "more data behind a still (motion photos)": photo_with_film,
    "MP4 without its index (moov): nothing else knows": changed(MP4, lambda c: c[: c.index(b"moov") - 4]),
    "a header that promises more than twice what is there": changed(MKV, promise(400)),
    "JPEG or PNG: less than half is there, or none of it": changed(jpeg, lambda c: c[: len(c) * 3 // 10]),
    "MP4: an index that points elsewhere": changed(MP4, point_elsewhere),
    "no picture can be decoded (no key frame, damaged)": without_key_frame,
    "bytes before the first of the container": changed(MP4, lambda c: bytes(300) + c),
}


def table() -> dict[str, str]:
    """The first words of each row of the module's docstring, and its code."""
    lines = re.findall(r"^ {4}(\S.{54})(?:.* )?([a-z_]+|-)$", probing.__doc__ or "", re.MULTILINE)
    return {words.strip(): code for words, code in lines if not words.startswith("what is wrong")}


def test_the_table_has_a_file_for_each_row() -> None:
    assert set(table()) == set(ROWS)
    assert set(table().values()) - {"-"} >= {"edit_list", "clock_jumps", "truncated", "not_media"}


@pytest.mark.parametrize("row", ROWS)
def test_broken_files_are_repaired_or_rejected_as_the_table_says(fence: Fence, tmp_path: Path, row: str) -> None:
    code, path = table()[row], tmp_path / "broken"
    path.write_bytes(ROWS[row](tmp_path))
    if code in set(RejectCode):
        with pytest.raises(MediaError) as caught:
            fence.probe(path)
        assert caught.value.code == code
        return
    with fence.open(path) as opened:
        wanted = tuple(range(0, opened.probe.frames, 7))
        shots = list(opened.read(SamplingPlan(views=(ViewPlan(need=NEED, frame_indices=wanted),))))
        assert opened.probe.repairs == () if code == "-" else code in opened.probe.repairs
        assert len(shots) >= 0.7 * len(wanted)
        assert [shot.time_s for shot in shots] == sorted(shot.time_s for shot in shots)
        assert all(shot.time_s <= opened.probe.duration_s + 0.1 for shot in shots)


def test_a_clock_that_jumps_is_closed(fence: Fence, tmp_path: Path) -> None:
    path = tmp_path / "jumping.ts"
    path.write_bytes(jumping(tmp_path))
    probe = fence.probe(path)
    assert (probe.frames, probe.fps) == (2 * FRAMES, pytest.approx(25, rel=0.02))
    assert probe.duration_s == pytest.approx(2 * FRAMES / 25, abs=0.2)


def test_pictures_without_times_come_in_the_order_of_display(fence: Fence, tmp_path: Path) -> None:
    path = write_coded(tmp_path / "x.avi", Coding("libx264", ".avi", private="bframes=2:keyint=24"))
    with av.open(str(path)) as plain:
        pictures = [frame.to_ndarray(format="rgb24") for frame in plain.decode(video=0)]
    with fence.open(path) as opened:
        plan = SamplingPlan(views=(ViewPlan(need=NEED, frame_indices=(0, 1, 2, 3, 29, 59)),))
        for shot in opened.read(plan):
            assert np.array_equal(shot.image, pictures[shot.index])
            assert shot.time_s == pytest.approx(shot.index / 25)


def test_what_an_edit_list_leaves_is_what_is_shown(fence: Fence, tmp_path: Path) -> None:
    probe = fence.probe(write_coded(tmp_path / "x.mp4", CODINGS["H.264 hidden start"]))
    assert probe.provenance is not None
    assert (probe.frames, probe.provenance.hidden_pictures, probe.repairs) == (FRAMES - 7, 7, ())


def test_a_whole_picture_with_flat_rows_below_is_not_called_cut(fence: Fence, tmp_path: Path) -> None:
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[:60] = next(media.scenery(1))[:60]
    path = tmp_path / "x.jpg"
    assert cv2.imwrite(str(path), picture)
    assert fence.probe(path).repairs == ()
