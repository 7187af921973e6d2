"""Sound as files have it, through the reader that workers use: every rate and layout gets a score or a reason."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import resample_poly

from clipwarden.models.assess import assess, load
from clipwarden.models.faces import FaceDetector
from clipwarden.models.pipeline import local_manifest
from clipwarden.models.run import part, read_clip, restricted
from clipwarden.models.selftest import self_test
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import Branch, BranchResult, OutcomeStatus
from clipwarden.shared.media.fence import Fence
from clipwarden.shared.media.limits import MediaLimits
from tests import media
from tests.sounds import music

MANIFEST = restricted(local_manifest(), frozenset({"cqcc_cnn"}))


@pytest.fixture(scope="module")
def fence() -> Iterator[Fence]:
    with Fence(MediaLimits(threads=1)) as opened_fence:
        yield opened_fence


@pytest.fixture(scope="module")
def faces() -> FaceDetector:
    return FaceDetector()


@pytest.fixture
def judged(fence, faces):
    """What the audio branch makes of a file: its result, or the code it is skipped for before it starts."""

    def judge(path: Path) -> BranchResult | SkipCode:
        read = read_clip(fence, path, MANIFEST, faces)
        if Branch.AUDIO in read.skipped:
            return read.skipped[Branch.AUDIO]
        ready = MANIFEST.ready(Branch.AUDIO)
        return assess(Branch.AUDIO, part(read.clip, ready), [load(entry, "cpu") for entry in ready])

    return judge


def written(path: Path, wave: NDArray[np.int16], rate_hz: int, layout: str = "mono") -> Path:
    """The same wave, resampled, on every channel of a PCM track."""
    samples = resample_poly(wave.astype(np.float64), rate_hz, media.RATE_HZ).astype(np.int16)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("pcm_s16le", rate=rate_hz, layout=layout)
        interleaved = np.repeat(samples, stream.channels).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="s16", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("rate_hz", "layout"), [(8_000, "mono"), (44_100, "stereo"), (48_000, "5.1"), (192_000, "mono")]
)
def test_any_rate_and_layout_is_judged_from_end_to_end(judged, tmp_path, rate_hz, layout):
    result = judged(written(tmp_path / "sound.wav", media.speech(5, seed=1), rate_hz, layout))
    assert result.status is OutcomeStatus.OK
    evidence = result.detectors[0].evidence
    assert evidence.windows[0].start_s == 0
    assert evidence.facts["heard_s"] == pytest.approx(5, abs=0.05)
    assert evidence.facts["speech_share"] > 0.5


def test_six_channels_of_one_voice_score_as_one(judged, tmp_path):
    wave = media.speech(5, seed=1)
    one, six = (
        judged(written(tmp_path / f"{layout}.wav", wave, 48_000, layout)).detectors[0].evidence.score
        for layout in ("mono", "5.1")
    )
    assert six == pytest.approx(one, abs=0.1)


def test_a_clip_without_a_sound_track_says_so(judged, mute_clip):
    assert judged(mute_clip) is SkipCode.NO_AUDIO


def test_digital_silence_is_told(judged, silent_clip):
    assert judged(silent_clip) is SkipCode.SILENT_AUDIO


def test_a_third_of_a_second_is_too_short(judged, tmp_path):
    assert judged(media.write_sound(tmp_path / "short.wav", media.speech(0.3))) is SkipCode.AUDIO_TOO_SHORT


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".ogg"])
def test_music_alone_is_no_speech(judged, tmp_path, suffix):
    result = judged(media.write_sound(tmp_path / f"music{suffix}", music(8)))
    assert (result.status, result.code) == (OutcomeStatus.SKIPPED, SkipCode.NO_SPEECH)


@pytest.mark.parametrize(("frames", "seconds"), [(100, 2), (25, 6)])
def test_sound_shorter_or_longer_than_the_picture_is_judged_in_its_own_time(judged, tmp_path, frames, seconds):
    path = media.write_clip(tmp_path / "clip.mp4", media.scenery(frames), media.speech(seconds, seed=2))
    evidence = judged(path).detectors[0].evidence
    assert evidence.facts["heard_s"] == pytest.approx(seconds, abs=0.15)
    assert evidence.windows[-1].end_s == pytest.approx(seconds, abs=0.15)


def test_the_workers_test_of_themselves_is_speech():
    self_test(Branch.AUDIO, [load(entry, "cpu") for entry in MANIFEST.ready(Branch.AUDIO)])
