"""One pass yields the sound that a straightforward reader does, which decodes all of it, resamples it once and cuts."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import correlate, resample_poly

from clipwarden.shared.clip import Sound
from clipwarden.shared.contracts import FrameNeed, SamplingPlan, SoundPlan, Span, ViewPlan
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from tests import media

SOUNDS = {
    "AAC 44.1 kHz stereo": ("aac", ".m4a", 44_100, "stereo"),
    "AAC 16 kHz mono": ("aac", ".mp4", 16_000, "mono"),
    "Opus": ("libopus", ".webm", 48_000, "stereo"),
    "FLAC": ("flac", ".flac", 48_000, "mono"),
    "PCM": ("pcm_s16le", ".wav", 22_050, "mono"),
    "MP3": ("libmp3lame", ".mp3", 44_100, "stereo"),
    "AC-3 5.1": ("ac3", ".mkv", 48_000, "5.1"),
}
SECONDS = 9
NEED = FrameNeed(view="frame", count=2, size_px=32)


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(MediaLimits(threads=1)) as opened_fence:
        yield opened_fence


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sounds")


@cache
def sound_file(folder: Path, name: str) -> Path:
    """Nine seconds of speech in the named coding."""
    codec, suffix, rate_hz, layout = SOUNDS[name]
    path = folder / f"sound {list(SOUNDS).index(name)}{suffix}"
    frame = av.AudioFrame.from_ndarray(media.speech(SECONDS).reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate, frame.pts = media.RATE_HZ, 0
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate_hz, layout=layout)
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


@cache
def straight(path: Path, rate_hz: int) -> NDArray[np.int16]:
    """All sound decoded, then resampled in one go: mono int16."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
    with av.open(str(path)) as container:
        pieces = [piece for frame in [*container.decode(audio=0), None] for piece in _resampled(resampler, frame)]
    return np.concatenate(pieces)


def _resampled(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> list[NDArray[np.int16]]:
    if frame is not None:
        frame.pts = None
    return [piece.to_ndarray().reshape(-1) for piece in resampler.resample(frame)]


def heard(fence: Fence, path: Path, rate_hz: int, *spans: Span) -> Sound:
    with fence.open(path) as media_file:
        plan = SamplingPlan(sounds=(SoundPlan(sample_rate_hz=rate_hz, spans=spans),))
        assert list(media_file.read(plan)) == []
        return media_file.sounds[rate_hz]


@pytest.mark.parametrize("rate_hz", [16_000, 22_050])
@pytest.mark.parametrize("name", SOUNDS)
def test_whole_sound_equals_a_straight_decode(fence: Fence, folder: Path, name: str, rate_hz: int) -> None:
    path = sound_file(folder, name)
    expected = straight(path, rate_hz)
    sound = heard(fence, path, rate_hz, (0.0, float(SECONDS + 1)))
    np.testing.assert_array_equal(sound.wave, expected)


@pytest.mark.parametrize("rate_hz", [16_000, 22_050])
@pytest.mark.parametrize("name", SOUNDS)
def test_spans_of_sound_equal_a_straight_decode(fence: Fence, folder: Path, name: str, rate_hz: int) -> None:
    path, spans = sound_file(folder, name), ((0.0, 1.0), (3.7, 4.2), (4.25, 5.0), (7.9, 8.6))
    expected = straight(path, rate_hz)
    sound = heard(fence, path, rate_hz, *spans)
    assert sound.starts_s == pytest.approx([start for start, _ in spans], abs=1 / rate_hz)
    assert sound.lengths == pytest.approx([(end - start) * rate_hz for start, end in spans], abs=2)
    stretches = np.split(sound.wave, np.cumsum(sound.lengths)[:-1])
    for start_s, stretch in zip(sound.starts_s, stretches, strict=True):
        first = round(start_s * rate_hz)
        delay_s, likeness = alignment(stretch, expected[first : first + len(stretch)], rate_hz)
        assert likeness > 0.999
        assert abs(delay_s) <= CLOCK_S.get(path.suffix, 0) + 0.5 / rate_hz


CLOCK_S = {".webm": 0.001, ".mkv": 0.001}
"""Containers that tell times in milliseconds only: where a pass begins anew, it can be no more exact than they are."""


def alignment(wave: NDArray[np.int16], expected: NDArray[np.int16], rate_hz: int) -> tuple[float, float]:
    """By how many seconds a stretch lies late, at an eighth of a sample, and its correlation when that is undone."""
    fine, known = (resample_poly(samples.astype(np.float64), 8, 1) for samples in (wave, expected))
    most = round(0.002 * rate_hz) * 8
    middle = fine[most:-most]
    first = int(np.argmax(correlate(known, middle, mode="valid", method="fft")))
    return (most - first) / 8 / rate_hz, float(np.corrcoef(middle, known[first : first + len(middle)])[0, 1])


def test_sound_that_starts_late_is_preceded_by_silence(fence: Fence, tmp_path: Path) -> None:
    path = write_late_sound(tmp_path / "late.mkv", seconds=0.8)
    sound = heard(fence, path, 16_000, (0.0, 10.0))
    lead = round(0.8 * 16_000)
    assert not sound.wave[:lead].any()
    np.testing.assert_array_equal(sound.wave[lead:], straight(path, 16_000))


def test_pictures_keep_their_distance_from_earlier_sound(fence: Fence, tmp_path: Path) -> None:
    path = write_late_sound(tmp_path / "late.mkv", seconds=-0.8)
    with fence.open(path) as media_file:
        times_s = [
            shot.time_s for shot in media_file.read(SamplingPlan(views=(ViewPlan(need=NEED, frame_indices=(0, 5)),)))
        ]
    assert times_s == pytest.approx([0.8, 1.0], abs=0.002)


def write_late_sound(path: Path, seconds: float) -> Path:
    """Pictures and, so many seconds later, sound; earlier if negative. Uncompressed, so that nothing is padded."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, width=64, height=64)
        video.pix_fmt = "yuv420p"
        audio = out.add_stream("pcm_s16le", rate=media.RATE_HZ, layout="mono")
        wave = av.AudioFrame.from_ndarray(media.speech(1).reshape(1, -1), format="s16", layout="mono")
        wave.sample_rate, wave.pts = media.RATE_HZ, round(max(seconds, 0) * media.RATE_HZ)
        out.mux(audio.encode(wave))
        for i, picture in enumerate(media.scenery(25, 64, 64)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i + round(max(-seconds, 0) * 25)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        out.mux(audio.encode())
    return path
