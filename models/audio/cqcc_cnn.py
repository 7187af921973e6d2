"""The CQCC network: is this speech spoofed (synthesised, converted or vocoded)?

Follows the audio network of the 5-way pipeline (four convolutions on 90-row CQCC, one logit), trained by us.
Departs from it: the rows are standardised with statistics kept in the weights and clamped, the sound is judged in
overlapping windows over its first minute instead of one centre crop, and a short window is not padded with zeros.
"""

import math
from itertools import pairwise
from typing import ClassVar, Final, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.audio.cqcc import HOP, ROWS, SAMPLE_RATE_HZ, SHORTEST, cqcc
from clipwarden.models.checkpoint import load_into
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import AudioNeed, Branch, Evidence, Needs, Window
from clipwarden.shared.errors import NotApplicable

WINDOW: Final = 400  # frames, 6.4 s
STEP: Final = 200
MAX_SECONDS: Final = 60.0
MIN_SECONDS: Final = 1.0
SILENCE_DBFS: Final = -60.0
CHANNELS: Final = (1, 32, 64, 128, 256)
CLAMP: Final = 5.0  # standard deviations; digital silence lies far outside what recordings hold
WINDOWS_AT_ONCE: Final = 8


class CqccNetwork(nn.Module):
    """Standardised CQCC (N, 90, T), T ≥ 16, to logits of "spoofed" (N,). 389,057 parameters.

    Dropout before the last layer acts in training only and has no parameters.
    """

    scaler_mean: Tensor
    scaler_scale: Tensor

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        for k, (inputs, outputs) in enumerate(pairwise(CHANNELS), start=1):
            setattr(self, f"conv{k}", nn.Conv2d(inputs, outputs, 3, padding=1))
            setattr(self, f"bn{k}", nn.BatchNorm2d(outputs))
        self.dropout = dropout
        self.fc = nn.Linear(CHANNELS[-1], 1)
        self.register_buffer("scaler_mean", torch.zeros(ROWS))
        self.register_buffer("scaler_scale", torch.ones(ROWS))

    def forward(self, rows: Tensor) -> Tensor:
        x = ((rows - self.scaler_mean[:, None]) / self.scaler_scale[:, None]).clamp(-CLAMP, CLAMP).unsqueeze(1)
        for k in range(1, len(CHANNELS)):
            conv, norm = getattr(self, f"conv{k}"), getattr(self, f"bn{k}")
            x = nn.functional.max_pool2d(torch.relu(norm(conv(x))), 2)
        pooled = nn.functional.dropout(x.mean(dim=(2, 3)), self.dropout, self.training)
        return cast("Tensor", self.fc(pooled)).squeeze(1)


def windows_of(frames: int) -> list[tuple[int, int]]:
    """Half-open frame ranges of at most WINDOW frames that cover 0 … frames, each STEP after the one before.

    The last range ends with the sound, so it may start less than STEP after its neighbour.
    """
    last = max(frames - WINDOW, 0)
    starts = [*range(0, last, STEP), last]
    return [(start, min(start + WINDOW, frames)) for start in starts]


def level_dbfs(wave: NDArray[np.float32]) -> float:
    """Root mean square of a wave in [-1, 1), in dB of full scale; -inf for digital silence."""
    power = float(np.mean(np.square(wave, dtype=np.float64)))
    return 10 * math.log10(power) if power > 0 else -math.inf


class CqccCnn:
    """Speech anti-spoofing on CQCC. Judges speech whatever is said; music and noise are outside its training."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="cqcc_cnn",
        version="1",
        branch=Branch.AUDIO,
        needs=Needs(audio=AudioNeed(seconds=MAX_SECONDS, min_seconds=MIN_SECONDS)),
        features=("audio_prob_fake",),
        parameters=389_057,
        source="architecture of the 5-way pipeline (harsh-dev-05/Mugen-Deepfake), weights trained by Clipwarden",
    )

    def __init__(self, network: CqccNetwork, device: str) -> None:
        self._network = network
        self._device = device

    @classmethod
    def load(cls, weights: WeightFile, device: str) -> Self:
        network = CqccNetwork()
        load_into(network, weights, device)
        return cls(network, device)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the first minute. Raises NotApplicable without sound, below one second or when silent."""
        wave = clip.audio(MAX_SECONDS)
        _refuse(wave)
        ranges = audible_windows(wave)
        logits = self.predict_windows(cqcc(wave), ranges)
        score = _sigmoid(float(np.mean(logits)))
        windows = tuple(_window(r, logit, len(wave)) for r, logit in zip(ranges, logits, strict=True))
        return Evidence(score=score, features={"audio_prob_fake": score}, windows=windows)

    def predict_windows(self, rows: NDArray[np.float32], ranges: list[tuple[int, int]]) -> NDArray[np.float64]:
        """Logits (len(ranges),) of stretches of CQCC rows (90, T); all ranges are equally long."""
        stretches = np.stack([rows[:, start:end] for start, end in ranges])
        return self.predict(torch.from_numpy(stretches))

    @torch.inference_mode()
    def predict(self, batch: Tensor) -> NDArray[np.float64]:
        """Logits (N,) of CQCC windows (N, 90, T), on this detector's device."""
        logits = [self._network(part.to(self._device)).float().cpu() for part in torch.split(batch, WINDOWS_AT_ONCE)]
        return torch.cat(logits).numpy().astype(np.float64)


def audible_windows(wave: NDArray[np.float32]) -> list[tuple[int, int]]:
    """Choose the frame ranges of a wave's CQCC that are judged, all equally long.

    Of several, those below -60 dBFS say nothing and are left out. Raises NotApplicable if none is left.
    """
    ranges = windows_of(max(len(wave), SHORTEST) // HOP)
    if len(ranges) > 1:
        ranges = [(a, b) for a, b in ranges if level_dbfs(wave[a * HOP : b * HOP]) >= SILENCE_DBFS]
    if not ranges:
        raise NotApplicable(SkipCode.SILENT_AUDIO)
    return ranges


def _refuse(wave: NDArray[np.float32]) -> None:
    if not len(wave):
        raise NotApplicable(SkipCode.NO_AUDIO)
    if len(wave) < MIN_SECONDS * SAMPLE_RATE_HZ:
        raise NotApplicable(SkipCode.AUDIO_TOO_SHORT)
    if level_dbfs(wave) < SILENCE_DBFS:
        raise NotApplicable(SkipCode.SILENT_AUDIO)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-max(min(logit, 700.0), -700.0)))


def _window(frames: tuple[int, int], logit: float, samples: int) -> Window:
    start, end = (min(f * HOP, samples) / SAMPLE_RATE_HZ for f in frames)
    return Window(start_s=start, end_s=end, score=_sigmoid(float(logit)))
