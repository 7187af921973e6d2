"""The CQCC network: is this speech spoofed (synthesised, converted or vocoded)?

Follows the audio network of the 5-way pipeline (four convolutions on 90-row CQCC, one logit), trained by us.
Departs from it: the rows are standardised with statistics kept in the weights and clamped, the sound is judged in
overlapping windows instead of one centre crop, a short window is not padded with zeros, and what is not speech is left
out.
"""

from itertools import pairwise
from typing import ClassVar, Final, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.audio.cqcc import ROWS, SHORTEST, cqcc
from clipwarden.models.audio.cqt import HOP, SAMPLE_RATE_HZ
from clipwarden.models.audio.listening import Cut, Range, listen, windows_of
from clipwarden.models.audio.speech import SpeechNetwork, speech_network
from clipwarden.models.backbones.pictures import in_batches, placed
from clipwarden.models.checkpoint import fit, read_state
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, Excerpt
from clipwarden.shared.contracts import AudioNeed, Branch, Dtype, Evidence, Needs
from clipwarden.shared.errors import DetectorError

WINDOW: Final = 400  # frames, 6.4 s
STEP: Final = 200
CUT: Final = Cut(WINDOW * HOP, STEP * HOP, HOP)
NEED: Final = AudioNeed(seconds=120, min_seconds=1, window_s=(WINDOW + STEP) * HOP / SAMPLE_RATE_HZ)
"""A longer clip gives stretches from its first to its last second, each of two windows that overlap."""

CHANNELS: Final = (1, 32, 64, 128, 256)
CLAMP: Final = 5.0  # standard deviations; digital silence lies far outside what recordings hold
AT_ONCE: Final = 8
SCALER: Final = ("scaler_mean", "scaler_scale")


class CqccNetwork(nn.Module):
    """CQCC (N, 90, T), T ≥ 16, to logits of "spoofed" (N,). 389,057 parameters.

    Rows are standardised in float32, and the last layer computes in it, whatever the rest does. Dropout before the last
    layer acts in training only and has no parameters.
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
        x = x.to(next(self.parameters()).dtype)
        for k in range(1, len(CHANNELS)):
            conv, norm = getattr(self, f"conv{k}"), getattr(self, f"bn{k}")
            x = nn.functional.max_pool2d(torch.relu(norm(conv(x))), 2)
        pooled = nn.functional.dropout(x.float().mean(dim=(2, 3)), self.dropout, self.training)
        return cast("Tensor", self.fc(pooled)).squeeze(1)


class CqccCnn:
    """Speech anti-spoofing on CQCC. Judges speech whatever is said, up to two minutes of it."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="cqcc_cnn",
        version="2",
        branch=Branch.AUDIO,
        needs=Needs(audio=NEED),
        features=("audio_prob_fake",),
        parameters=389_057,
        source="architecture of the 5-way pipeline (harsh-dev-05/Mugen-Deepfake), weights trained by Clipwarden",
    )

    def __init__(self, network: CqccNetwork, speech: SpeechNetwork) -> None:
        self._network = network
        self._speech = speech

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        state, network = read_state(weights), CqccNetwork()
        fit(network, state, weights.path.name, device, dtype, keep=("fc",))
        for name in SCALER:
            setattr(network, name, state[name].float().to(device))
        return cls(network, speech_network())

    def assess(self, clip: Clip) -> Evidence:
        """Judge the windows that hold speech. Raises NotApplicable as `listen` does."""
        heard = listen(clip, NEED, CUT, self._speech)
        logits = [self._logits(excerpt, ranges) for excerpt, ranges in heard.judged]
        return heard.evidence("audio_prob_fake", np.concatenate(logits))

    def predict_windows(self, rows: NDArray[np.float32], ranges: list[Range]) -> NDArray[np.float64]:
        """Logits (len(ranges),) of stretches of CQCC rows (90, T); all ranges, of frames, are equally long."""
        return self.predict(np.stack([rows[:, start:end] for start, end in ranges]))

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits of fake (N,) of CQCC windows (N, 90, T), T ≥ 16, as they come from `cqcc`."""
        if batch.ndim != 3 or batch.shape[1] != ROWS:
            raise DetectorError(f"CQCC windows must be (N, {ROWS}, T), got {batch.shape}")
        device, _ = placed(self._network)

        def through(windows: NDArray[np.float32]) -> Tensor:
            return cast("Tensor", self._network(torch.from_numpy(windows).to(device)))

        return in_batches(through, batch, AT_ONCE).astype(np.float64)

    def _logits(self, excerpt: Excerpt, ranges: tuple[Range, ...]) -> NDArray[np.float64]:
        frames = [(first // HOP, max(last, SHORTEST) // HOP) for first, last in ranges]
        return self.predict_windows(cqcc(excerpt.samples), frames)


def frame_windows(frames: int) -> list[Range]:
    """The windows of `frames` columns of CQCC, as ranges of columns."""
    return windows_of(frames, WINDOW, STEP)
