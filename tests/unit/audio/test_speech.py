"""The speech network against the program that its package ships, and what it takes for speech."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from clipwarden.models.audio import speech as module
from clipwarden.models.audio.listening import LEAST_SPEECH
from clipwarden.models.audio.speech import CHUNK, FILE, speech_network
from clipwarden.shared.errors import WorkerFault
from tests.media import speech
from tests.sounds import music, noise


def waves(wave):
    return wave.astype(np.float32) / 32768


@pytest.fixture(scope="module")
def original():
    """The package's own program: one chunk after the other, its state kept inside."""
    folder = Path(find_spec("silero_vad").submodule_search_locations[0])
    with pytest.warns(DeprecationWarning, match="torch.jit.load"):
        return torch.jit.load(folder / FILE)


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 12 * 16_000])
def test_probabilities_are_those_of_the_original_chunk_by_chunk(original, samples):
    wave = waves(np.concatenate([speech(5), music(3), noise(1), speech(3, seed=5)])[:samples])
    original.reset_states()
    chunks = torch.from_numpy(np.pad(wave, (0, -len(wave) % CHUNK)).reshape(-1, CHUNK))
    with torch.inference_mode():
        expected = [original(chunk, 16_000).item() for chunk in chunks]
        found = speech_network()(torch.from_numpy(wave)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_speech_is_heard(seed):
    assert speech_network().hears(waves(speech(4, seed))).mean() > 0.5


@pytest.mark.parametrize("wave", [music(6), noise(4), np.zeros(64_000, np.int16)], ids=["music", "noise", "silence"])
def test_what_is_not_speech_is_not_heard(wave):
    assert speech_network().hears(waves(wave)).mean() < 0.05


def test_two_voices_at_once_are_speech():
    assert speech_network().hears(waves(speech(4, 1) // 2 + speech(4, 2) // 2)).mean() > 2 * LEAST_SPEECH


def test_a_chunk_is_heard_in_its_place():
    heard = speech_network().hears(waves(np.concatenate([np.zeros(32_000, np.int16), speech(2), music(3)])))
    at = np.flatnonzero(heard) * CHUNK / 16_000
    assert 1.9 <= at.min() < 2.5
    assert at.max() < 4.3


def test_the_number_of_threads_is_left_alone():
    before = torch.get_num_threads()
    speech_network.cache_clear()
    speech_network()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PACKAGE", "no_such_package_here", "not installed"),
        ("FILE", "data/no_such_file.jit", "cannot be read"),
        ("FILE", "data/silero_vad.onnx", "is not that of silero-vad 6.2.3"),
    ],
)
def test_another_network_is_refused(monkeypatch, name, value, message):
    monkeypatch.setattr(module, name, value)
    speech_network.cache_clear()
    with pytest.raises(WorkerFault, match=message):
        speech_network()
