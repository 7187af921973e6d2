"""What hearing costs: CPU for each second of a minute of speech, on one thread, and against librosa's own paths."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import librosa
import numpy as np
import torch
from numpy.typing import NDArray

from clipwarden.models.audio.cqt import BINS, HOP, LOWEST_HZ, SAMPLE_RATE_HZ, cqt
from clipwarden.models.audio.mel import log_mel, spectrogram
from clipwarden.models.audio.speech import speech_network
from clipwarden.models.detector import detector_class
from clipwarden.models.weights import WeightFile, verified
from clipwarden.shared.clip import Clip, Sound
from tests.bench.figures import Bench, Figure, cpu_s, figure
from tests.media import speech
from tests.networks import write_weights

SECONDS: Final = 60
SHORT_SECONDS: Final = 8
DETECTORS: Final[Mapping[str, float]] = {"cqcc_cnn": 0.02, "mel_resnet18": 0.04}
"""Name and limit of each detector's cost, in real time."""


@figure
def audio_cost(_: Bench) -> Iterator[Figure]:
    """All that a detector does to a clip, speech detection included; random weights where none ship."""
    wave, threads = speech(SECONDS), torch.get_num_threads()
    clip = Clip(sounds={SAMPLE_RATE_HZ: Sound.whole(wave)}, duration_s=SECONDS)
    torch.set_num_threads(1)
    try:
        with TemporaryDirectory(prefix="clipwarden-bench-") as folder:
            for name, limit in DETECTORS.items():
                detector = detector_class(name).load(_weights(name, Path(folder)), "cpu")
                detector.assess(clip)
                cost = cpu_s(partial(detector.assess, clip)) / SECONDS
                yield Figure(f"{name} CPU / real time, one core", cost, "ratio", limit=limit)
        yield from _steps(wave.astype(np.float32) / 32768)
    finally:
        torch.set_num_threads(threads)


def _steps(wave: NDArray[np.float32]) -> Iterator[Figure]:
    clip = wave[: SHORT_SECONDS * SAMPLE_RATE_HZ]
    theirs = partial(librosa.cqt, clip, sr=SAMPLE_RATE_HZ, hop_length=HOP, fmin=LOWEST_HZ, n_bins=BINS)
    ratio = min(cpu_s(partial(cqt, clip)) for _ in range(2)) / min(cpu_s(theirs) for _ in range(2))
    yield Figure(f"constant-Q transform of {SHORT_SECONDS} s CPU / librosa's", ratio, "ratio", limit=0.4)
    steps = {"speech detection": speech_network().hears, "log-mel": log_mel, "spectrogram picture": spectrogram}
    for name, step in steps.items():
        yield Figure(f"{name} CPU / real time, one core", cpu_s(partial(step, wave)) / SECONDS, "ratio", limit=0.003)


def _weights(name: str, folder: Path) -> WeightFile:
    return verified(name) if name == "cqcc_cnn" else write_weights(name, folder)
