"""Speech statistics of our own: 3,444 hand-made numbers of a stretch of speech and one linear discriminant."""

from typing import ClassVar, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipwarden.models.audio.listening import Cut, listen
from clipwarden.models.audio.speech import SpeechNetwork, speech_network
from clipwarden.models.audio.statistics import COUNT, RATE_HZ, describe
from clipwarden.models.backbones.discriminant import Discriminant
from clipwarden.models.backbones.pictures import placed
from clipwarden.models.checkpoint import load_into
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import AudioNeed, Branch, Dtype, Evidence, Needs
from clipwarden.shared.errors import DetectorError

WINDOW_S: Final = 8
STEP_S: Final = 4
CUT: Final = Cut(WINDOW_S * RATE_HZ, STEP_S * RATE_HZ)
NEED: Final = AudioNeed(seconds=120, min_seconds=1, window_s=WINDOW_S + STEP_S)
"""A longer clip gives stretches from its first to its last second, each of two windows that overlap."""


class SpeechDiscriminant(Discriminant):
    """Numbers (N, 3444), as `describe` gives them, to logits of "synthetic" (N,). 3,445 parameters.

    Each number enters as sign · log(1 + size), which tames heavy tails.
    """

    def __init__(self) -> None:
        super().__init__(COUNT)

    def standardised(self, numbers: Tensor) -> Tensor:
        """What is weighed; (N, 3444)."""
        return super().standardised(numbers.sign() * numbers.abs().log1p())


class SpeechStats:
    """Speech anti-spoofing on the order of phases, envelopes and bands, up to two minutes of it."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="speech_stats",
        version="1",
        branch=Branch.AUDIO,
        needs=Needs(audio=NEED),
        features=("speech_stats_prob_fake",),
        parameters=3_445,
        source="features and weights by Clipwarden",
    )

    def __init__(self, network: SpeechDiscriminant, speech: SpeechNetwork) -> None:
        self._network = network
        self._speech = speech

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:  # noqa: ARG003
        """Computes in float32 whatever is asked for: so small a network gains nothing by less."""
        network = SpeechDiscriminant()
        load_into(network, weights, device)
        return cls(network, speech_network())

    def assess(self, clip: Clip) -> Evidence:
        """Judge the windows that hold speech. Raises NotApplicable as `listen` does."""
        heard = listen(clip, NEED, CUT, self._speech)
        waves = [excerpt.samples[first:last] for excerpt, ranges in heard.judged for first, last in ranges]
        return heard.evidence(self.spec.features[0], self.predict(np.stack([describe(wave) for wave in waves])))

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits of fake (N,) of the numbers (N, 3444) of N stretches of speech, as `describe` gives them."""
        if batch.ndim != 2 or batch.shape[1] != COUNT:
            raise DetectorError(f"speech statistics must be (N, {COUNT}), got {batch.shape}")
        device, _ = placed(self._network)
        with torch.inference_mode():
            logits = self._network(torch.from_numpy(np.ascontiguousarray(batch, np.float32)).to(device))
        return np.asarray(logits.cpu().numpy(), np.float64)
