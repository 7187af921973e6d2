"""Traces of coding in streams of which it is known how they were made, against FFmpeg's own reading of them."""

import io
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from clipwarden.shared.contracts import MediaProbe
from clipwarden.shared.hints import hints
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.notes import Notes
from clipwarden.shared.media.provenance import libjpeg_quality, period
from clipwarden.shared.probe import EncoderNote, MediaKind, Provenance
from tests import media
from tests.streams import FRAMES, HEIGHT, WIDTH, Coding, write_coded

KEY, CLEAN, REFERENCED = 1, 2, 4


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(MediaLimits(threads=1)) as opened:
        yield opened


@pytest.fixture(scope="module")
def first() -> bytes:
    """Faces, coded in groups of 15."""
    return coded(faces(), "libx264", {"g": "15", "bf": "0", "crf": "28", "sc_threshold": "0", "preset": "veryfast"})


def traces(fence: Fence, path: Path) -> Provenance:
    found = fence.probe(path).provenance
    assert found is not None
    return found


def codes(fence: Fence, path: Path) -> set[str]:
    return {hint.code for hint in hints(fence.probe(path))}


def coded(frames: Iterator[av.VideoFrame], codec: str, options: dict[str, str], tags: Mapping[str, str] = {}) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"movflags": "use_metadata_tags"}) as out:
        out.metadata.update(tags)
        stream = out.add_stream(codec, rate=25, options=options)
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for i, frame in enumerate(frames):
            if i == 0:
                stream.width, stream.height = frame.width, frame.height
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def faces(count: int = 240) -> Iterator[av.VideoFrame]:
    for picture in media.faces(count, 192, 144):
        yield av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")


def decoded(content: bytes) -> Iterator[av.VideoFrame]:
    with av.open(io.BytesIO(content)) as opened:
        for frame in opened.decode(video=0):
            yield av.VideoFrame.from_ndarray(frame.to_ndarray(), format="yuv420p")


@pytest.mark.parametrize(
    "coding",
    [
        Coding("libx264", private="keyint=20:min-keyint=20:scenecut=0:bframes=3"),
        Coding("libx265", private="keyint=20:min-keyint=20:scenecut=0:bframes=3:open-gop=0"),
        Coding("mpeg4", options="bf=2 g=20"),
    ],
    ids=lambda coding: coding.codec,
)
def test_types_sizes_and_groups_are_those_that_ffmpeg_finds(fence: Fence, tmp_path: Path, coding: Coding) -> None:
    path = write_coded(tmp_path / "x.mp4", coding)
    found = traces(fence, path)
    with av.open(str(path)) as plain:
        sizes, types, keys = {}, {}, []
        for packet in plain.demux(video=0):
            if packet.size:
                keys += [len(sizes)] if packet.is_keyframe else []
                sizes[packet.pts] = packet.size
            types |= {frame.pts: "?IPB"[int(frame.pict_type)] for frame in packet.decode()}
    for name, told in found.pictures.items():
        expected = [sizes[stamp] for stamp, kind in types.items() if kind == name]
        assert told.count == len(expected)
        assert told.mean_bytes == pytest.approx(np.mean(expected), abs=0.1)
        assert told.deviation_bytes == pytest.approx(np.std(expected), abs=0.1)
    assert sum(told.count for told in found.pictures.values()) == FRAMES
    assert found.groups is not None
    assert (found.groups.count, found.groups.longest) == (len(keys) - 1, max(np.diff(keys)))
    assert found.groups.closed == (0 if coding.codec == "mpeg4" else len(keys) - 1)
    assert found.bits_per_pixel == pytest.approx(8 * sum(sizes.values()) / (WIDTH * HEIGHT * FRAMES), rel=0.01)


def test_vectors_measure_a_known_motion(fence: Fence, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ground = cv2.GaussianBlur(rng.integers(0, 256, (240, 520), np.uint8), (5, 5), 0)

    def pan() -> Iterator[av.VideoFrame]:
        for i in range(30):
            grey = np.dstack([ground[:, 5 * i : 5 * i + 320]] * 3)
            yield av.VideoFrame.from_ndarray(grey, format="rgb24").reformat(format="yuv420p")

    path = tmp_path / "pan.mp4"
    path.write_bytes(coded(pan(), "libx264", {"bf": "0", "x264-params": "ref=1:scenecut=0:keyint=99"}))
    motion = traces(fence, path).motion
    assert motion is not None
    assert motion.pictures == 15
    assert motion.median_px == pytest.approx(5, abs=0.25)
    assert motion.moving > 0.8
    assert motion.predicted > 0.9


def test_a_picture_that_stands_still_is_said_to(fence: Fence, tmp_path: Path) -> None:
    frame = next(faces(1)).to_ndarray()
    stands = (av.VideoFrame.from_ndarray(frame, format="yuv420p") for _ in range(30))
    path = tmp_path / "still.mp4"
    path.write_bytes(coded(stands, "libx264", {"bf": "0"}))
    assert "nothing_moves" in codes(fence, path)


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"crf": "23", "bf": "0", "g": "250", "preset": "veryfast"}),
        ("libx264", {"b": "200000", "g": "48", "bf": "2", "preset": "veryfast"}),
    ],
)
def test_a_second_coding_shows_the_groups_of_the_first(
    fence: Fence, tmp_path: Path, first: bytes, codec: str, options: dict[str, str]
) -> None:
    once, twice = tmp_path / "once.mp4", tmp_path / "twice.mp4"
    once.write_bytes(coded(faces(), codec, options))
    twice.write_bytes(coded(decoded(first), codec, options))
    assert traces(fence, once).period == 0
    assert traces(fence, twice).period == 15
    assert ("recompressed" in codes(fence, once), "recompressed" in codes(fence, twice)) == (False, True)


def test_chance_makes_no_period() -> None:
    rng = np.random.default_rng(11)
    for _ in range(40):
        sizes = rng.lognormal(8, 0.5, 900).astype(np.int64)
        types, roles = np.full(900, 1, np.uint8), np.full(900, REFERENCED, np.uint8)
        types[::250], roles[::250] = 0, KEY | CLEAN | REFERENCED
        assert period(sizes, types, roles) == 0


def test_what_repeats_with_the_groups_of_the_stream_is_explained_by_them() -> None:
    rng = np.random.default_rng(12)
    sizes = rng.lognormal(8, 0.2, 900).astype(np.int64)
    sizes[12::48] *= 3
    types, roles = np.full(900, 1, np.uint8), np.full(900, REFERENCED, np.uint8)
    types[::48], roles[::48] = 0, KEY | CLEAN | REFERENCED
    assert period(sizes, types, roles) == 0
    types[::48], roles[::48] = 1, REFERENCED
    assert period(sizes, types, roles) == 48


def test_the_encoder_and_its_settings_are_named(fence: Fence, tmp_path: Path) -> None:
    path = write_coded(tmp_path / "x.mp4", Coding("libx264", private="keyint=33:bframes=1"))
    found = traces(fence, path)
    assert found.notes[0].text.startswith("x264 core")
    assert (found.settings["keyint"], found.settings["bframes"], found.openings) == ("33", "1", 1)
    assert codes(fence, path) == {"re_encoded"}
    found = traces(fence, write_coded(tmp_path / "y.mp4", Coding("libx265", private="keyint=33:bframes=1")))
    assert (found.notes[0].text[:4], found.settings["keyint"]) == ("x265", "33")


def test_a_camera_and_software_in_one_file_are_pointed_out(fence: Fence, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(coded(faces(20), "libx264", {}, {"com.android.version": "14"}))
    assert "camera_and_software" in codes(fence, path)


def test_parts_that_were_encoded_apart_are_counted(fence: Fence, tmp_path: Path) -> None:
    part = write_coded(tmp_path / "x.ts", Coding("libx264", ".ts", private="keyint=20")).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(part * 3)
    assert traces(fence, path).openings == 3
    assert "joined_parts" in codes(fence, path)


def test_a_cut_without_encoding_is_pointed_out(fence: Fence, tmp_path: Path) -> None:
    path = write_coded(tmp_path / "x.mp4", Coding("libx264", private="keyint=24:bframes=3", hidden=7))
    assert "cut_without_encoding" in codes(fence, path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"settings": {"keyint": "20"}, "groups": (1, 1, 60, 60, 60)}, {"settings_contradicted"}),
        ({"settings": {"keyint": "60"}, "groups": (1, 1, 60, 60, 60)}, set()),
        ({"settings": {"bframes": "0"}, "b": 9}, {"settings_contradicted"}),
        ({"settings": {"bframes": "2"}, "b": 9}, set()),
        ({"settings": {"keyint": "infinite"}, "groups": (1, 1, 60, 60, 60)}, set()),
    ],
)
def test_settings_are_held_against_the_stream(changes: dict[str, object], expected: set[str]) -> None:
    names = ("count", "closed", "shortest", "median", "longest")
    groups = dict(zip(names, changes["groups"], strict=True)) if "groups" in changes else None
    pictures = {"B": {"count": 9, "mean_bytes": 10.0, "deviation_bytes": 1.0}} if "b" in changes else {}
    found = Provenance.model_validate({"settings": changes["settings"], "groups": groups, "pictures": pictures})
    assert {hint.code for hint in hints(probe_with(found))} == expected


def probe_with(found: Provenance) -> MediaProbe:
    return MediaProbe(
        kind=MediaKind.VIDEO,
        container="mov",
        duration_s=1,
        width=64,
        height=64,
        fps=25,
        frames=25,
        has_video=True,
        has_audio=False,
        size_bytes=1,
        provenance=found,
    )


@pytest.mark.parametrize("quality", [30, 75, 92, 100])
def test_the_quality_of_a_jpeg_is_told(fence: Fence, tmp_path: Path, quality: int) -> None:
    path = tmp_path / "x.jpg"
    assert cv2.imwrite(str(path), next(media.faces(1)), [cv2.IMWRITE_JPEG_QUALITY, quality])
    found = traces(fence, path)
    assert (found.tables, found.quality) == ("libjpeg", quality)


def test_tables_of_another_maker_have_no_quality() -> None:
    assert libjpeg_quality((tuple(range(1, 65)),)) is None
    assert libjpeg_quality(()) is None


def test_a_photograph_that_was_saved_again_is_pointed_out() -> None:
    camera = EncoderNote(place="exif", key="make", text="Camera Works")
    found = Provenance(notes=(camera,), tables="libjpeg", quality=90)
    assert {hint.code for hint in hints(probe_with(found))} == {"resaved"}
    assert not hints(probe_with(Provenance(notes=(camera,), tables="other")))


def test_notes_are_short_printable_and_few() -> None:
    notes = Notes()
    notes.read_tags("container", {"encoder": "\x1b[31mred\x00\u202e" + "x" * 5000, "software": "\n\t", "MAKE": "Ωmega"})
    for i in range(50):
        notes.add("video", "encoder", f"encoder {i}")
    listed = [EncoderNote.model_validate(one) for one in notes.listed()]
    assert len(listed) == 8
    assert listed[0].text == "[31mred " + "x" * 32
    assert listed[1].text == "mega"


def test_the_largest_provenance_is_small() -> None:
    sizes = {"count": 500_000, "mean_bytes": 123456789.1, "deviation_bytes": 123456789.1}
    motion = {"pictures": 24, "predicted": 0.1234, "moving": 0.1234, "median_px": 127.75, "p95_px": 127.75}
    names = ("count", "closed", "shortest", "median", "longest")
    found = Provenance.model_validate(
        {
            "pictures": dict.fromkeys("IPB", sizes),
            "groups": dict.fromkeys(names, 500_000),
            "motion": motion,
            "bits_per_pixel": 123.4567,
            "hidden_pictures": 500_000,
            "notes": [{"place": "container", "key": "com.apple.quicktime.software", "text": "x" * 40}] * 8,
            "settings": {f"setting {i:03}": "x" * 16 for i in range(12)},
            "openings": 500_000,
            "period": 300,
            "tables": "libjpeg",
            "quality": 100,
        }
    )
    assert len(found.model_dump_json()) < 3000
    assert all(len(hint.text) < 250 for hint in hints(probe_with(found)))
