"""One pass yields the pictures that a straightforward reader does, which decodes everything and takes them by index."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from clipwarden.models.faces import FaceDetector
from clipwarden.models.views import prepare
from clipwarden.shared.contracts import FrameNeed, Kernel, SamplingPlan, ViewPlan
from clipwarden.shared.media.container import opened
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.index import PacketIndex
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.probing import probe_container
from tests.streams import CODINGS, FRAMES, write_coded

NEED = FrameNeed(view="frame", count=1, size_px=32)
SUBSETS = (1, 2, 3, 6, 20)

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Reference:
    """Every picture of a clip by index, as shown, and when, in seconds from the start of the stream."""

    path: Path
    pictures: list[Picture]
    times_s: list[float]


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(MediaLimits(threads=1)) as opened_fence:
        yield opened_fence


@pytest.fixture(scope="module")
def faces() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streams")


@cache
def reference(folder: Path, name: str) -> Reference:
    coding = CODINGS[name]
    path = write_coded(folder / f"{list(CODINGS).index(name)}{coding.suffix}", coding)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        frames = list(container.decode(stream))
        start_s = float(stream.start_time * stream.time_base)
    turns = coding.rotation_deg // 90
    pictures = [np.rot90(frame.to_ndarray(format="rgb24"), turns) for frame in frames]
    return Reference(path, pictures, [float(frame.time) - start_s for frame in frames])


def plan_of(indices: Sequence[int]) -> SamplingPlan:
    return SamplingPlan(views=(ViewPlan(need=NEED, frame_indices=tuple(indices)),))


def assert_equal_shots(fence: Fence, known: Reference, indices: Sequence[int]) -> None:
    with fence.open(known.path) as media_file:
        shots = [(shot.index, shot.time_s, shot.image.copy()) for shot in media_file.read(plan_of(indices))]
    assert [index for index, _, _ in shots] == list(indices)
    for index, time_s, image in shots:
        np.testing.assert_array_equal(image, known.pictures[index], err_msg=f"frame {index} of {list(indices)}")
        assert time_s == pytest.approx(known.times_s[index], abs=1e-4)


@pytest.mark.parametrize("name", CODINGS)
def test_every_frame_equals_the_plain_reader_s(fence: Fence, folder: Path, name: str) -> None:
    known = reference(folder, name)
    assert len(known.pictures) == FRAMES - CODINGS[name].hidden
    assert_equal_shots(fence, known, range(len(known.pictures)))


@pytest.mark.parametrize("name", CODINGS)
def test_any_few_frames_equal_the_plain_reader_s(fence: Fence, folder: Path, name: str) -> None:
    known, rng = reference(folder, name), random.Random(name)
    for size in SUBSETS:
        assert_equal_shots(fence, known, sorted(rng.sample(range(len(known.pictures)), size)))


@pytest.mark.parametrize("name", ["H.264 open groups", "HEVC open groups"])
def test_each_frame_alone_equals_the_plain_reader_s(fence: Fence, folder: Path, name: str) -> None:
    known = reference(folder, name)
    for index in range(1, len(known.pictures), 3):
        assert_equal_shots(fence, known, [index])


@pytest.mark.parametrize(
    ("name", "wanted", "most"),
    [
        ("H.264 pyramid", [59], 20),
        ("H.264 strict pyramid", [30], 20),
        ("H.264 open groups", [50], 52),
        ("HEVC", [55], 10),
        ("HEVC temporal layers", [59], 24),
        ("VP9 without hidden frames", [59], 12),
        ("H.264 uneven", [5, 59], 40),
        ("MJPEG", [3, 50], 2),
    ],
)
def test_few_frames_cost_few_packets(folder: Path, name: str, wanted: list[int], most: int) -> None:
    path, index = reference(folder, name).path, PacketIndex()
    with path.open("rb") as stream, opened(stream, path.stat().st_size, MediaLimits().max_pixels) as container:
        probe_container(container, path.stat().st_size, MediaLimits(), index)
    feed = index.feed(wanted)
    assert feed is not None
    assert len(wanted) <= feed.needed.sum() <= most


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_frame(folder: Path, threads: int) -> None:
    with Fence(MediaLimits(threads=threads, parallel_pixels=0)) as fence:
        for name in ("H.264 pyramid", "HEVC open groups", "VP9", "MPEG-4 in AVI"):
            assert_equal_shots(fence, reference(folder, name), [0, 9, 30, 31, 50, 59])
            assert_equal_shots(fence, reference(folder, name), range(FRAMES))


PILLOW = {Kernel.PIL_BILINEAR: Image.Resampling.BILINEAR, Kernel.PIL_BICUBIC: Image.Resampling.BICUBIC}
OPENCV = {Kernel.CV2_AREA: cv2.INTER_AREA, Kernel.CV2_LINEAR: cv2.INTER_LINEAR}


@pytest.mark.parametrize("size_px", [32, 80])
@pytest.mark.parametrize("kernel", Kernel)
def test_each_view_is_the_frame_under_its_library_s_kernel(
    fence: Fence, faces: FaceDetector, folder: Path, kernel: Kernel, size_px: int
) -> None:
    known, indices = reference(folder, "turned 90"), (0, 11, 12, 50)
    need = FrameNeed(view="frame", count=len(indices), size_px=size_px, kernel=kernel)
    with fence.open(known.path) as media_file:
        sampling = SamplingPlan(views=(ViewPlan(need=need, frame_indices=indices),))
        view = prepare(media_file, sampling, faces).view(need)
    assert view.frames.tolist() == list(indices)
    for index, image in zip(indices, view.images, strict=True):
        picture = np.ascontiguousarray(known.pictures[index])
        if kernel in OPENCV:
            expected = cv2.resize(picture, (size_px, size_px), interpolation=OPENCV[kernel])
            np.testing.assert_array_equal(image, expected)
        else:
            expected = np.asarray(Image.fromarray(picture).resize((size_px, size_px), PILLOW[kernel]))
            assert np.abs(image.astype(int) - expected).max() <= 1
