from collections.abc import Callable

import numpy as np
import pytest

from clipwarden.models.plan import plan
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import (
    AudioNeed,
    Branch,
    DetectorState,
    FrameNeed,
    Manifest,
    ManifestDetector,
    MediaKind,
    MediaProbe,
    Needs,
    SamplingPlan,
    SoundPlan,
)

DIGEST = "sha256:" + "0" * 64
FACES = FrameNeed(view="face", count=8, size_px=64, margin=0.3)
PICTURES = FrameNeed(view="frame", count=4, size_px=32)


def detector(
    branch: Branch, state: DetectorState = DetectorState.READY, **needs: FrameNeed | AudioNeed
) -> ManifestDetector:
    weights = DIGEST if state is DetectorState.READY else None
    return ManifestDetector(
        name=f"{branch}-{len(needs)}", version="1", branch=branch, state=state, weights=weights, needs=Needs(**needs)
    )


def manifest(*detectors: ManifestDetector) -> Manifest:
    return Manifest(detectors=detectors, faces="test", fusion=DIGEST)


ALL = manifest(
    detector(Branch.VISUAL, frames=FACES),
    detector(Branch.AUDIO, audio=AudioNeed(seconds=60, min_seconds=1)),
    detector(Branch.LIPSYNC, frames=FACES, audio=AudioNeed(seconds=10, min_seconds=2)),
    detector(Branch.CLIP, frames=PICTURES),
)


@pytest.fixture
def probe() -> Callable[..., MediaProbe]:
    def make(**changes: object) -> MediaProbe:
        video = {
            "kind": MediaKind.VIDEO, "container": "mov", "duration_s": 4.0, "width": 320, "height": 240, "fps": 25.0,
            "frames": 100, "has_video": True, "has_audio": True, "size_bytes": 1000,
        }  # fmt: skip
        return MediaProbe.model_validate(video | changes)

    return make


def test_equal_needs_share_one_view(probe: Callable[..., MediaProbe]) -> None:
    sampling, skips = plan(probe(), ALL)
    assert skips == {}
    assert [view.need for view in sampling.views] == [FACES, PICTURES]
    assert sampling.sounds == (SoundPlan(sample_rate_hz=16_000, spans=((0.0, 4.0),)),)


def test_frames_are_spread_from_the_first_to_the_last(probe: Callable[..., MediaProbe]) -> None:
    sampling, _ = plan(probe(), ALL)
    assert sampling.views[0].frame_indices == (0, 14, 28, 42, 56, 70, 84, 99)
    assert sampling.views[1].frame_indices == (0, 33, 66, 99)


@pytest.mark.parametrize("frames", [121, 250, 9001])
def test_frames_are_those_that_the_originals_take(probe: Callable[..., MediaProbe], frames: int) -> None:
    """SIGLIP-LSTM's loader: `np.linspace(0, total - 1, min(total, 120), dtype=int)`."""
    original = np.linspace(0, frames - 1, min(frames, 120), dtype=int)
    need = FrameNeed(view="frame", count=120, size_px=224)
    assert sampled(probe(frames=frames), need).frame_indices == tuple(original.tolist())


@pytest.mark.parametrize(("frames", "expected"), [(1, (0,)), (3, (0, 1, 2)), (8, tuple(range(8)))])
def test_a_short_clip_gives_each_frame_once(
    probe: Callable[..., MediaProbe], frames: int, expected: tuple[int, ...]
) -> None:
    assert plan(probe(frames=frames), ALL)[0].views[0].frame_indices == expected


def test_a_clip_without_sound_skips_what_listens(probe: Callable[..., MediaProbe]) -> None:
    sampling, skips = plan(probe(has_audio=False), ALL)
    assert skips == {Branch.AUDIO: SkipCode.NO_AUDIO, Branch.LIPSYNC: SkipCode.NO_AUDIO}
    assert sampling.sounds == ()


def test_a_still_is_seen_but_not_heard(probe: Callable[..., MediaProbe]) -> None:
    sampling, skips = plan(probe(kind=MediaKind.IMAGE, frames=1, has_audio=False, duration_s=0), ALL)
    assert set(skips) == {Branch.AUDIO, Branch.LIPSYNC}
    assert all(view.frame_indices == (0,) for view in sampling.views)


def test_an_audio_file_is_heard_but_not_seen(probe: Callable[..., MediaProbe]) -> None:
    sampling, skips = plan(probe(kind=MediaKind.AUDIO, frames=0, has_video=False, width=0, height=0), ALL)
    assert skips == dict.fromkeys((Branch.VISUAL, Branch.LIPSYNC, Branch.CLIP), SkipCode.NOT_APPLICABLE)
    assert sampling.views == ()
    assert len(sampling.sounds) == 1


def test_sound_shorter_than_needed_is_skipped(probe: Callable[..., MediaProbe]) -> None:
    assert plan(probe(duration_s=1.5), ALL)[1] == {Branch.LIPSYNC: SkipCode.AUDIO_TOO_SHORT}


def test_a_branch_says_why_it_cannot_run(probe: Callable[..., MediaProbe]) -> None:
    some = manifest(
        detector(Branch.VISUAL, DetectorState.DISABLED),
        detector(Branch.AUDIO, DetectorState.DISABLED),
        detector(Branch.AUDIO, DetectorState.NO_WEIGHTS, audio=AudioNeed(seconds=1)),
        detector(Branch.LIPSYNC, DetectorState.NO_WEIGHTS),
    )
    sampling, skips = plan(probe(), some)
    assert skips == {
        Branch.VISUAL: SkipCode.DISABLED,
        Branch.AUDIO: SkipCode.DISABLED,
        Branch.LIPSYNC: SkipCode.NO_WEIGHTS,
        Branch.CLIP: SkipCode.NO_WEIGHTS,
    }
    assert sampling.frame_indices == ()


def sampled(probe: MediaProbe, *needs: FrameNeed | AudioNeed) -> SamplingPlan:
    entries = [
        detector(Branch.LIPSYNC, **{"audio" if isinstance(need, AudioNeed) else "frames": need}) for need in needs
    ]
    return plan(probe, manifest(*entries))[0]


def test_windows_of_consecutive_frames_touch_both_ends(probe: Callable[..., MediaProbe]) -> None:
    windows = FrameNeed(view="frame", count=3, size_px=32, consecutive=5)
    assert sampled(probe(), windows).frame_indices == (0, 1, 2, 3, 4, 47, 48, 49, 50, 51, 95, 96, 97, 98, 99)


@pytest.mark.parametrize(("frames", "expected"), [(4, ()), (5, tuple(range(5))), (7, tuple(range(7)))])
def test_a_clip_shorter_than_its_windows_gives_each_frame_once_or_none(
    probe: Callable[..., MediaProbe], frames: int, expected: tuple[int, ...]
) -> None:
    windows = FrameNeed(view="frame", count=10, size_px=32, consecutive=5)
    assert sampled(probe(frames=frames), windows).frame_indices == expected


def test_a_very_long_clip_costs_no_more_frames_and_no_more_sound(probe: Callable[..., MediaProbe]) -> None:
    windows, heard = FrameNeed(view="frame", count=10, size_px=32, consecutive=5), AudioNeed(seconds=60, window_s=4)
    long = sampled(probe(frames=432_000, duration_s=7200.0), windows, heard)
    assert len(long.frame_indices) == 50
    assert long.frame_indices[-1] == 431_999
    spans = long.sounds[0].spans
    assert (len(spans), spans[0], spans[-1]) == (15, (0.0, 4.0), (7196.0, 7200.0))
    assert sum(end - start for start, end in spans) == pytest.approx(60)


def test_spans_that_touch_are_read_once(probe: Callable[..., MediaProbe]) -> None:
    needs = AudioNeed(seconds=10), AudioNeed(seconds=16, window_s=8)
    assert sampled(probe(duration_s=20.0), *needs).sounds[0].spans == ((0.0, 10.0), (12.0, 20.0))


def test_each_sample_rate_is_planned_by_itself(probe: Callable[..., MediaProbe]) -> None:
    needs = AudioNeed(seconds=2), AudioNeed(seconds=3, sample_rate_hz=22_050)
    assert [(s.sample_rate_hz, s.spans) for s in sampled(probe(), *needs).sounds] == [
        (16_000, ((0.0, 2.0),)),
        (22_050, ((0.0, 3.0),)),
    ]
