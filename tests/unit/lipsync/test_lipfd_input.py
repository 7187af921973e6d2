"""LipFD's input against the libraries and steps of its published program."""

import cv2
import librosa
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from clipwarden.models.lipsync.lipfd_input import columns, joined, mel_picture, seen
from tests.media import silence, speech
from tests.networks import pictures

TOLERANCE = 255e-4  # of a picture of 255 levels


def _heard(wave):
    return wave.astype(np.float32) / 32768


@pytest.mark.parametrize("rate_hz", [22_050, 16_000])
@pytest.mark.parametrize(
    "wave", [speech(3, seed=2), speech(0.5), np.tile([9000, -9000], 4000)], ids=["3s", "s", "tone"]
)
def test_the_picture_of_sound_is_that_of_librosa_and_matplotlib(wave, rate_hz, tmp_path):
    heard = _heard(wave)
    levels = librosa.power_to_db(librosa.feature.melspectrogram(y=heard, sr=rate_hz), ref=np.min)
    plt.imsave(tmp_path / "mel.png", levels)
    expected = (plt.imread(tmp_path / "mel.png") * 255).astype(np.uint8)[..., :3]
    found = mel_picture(heard, rate_hz)
    assert found.dtype == np.uint8
    assert np.ptp(found.astype(int)) > 100
    np.testing.assert_array_equal(found, expected)


def test_silence_is_one_colour():
    assert len(np.unique(mel_picture(_heard(silence(1)), 22_050).reshape(-1, 3), axis=0)) == 1


def test_a_window_takes_the_columns_of_the_original():
    assert columns(0, 100, 130) == (0, round(5 * 1.3))
    assert columns(95, 100, 130) == (round(95 * 1.3), 130)
    assert columns(9, 40, 22) == (5, 8)


def test_sound_lies_above_five_frames_in_a_row():
    sound, frames = pictures(1, 128, seed=1)[0][:, :9], pictures(5, 500, seed=2)
    found = joined(sound, frames)
    assert found.shape == (1000, 2500, 3)
    np.testing.assert_array_equal(found[:500], cv2.resize(sound, (2500, 500)))
    for k in range(5):
        np.testing.assert_array_equal(found[500:, k * 500 : (k + 1) * 500], frames[k])


def _scaled(levels, side_px):
    """OpenCV's bilinear kernel in double precision, which does not smooth either."""
    return cv2.resize(levels, (side_px, side_px), interpolation=cv2.INTER_LINEAR)


def test_the_network_sees_what_the_original_shows_it():
    picture = joined(pictures(1, 128, seed=3)[0][:, :7], pictures(5, 500, seed=4))
    wholes, crops = seen(picture[None], torch.device("cpu"), torch.float32)
    levels = np.ascontiguousarray(picture[..., ::-1]).astype(np.float64)
    expected = []
    for i in range(5):
        whole = _scaled(np.ascontiguousarray(levels[500:, i : i + 500]), 224)
        face, lips = (_scaled(np.ascontiguousarray(whole[a:b, a:b]), 224) for a, b in ((28, 196), (61, 163)))
        expected.append([whole, face, lips])
    assert crops.shape == (1, 5, 3, 3, 224, 224)
    np.testing.assert_allclose(crops[0].permute(0, 1, 3, 4, 2), np.array(expected), atol=TOLERANCE)
    np.testing.assert_allclose(wholes[0].permute(1, 2, 0), _scaled(levels, 1120), atol=TOLERANCE)
