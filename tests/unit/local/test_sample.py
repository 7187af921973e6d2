"""The sample clip and its voice: reproducible, seen as a face, heard as sound, and quiet about MoviePy."""

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest

from clipwarden.models.faces import FaceDetector
from clipwarden.shared.contracts import Label
from clipwarden.shared.local import sample
from clipwarden.shared.local.voice import SAMPLE_RATE_HZ, loudness, speak


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    return sample.render_sample(tmp_path_factory.mktemp("sample") / "sample.mp4")


@pytest.fixture(scope="module")
def pictures(rendered):
    with av.open(rendered.path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def sound(rendered):
    return samples_of(rendered.path)


def samples_of(path):
    with av.open(path) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def test_the_sample_is_the_clip_its_facts_describe(rendered, pictures):
    with av.open(rendered.path) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert float(video.average_rate) == sample.FPS
        assert float(audio.duration * audio.time_base) == pytest.approx(rendered.duration_s, abs=0.1)
    assert len(pictures) == rendered.duration_s * sample.FPS
    assert pictures[0].shape == (sample.SIDE_PX, sample.SIDE_PX, 3)
    assert rendered.expected is Label.FAKE


def test_rendering_again_gives_the_same_pictures_and_samples(rendered, pictures, sound, tmp_path):
    again = sample.render_sample(tmp_path / "again.mp4")
    with av.open(again.path) as container:
        digests = [digest(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert digests == [digest(picture) for picture in pictures]
    assert digest(samples_of(again.path)) == digest(sound)


def test_rendering_leaves_nothing_but_the_clip(rendered):
    assert list(rendered.path.parent.iterdir()) == [rendered.path]


def test_a_face_is_found_in_most_pictures(pictures):
    seen = FaceDetector().detect(pictures[::25])
    assert sum(bool(faces) for faces in seen) >= 0.8 * len(seen)


def test_the_picture_moves(pictures):
    steps = [np.abs(a.astype(int) - b).mean() for a, b in zip(pictures[::5], pictures[5::5], strict=False)]
    assert min(steps) > 0.5


def test_the_mouth_opens_with_the_voice(pictures, sound):
    level = loudness(sound[0], per_second=sample.FPS)[: len(pictures)]
    distances = [np.abs(picture[150:350, 200:440] - sample.INSIDE_RGB).max(axis=2) for picture in pictures]
    opened = [np.count_nonzero(distance < 20) for distance in distances]
    assert np.corrcoef(opened, level)[0, 1] > 0.6
    assert max(opened) > 200


def test_the_sound_is_audible_and_has_pauses(sound):
    level = loudness(sound[0], per_second=25)
    assert np.sqrt(np.mean(sound**2)) > 0.05
    assert np.mean(level > 0.1) > 0.5
    assert level.min() < 0.02


def test_the_voice_has_the_pitch_of_speech_and_formants_that_move():
    wave = speak(2.0, seed=1)
    voiced = wave[int(0.1 * SAMPLE_RATE_HZ) :][: SAMPLE_RATE_HZ // 2]
    echo = np.correlate(voiced, voiced, mode="full")[len(voiced) - 1 :]
    lags = np.arange(SAMPLE_RATE_HZ // 300, SAMPLE_RATE_HZ // 120)
    assert 150 < SAMPLE_RATE_HZ / lags[np.argmax(echo[lags])] < 260
    halves = [np.abs(np.fft.rfft(wave[i : i + 1600] * np.hanning(1600))) for i in range(0, 32000 - 1600, 1600)]
    loudest = [np.argmax(half[20:]) for half in halves if half.max() > 1]
    assert len(set(loudest)) > 3


def test_another_seed_speaks_differently_and_the_same_seed_alike():
    assert np.array_equal(speak(0.5, seed=3), speak(0.5, seed=3))
    assert not np.array_equal(speak(0.5, seed=3), speak(0.5, seed=4))


def test_the_portrait_comes_with_scikit_image():
    import skimage

    packaged = Path(skimage.__file__).parent / "data" / "astronaut.png"
    assert packaged.is_file()


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
