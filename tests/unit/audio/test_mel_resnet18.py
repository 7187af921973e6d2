"""The mel ResNet-18: its files under both layouts, its numbers against double precision, its input against librosa."""

import copy

import librosa
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from clipwarden.models.audio.mel_resnet18 import MelNetwork, MelResNet18
from clipwarden.models.checkpoint import parameter_count, settle
from clipwarden.models.weights import WeightFile, weights_table
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.errors import DetectorError, NotApplicable, WorkerFault
from tests.media import RATE_HZ, speech
from tests.networks import made, write_weights
from tests.sounds import clip_of, music, noise


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def weights(folder):
    return write_weights("mel_resnet18", folder)


@pytest.fixture(scope="module")
def detector(weights):
    return MelResNet18.load(weights, "cpu")


def written(folder, state):
    path = folder / "other.safetensors"
    save_file(state, path)
    return WeightFile(path, "sha256:0")


def seed_input(wave):
    """The model specifications' own lines: pad or cut four seconds at the start, mel, decibels."""
    wave = wave.astype(np.float32) / 32768
    wave = np.pad(wave, (0, 64_000 - len(wave))) if len(wave) < 64_000 else wave[:64_000]
    mel = librosa.feature.melspectrogram(y=wave, sr=16_000, n_fft=1024, hop_length=256, n_mels=80)
    return librosa.power_to_db(mel, ref=np.max)[np.newaxis, np.newaxis, ...]


def sounds_seen():
    """What the seed makes of sounds that differ, (5, 1, 80, 251)."""
    return np.concatenate([seed_input(wave) for wave in (speech(4), speech(9, 1), speech(2.2, 2), music(4), noise(4))])


def exact_logits(windows):
    """Synthetic less real, by the network in double precision."""
    network = made("mel_resnet18")
    try:
        with torch.inference_mode():
            real, synthetic = network.double().classifier(network.embed(torch.from_numpy(windows).double())).numpy().T
    finally:
        network.float()
    return synthetic - real


def test_it_has_11_236_162_parameters():
    assert parameter_count(MelNetwork()) == parameter_count(MelNetwork("head")) == 11_236_162
    assert MelResNet18.spec.parameters == weights_table()["mel_resnet18"].parameters == 11_236_162


def test_names_and_shapes_are_timms():
    shapes = {name: tuple(tensor.shape) for name, tensor in MelNetwork().state_dict().items()}
    assert shapes["backbone.conv1.weight"] == (64, 1, 7, 7)
    assert shapes["backbone.layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert shapes["backbone.layer4.1.bn2.running_var"] == (512,)
    assert shapes["classifier.1.weight"] == (128, 512)
    assert shapes["classifier.3.weight"] == (2, 128)
    assert not any(name.startswith("backbone.fc") for name in shapes)


def test_logits_of_the_seeds_input_are_those_of_double_precision(detector):
    windows = sounds_seen()
    expected = exact_logits(windows)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(detector.predict(windows[:, 0]), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("seconds", [1.0, 2.7, 4.0, 9.3])
def test_the_first_window_is_judged_as_the_original_judged_the_clip(detector, seconds):
    wave = speech(seconds, seed=3)
    first = detector.assess(clip_of(wave)).windows[0]
    expected = 1 / (1 + np.exp(-exact_logits(seed_input(wave))[0]))
    assert first.score == pytest.approx(expected, abs=2e-4)
    assert (first.start_s, first.end_s) == (0, min(seconds, 4))


def test_a_longer_clip_is_judged_in_windows_that_overlap(detector):
    wave = speech(9, seed=4)
    evidence = detector.assess(clip_of(wave))
    assert [(w.start_s, w.end_s) for w in evidence.windows] == [(0, 4), (2, 6), (4, 8), (5, 9)]
    expected = exact_logits(np.concatenate([seed_input(wave[round(w.start_s * RATE_HZ) :]) for w in evidence.windows]))
    assert evidence.score == pytest.approx(1 / (1 + np.exp(-expected.mean())), abs=2e-4)
    assert evidence.features == {"mel_resnet18_prob_fake": evidence.score}


def test_a_clip_of_many_minutes_is_judged_from_its_first_to_its_last_second(detector):
    windows = detector.assess(clip_of(np.tile(speech(10), 30))).windows
    assert len(windows) == 20
    assert (windows[0].start_s, windows[-1].end_s) == (0, 300)


def test_music_is_reported_and_not_judged(detector):
    with pytest.raises(NotApplicable) as skip:
        detector.assess(clip_of(music(8)))
    assert skip.value.code == SkipCode.NO_SPEECH


def test_the_deployed_layout_loads_and_gives_the_same_logits(detector, weights, folder):
    state = {name.replace("classifier.", "head."): tensor for name, tensor in load_file(weights.path).items()}
    other = MelResNet18.load(written(folder, state), "cpu")
    window = seed_input(speech(4))[0]
    np.testing.assert_array_equal(other.predict(window), detector.predict(window))


def test_a_training_programs_file_loads(weights, folder, detector):
    path = folder / "audio_detector.pt"
    torch.save({"epoch": 3, "model_state_dict": load_file(weights.path)}, path)
    window = seed_input(speech(4))[0]
    loaded = MelResNet18.load(WeightFile(path, "sha256:0"), "cpu")
    np.testing.assert_array_equal(loaded.predict(window), detector.predict(window))


@pytest.mark.parametrize("layout", ["classifier", "head"])
def test_a_file_that_does_not_fit_is_refused_with_every_difference(weights, folder, layout):
    state = {name.replace("classifier.", f"{layout}."): tensor for name, tensor in load_file(weights.path).items()}
    del state["backbone.layer3.1.bn1.weight"]
    state[f"{layout}.3.weight"] = torch.zeros(3, 128)
    state["backbone.conv1.weight"] = torch.zeros(64, 3, 7, 7)
    state["backbone.fc.weight"] = torch.zeros(1000, 512)
    with pytest.raises(WorkerFault) as fault:
        MelResNet18.load(written(folder, state), "cpu")
    message = str(fault.value)
    assert "missing backbone.layer3.1.bn1.weight" in message
    assert "unknown backbone.fc.weight" in message
    assert f"{layout}.3.weight is (3, 128), not (2, 128)" in message
    assert "backbone.conv1.weight is (64, 3, 7, 7), not (64, 1, 7, 7)" in message


def test_a_file_with_both_layouts_is_refused(weights, folder):
    state = load_file(weights.path)
    twice = {name.replace("classifier.", "head."): tensor.clone() for name, tensor in state.items()}
    with pytest.raises(WorkerFault, match=r"unknown classifier\.1\.bias"):
        MelResNet18.load(written(folder, state | twice), "cpu")


def test_windows_of_several_clips_share_a_batch(detector):
    windows = np.concatenate([seed_input(speech(4, seed))[0] for seed in range(3)])
    apart = np.concatenate([detector.predict(windows[k : k + 1]) for k in range(3)])
    np.testing.assert_allclose(detector.predict(windows), apart, atol=1e-4 * np.abs(apart).max())


def test_windows_of_another_size_are_an_error(detector):
    with pytest.raises(DetectorError, match="log-mel windows must be"):
        detector.predict(np.zeros((1, 80, 250), np.float32))


def test_bfloat16_keeps_the_direction_of_every_embedding_and_the_logits(weights, detector):
    windows = sounds_seen()
    exact, short = copy.deepcopy(made("mel_resnet18")), copy.deepcopy(made("mel_resnet18"))
    settle(exact, "cpu")
    settle(short, "cpu", "bfloat16", ("classifier",))
    with torch.inference_mode():
        a = exact.embed(torch.from_numpy(windows)).double()
        b = short.embed(torch.from_numpy(windows).bfloat16()).double()
    assert torch.cosine_similarity(a, b).min() >= 0.999
    rough = MelResNet18.load(weights, "cpu", "bfloat16").predict(windows[:, 0])
    logits = detector.predict(windows[:, 0])
    assert not np.array_equal(rough, logits)
    np.testing.assert_allclose(rough, logits, atol=0.03 * np.ptp(logits))
