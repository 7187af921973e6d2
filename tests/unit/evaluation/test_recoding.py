"""A file encoded once more is the same file, worse."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clipwarden.models.training.evaluation.recoding import recoded
from clipwarden.shared.contracts import FrameNeed, MediaKind, SamplingPlan, ViewPlan
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(MediaLimits()) as opened:
        yield opened


def first_frame(fence: Fence, path: Path) -> np.ndarray:
    need = FrameNeed(view="frame", count=1, size_px=64)
    with fence.open(path) as media:
        return next(s.image.copy() for s in media.read(SamplingPlan(views=(ViewPlan(need=need, frame_indices=(0,)),))))


def test_a_clip_keeps_its_length_and_sound_and_loses_detail(fence: Fence, talking_head: Path, tmp_path: Path) -> None:
    sizes, losses = [], []
    original = first_frame(fence, talking_head).astype(float)
    for strength in range(3):
        path = recoded(talking_head, MediaKind.VIDEO, strength, tmp_path)
        probe = fence.probe(path)
        assert (probe.frames, probe.width, probe.height, probe.video_codec) == (75, 320, 320, "h264")
        assert probe.has_audio
        assert probe.duration_s == pytest.approx(3, abs=0.15)
        sizes.append(path.stat().st_size)
        losses.append(float(np.abs(first_frame(fence, path) - original).mean()))
    assert sizes == sorted(sizes, reverse=True)
    assert losses == sorted(losses)
    assert losses[0] > 0


def test_a_turned_clip_stays_turned(fence: Fence, rotated_clip: Path, tmp_path: Path) -> None:
    before, after = (fence.probe(p) for p in (rotated_clip, recoded(rotated_clip, MediaKind.VIDEO, 0, tmp_path)))
    assert (after.width, after.height, after.rotation_deg) == (before.width, before.height, before.rotation_deg)


def test_sound_and_pictures_are_encoded_too(fence: Fence, wav: Path, still: Path, tmp_path: Path) -> None:
    sound = fence.probe(recoded(wav, MediaKind.AUDIO, 1, tmp_path))
    picture = fence.probe(recoded(still, MediaKind.IMAGE, 2, tmp_path))
    assert (sound.audio_codec, sound.duration_s) == ("mp3float", pytest.approx(3, abs=0.2))
    assert (picture.kind, picture.width) == (MediaKind.IMAGE, 320)


@pytest.mark.parametrize("kind", MediaKind)
def test_what_cannot_be_decoded_is_the_files_fault(tmp_path: Path, kind: MediaKind) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"no film" * 50)
    with pytest.raises(MediaError, match="re-encoding"):
        recoded(path, kind, 0, tmp_path)
