"""The eight ways a picture can lie, against Pillow and against FFmpeg's display matrix."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from clipwarden.shared.contracts import FrameNeed, SamplingPlan, ViewPlan
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.orientation import Orientation, from_exif, from_matrix
from clipwarden.shared.media.stills import MAKE, ORIENTATION, exif_tags, is_cut, quantisation

PLAN = SamplingPlan(views=(ViewPlan(need=FrameNeed(view="frame", count=1, size_px=32), frame_indices=(0,)),))


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(MediaLimits()) as opened:
        yield opened


def tiff(orientation: int, order: str = ">", make: bytes = b"Camera Works") -> bytes:
    """An EXIF directory with an orientation and a maker, whose text lies behind it."""
    opening = b"MM\0*" if order == ">" else b"II*\0"
    directory = struct.pack(order + "IHHHIHHHHII", 8, 2, ORIENTATION, 3, 1, orientation, 0, MAKE, 2, len(make) + 1, 38)
    return opening + directory + bytes(4) + make + b"\0"


def picture() -> np.ndarray:
    """Smooth, no side like another."""
    y, x = np.mgrid[0:48, 0:80]
    return np.dstack([2 * x, 3 * y, x + y]).astype(np.uint8)


def written(suffix: str, exif: bytes) -> bytes:
    """A still with an EXIF block where the format has its place for it."""
    plain = cv2.imencode(suffix, cv2.cvtColor(picture(), cv2.COLOR_RGB2BGR))[1].tobytes()
    if suffix == ".jpg":
        block = b"Exif\0\0" + exif
        return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    if suffix == ".png":
        chunk = b"eXIf" + exif
        return plain[:33] + struct.pack(">I", len(exif)) + chunk + struct.pack(">I", zlib.crc32(chunk)) + plain[33:]
    extended = b"VP8X" + struct.pack("<IB3x", 10, 8) + struct.pack("<I", 79)[:3] + struct.pack("<I", 47)[:3]
    body = b"WEBP" + extended + plain[12:] + b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_still_is_turned_and_mirrored_as_pillow_does(
    fence: Fence, tmp_path: Path, suffix: str, orientation: int
) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(written(suffix, tiff(orientation)))
    with fence.open(path) as opened:
        (shown,) = (shot.image.copy() for shot in opened.read(PLAN))
        expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        assert (opened.probe.height, opened.probe.width) == expected.shape[:2] == shown.shape[:2]
        assert opened.probe.mirrored == (orientation in {2, 4, 5, 7})
    assert np.abs(shown.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_mirroring_comes_before_turning(orientation: int) -> None:
    lies = from_exif(memoryview(written(".png", tiff(orientation))))
    assert lies is not None
    mirrored = picture()[:, ::-1] if lies.mirrored else picture()
    assert np.array_equal(np.rot90(mirrored, lies.degrees // 90), lies.apply(picture()))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_display_matrix_is_read_as_ffmpeg_writes_it(degrees: int, mirrored: bool) -> None:
    """A turn as av_display_rotation_set writes it, then left and right changed as av_display_matrix_flip does."""
    angle = np.deg2rad(degrees)
    a, b = round(np.cos(angle) * 65536), round(np.sin(angle) * 65536)
    sign = -1 if mirrored else 1
    matrix = struct.pack("<9i", sign * a, -b, 0, sign * b, a, 0, 0, 0, 1 << 30)
    turned = np.rot90(picture(), degrees // 90)
    assert np.array_equal(from_matrix(matrix).apply(picture()), turned[:, ::-1] if mirrored else turned)


def test_exif_is_read_in_both_byte_orders_and_with_its_texts() -> None:
    for order in ("<", ">"):
        tags = exif_tags(memoryview(written(".jpg", tiff(6, order))))
        assert tags == {ORIENTATION: 6, MAKE: "Camera Works"}


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    assert from_exif(memoryview(written(".jpg", tiff(orientation)))) is None


def test_a_shortened_matrix_is_upright() -> None:
    assert from_matrix(b"\0" * 20) == Orientation()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_damaged_headers_are_never_an_error(suffix: str) -> None:
    rng = np.random.default_rng(3)
    whole = np.frombuffer(written(suffix, tiff(6)), np.uint8)
    for _ in range(400):
        damaged = whole[: rng.integers(0, len(whole))].copy()
        places = rng.integers(0, max(min(len(damaged), 120), 1), 6)[: len(damaged)]
        damaged[places] = rng.integers(0, 256, len(places))
        content = memoryview(damaged.tobytes())
        assert isinstance(exif_tags(content), dict)
        assert all(len(table) == 64 for table in quantisation(content))
        assert is_cut(content) in {True, False}


def test_quantisation_tables_are_those_that_pillow_reads() -> None:
    content = written(".jpg", tiff(1))
    with Image.open(io.BytesIO(content)) as opened:
        natural = opened.quantization
    found = quantisation(memoryview(content))
    assert [sorted(table) for table in found] == [sorted(natural[i]) for i in sorted(natural)]


def test_a_thumbnail_does_not_end_a_picture() -> None:
    thumbnail = cv2.imencode(".jpg", picture()[::4, ::4])[1].tobytes()
    whole = written(".jpg", tiff(1) + thumbnail)
    assert not is_cut(memoryview(whole))
    assert is_cut(memoryview(whole[:-400]))
