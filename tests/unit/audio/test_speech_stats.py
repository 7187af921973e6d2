"""Speech statistics: the numbers are those of their formulas, and the discriminant finds what was put there."""

import csv
import json

import numpy as np
import pytest
import soundfile
import torch
from safetensors.numpy import load_file
from scipy.signal import stft
from scipy.stats import kurtosis, skew

from clipwarden.models.audio import statistics
from clipwarden.models.audio.speech_stats import NEED, SpeechDiscriminant, SpeechStats
from clipwarden.models.audio.statistics import COUNT, describe
from clipwarden.models.checkpoint import parameter_count, save_from
from clipwarden.models.training.card import card_text
from clipwarden.models.training.run_folder import RunFolder
from clipwarden.models.training.speech_stats import Described, StatsRecipe, fit_discriminant
from clipwarden.models.weights import WeightFile, file_digest
from clipwarden.shared.cli import main
from clipwarden.shared.clip import Clip, Sound
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.errors import DetectorError, NotApplicable, WorkerFault
from tests import networks
from tests.media import speech
from tests.sounds import music

RATE = 16_000


def _wave(seconds=3.0, seed=0):
    return speech(seconds, seed) / np.float32(32768)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return networks.write_weights("speech_stats", tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def detector(weights):
    return SpeechStats.load(weights, "cpu")


def _spectra(wave, length, hop):
    """An independent spectrogram in double precision: scipy's, brought to the layout and scale of ours."""
    window = np.hanning(length)
    _, _, found = stft(wave.astype(np.float64), RATE, window, length, length - hop, boundary=None, padded=False)
    return found.T * window.sum()


@pytest.mark.parametrize(("length", "hop"), [(256, 64), (512, 160), (1024, 256)])
def test_spectra_are_those_of_scipy(length, hop):
    wave = _wave()
    expected, found = _spectra(wave, length, hop), statistics._spectra(wave, length, hop)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-4 * np.abs(expected).max())


def _bands(values):
    return np.stack(
        [values[:, k * (values.shape[1] // 16) :][:, : values.shape[1] // 16].mean(1) for k in range(16)], 1
    )


def test_phase_numbers_are_those_of_their_formulas_in_double_precision():
    length, hop = 512, 160
    grain = np.random.default_rng(3).normal(0, 1e-3, 3 * RATE).astype(np.float32)
    wave = statistics._levelled(_wave() + grain)
    spectra = _spectra(wave, length, hop)
    size = np.abs(spectra)
    phase = np.angle(spectra)
    loud = np.log((size**2).sum(1))
    loud = loud > np.percentile(loud, 95) - 7.5
    advance = np.diff(phase, axis=0) - 2 * np.pi * hop / length * np.arange(257)
    pairs = size[1:] * size[:-1]
    agreement = np.abs(_bands(pairs * np.exp(1j * advance))) / _bands(pairs)
    curve = np.diff(phase, n=2, axis=1)
    triples = np.cbrt(size[:, 2:] * size[:, 1:-1] * size[:, :-2])
    curvature = _bands(triples * np.cos(curve)) / _bands(triples)
    expected = [agreement[loud[1:]], curvature[loud]]
    found = statistics._phases(wave, length, hop)
    for ours, rows in zip((found[0], found[3]), expected, strict=True):
        reference = [rows.mean(0), rows.std(0), *np.percentile(rows, (10, 50, 90), axis=0)]
        np.testing.assert_allclose(ours[:5], reference, atol=2e-3)


def test_shape_is_that_of_scipy():
    rows = np.random.default_rng(0).gamma(2, size=(300, 5)).astype(np.float32)
    found = statistics._shape(rows)
    np.testing.assert_allclose(found[0], rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found[1], rows.std(0), rtol=1e-5)
    np.testing.assert_allclose(found[2], skew(rows, 0), rtol=1e-4)
    np.testing.assert_allclose(found[3], kurtosis(rows, 0), rtol=1e-3)


def test_three_coupled_tones_are_bicoherent_and_three_free_ones_are_not():
    rng = np.random.default_rng(1)
    time = np.arange(256) / RATE
    hertz = np.array([5, 8, 13]) * RATE / 256

    def tones(coupled):
        pieces = []
        for _ in range(80):
            a, b, free = rng.uniform(0, 2 * np.pi, 3)
            phases = (a, b, a + b if coupled else free)
            pieces.append(sum(np.cos(2 * np.pi * f * time + p) for f, p in zip(hertz, phases, strict=True)))
        return np.concatenate(pieces).astype(np.float32)

    grid = np.arange(2, 64, 3)
    where = int(np.flatnonzero((grid[np.tril_indices(21)[0]] == 8) & (grid[np.tril_indices(21)[1]] == 5))[0])
    assert statistics._bicoherence(tones(coupled=True))[0, where] > 0.7
    assert statistics._bicoherence(tones(coupled=False))[0, where] < 0.4


@pytest.mark.parametrize("gain", [0.01, 0.5])
def test_no_number_depends_on_the_level(gain):
    wave = _wave()
    np.testing.assert_allclose(describe(wave * np.float32(gain)), describe(wave), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "wave",
    [np.zeros(RATE), np.ones(1), np.full(3 * RATE, 0.3), np.eye(1, 3 * RATE, 500)[0], np.sign(_wave(2)), _wave(0.05)],
    ids=["silence", "one sample", "constant", "click", "clipped", "short"],
)
def test_any_wave_gives_finite_numbers(wave):
    numbers = describe(wave.astype(np.float32))
    assert (numbers.shape, numbers.dtype) == ((COUNT,), np.float32)
    assert np.isfinite(numbers).all()


def test_the_network_is_the_discriminant_written_out(detector, weights):
    state = {name: tensor.astype(np.float64) for name, tensor in load_file(weights.path).items()}
    numbers = np.stack([describe(_wave(seed=seed)) for seed in range(3)])
    tamed = np.sign(numbers) * np.log1p(np.abs(numbers.astype(np.float64)))
    scaled = np.clip((tamed - state["scaler_mean"]) / state["scaler_scale"], -6, 6)
    expected = scaled @ state["fc.weight"][0] + state["fc.bias"][0]
    np.testing.assert_allclose(detector.predict(numbers), expected, atol=1e-4 * np.abs(expected).max())


def test_it_has_the_parameters_that_it_claims():
    assert parameter_count(SpeechDiscriminant()) == SpeechStats.spec.parameters == COUNT + 1


def test_windows_cover_a_long_clip_and_the_score_is_the_logistic_of_their_mean_logit(detector):
    wave = speech(18, seed=4)
    evidence = detector.assess(Clip(views={}, sounds={RATE: Sound.whole(wave)}, duration_s=18))
    assert [(w.start_s, w.end_s) for w in evidence.windows] == [(0, 8), (4, 12), (8, 16), (10, 18)]
    floats = wave / np.float32(32768)
    starts = [round(w.start_s * RATE) for w in evidence.windows]
    logits = detector.predict(np.stack([describe(floats[s : s + 8 * RATE]) for s in starts]))
    assert evidence.score == pytest.approx(1 / (1 + np.exp(-logits.mean())), abs=1e-6)
    assert evidence.features == {"speech_stats_prob_fake": evidence.score}


@pytest.mark.parametrize(
    ("wave", "code"),
    [
        (np.zeros(4 * RATE, np.int16), SkipCode.SILENT_AUDIO),
        (speech(NEED.min_seconds / 2), SkipCode.AUDIO_TOO_SHORT),
        (music(4), SkipCode.NO_SPEECH),
    ],
    ids=["silence", "short", "music"],
)
def test_what_holds_no_speech_is_skipped_and_named(detector, wave, code):
    with pytest.raises(NotApplicable) as refused:
        detector.assess(Clip(views={}, sounds={RATE: Sound.whole(wave)}, duration_s=len(wave) / RATE))
    assert refused.value.code is code


def test_numbers_of_another_length_are_refused(detector):
    with pytest.raises(DetectorError, match="3444"):
        detector.predict(np.zeros((2, 12), np.float32))


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_from(torch.nn.Linear(12, 1), path, {})
    with pytest.raises(WorkerFault, match=r"missing fc\.weight.*unknown weight"):
        SpeechStats.load(WeightFile(path, file_digest(path)), "cpu")


def _described(seed, count=120, shift=0.8):
    """Numbers of two labels that differ in the first ten, each with one noisy copy."""
    rng = np.random.default_rng(seed)
    fake = np.arange(count) % 2 == 0
    numbers = rng.normal(size=(count, 2, COUNT)).astype(np.float32)
    numbers[fake, :, :10] += shift
    return Described(numbers, fake, np.full(count, 1 / count))


def test_the_discriminant_finds_what_tells_the_labels_apart():
    network, unseen = fit_discriminant(_described(0), StatsRecipe()), _described(1)
    logits = network(torch.from_numpy(unseen.numbers[:, 0])).detach().numpy()
    weight = network.fc.weight[0].detach().numpy()
    assert logits[unseen.fake].mean() - logits[~unseen.fake].mean() > 3 * weight[10:].std()
    assert weight[:10].mean() > 3 * np.abs(weight[10:]).mean()


def test_the_discriminant_is_that_of_its_formula_by_another_route():
    described, shrinkage = _described(2, 60), 0.5
    network = fit_discriminant(described, StatsRecipe(shrinkage))
    flat = torch.from_numpy(described.numbers.reshape(-1, COUNT))
    with torch.inference_mode():
        rows, found = network.standardised(flat).numpy().astype(np.float64), network(flat).numpy()
    fake = np.repeat(described.fake, 2)
    means = [rows[side].mean(0) for side in (fake, ~fake)]
    apart = np.where(fake[:, None], rows - means[0], rows - means[1]) / np.sqrt(len(rows))
    sphere, ours = shrinkage * (apart**2).sum() / COUNT, 1 - shrinkage
    inner = np.linalg.solve(np.eye(len(rows)) * sphere / ours + apart @ apart.T, apart @ (means[0] - means[1]))
    direction = (means[0] - means[1] - apart.T @ inner) / sphere  # the matrix inversion lemma
    expected = rows @ direction - direction @ (means[0] + means[1]) / 2
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_a_slope_scales_the_logits_and_nothing_else():
    described = _described(3, 60)
    sample = torch.from_numpy(described.numbers[:, 0])
    one, half = (fit_discriminant(described, StatsRecipe(), slope)(sample) for slope in (1.0, 0.5))
    torch.testing.assert_close(half, one / 2, rtol=1e-3, atol=1e-3)


@pytest.fixture
def corpus(tmp_path):
    """Twenty utterances over five folds, and one mute clip: half babble, half a buzz, in the layout of the data."""
    audio = tmp_path / "data" / "audio"
    (audio / "clips").mkdir(parents=True)
    (tmp_path / "data" / "video").mkdir()
    folds, facts = [], []
    for k in range(20):
        fake, path = k % 2 == 0, f"clips/{k}.flac"
        wave = _wave(1.5, seed=k) if not fake else np.float32(0.1) * np.sign(np.sin(np.arange(24_000) / (9 + k / 7)))
        soundfile.write(audio / path, wave, RATE)
        label, fold = ("spoof" if fake else "bonafide"), k // 2 % 5
        folds.append(
            [path, label, f"family {fold}" if fake else "bonafide", f"g{k}", fold, fold if fake else "", k % 3 and 1]
        )
        facts.append([path, f"system {fold}" if fake else "-", f"source {fold}", "none", "CC0"])
    heads = (
        ["path", "label", "family", "group", "source_fold", "family_fold", "modern"],
        ["path", "system", "source", "channel", "licence"],
    )
    for name, head, rows in (("folds", heads[0], folds), ("manifest", heads[1], facts)):
        with (audio / f"{name}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([head, *rows])
    for name, table in VIDEO.items():
        (tmp_path / "data" / "video" / f"{name}.csv").write_text(table, "utf-8")
    return tmp_path / "data"


VIDEO = {
    "folds": "path,label,group,fold,identity,matched_group,audio_label\nmute.mp4,fake,g,0,,,none\n",
    "manifest": "path,source_repo\nmute.mp4,none\n",
}


def test_the_command_makes_weights_scores_and_figures(corpus, tmp_path):
    out = tmp_path / "run"
    assert main(["train", "speech_stats", "--data", str(corpus), "--out", str(out), "--jobs", "1"]) == 0
    metrics = json.loads((out / "metrics.json").read_text("utf-8"))
    assert metrics["all"]["auc"]["value"] > 0.9
    assert metrics["headline"].keys() == {"all", "modern", "all_copied", "modern_copied"} <= metrics.keys()
    weights = out / "speech_stats.safetensors"
    detector = SpeechStats.load(WeightFile(weights, file_digest(weights)), "cpu")
    buzz = np.sign(np.sin(np.arange(24_000) / 11.3)).astype(np.float32)
    logits = detector.predict(np.stack([describe(buzz), describe(_wave(1.5, seed=99))]))
    assert logits[0] > 0 > logits[1]
    assert "AUC [95 %]" in card_text(
        "speech_stats", RunFolder(out, json.loads((out / "config.json").read_text("utf-8")))
    )
