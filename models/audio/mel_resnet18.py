"""The mel ResNet-18: is this speech synthetic?

Follows the audio detector of the model specifications: four seconds as 80 log-mel rows relative to their loudest, not
normalised further, through a ResNet-18 of one channel; its weights were not published in full. Takes both layouts of
its last layers, `classifier.*` of the training program and `head.*` of the file that was deployed. Departs from it in
judging the whole clip in overlapping windows, of which the original's is the first, and in leaving out what is not
speech.
"""

from typing import ClassVar, Final, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.audio.listening import Cut, Range, listen
from clipwarden.models.audio.mel import HOP, MELS, SAMPLE_RATE_HZ, log_mel
from clipwarden.models.audio.speech import SpeechNetwork, speech_network
from clipwarden.models.backbones.pictures import in_batches, placed
from clipwarden.models.backbones.resnet18 import EMBEDDING, ResNet18
from clipwarden.models.checkpoint import fit, read_state
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, Excerpt
from clipwarden.shared.contracts import AudioNeed, Branch, Dtype, Evidence, Needs
from clipwarden.shared.errors import DetectorError

WINDOW: Final = 4 * SAMPLE_RATE_HZ
STEP: Final = 2 * SAMPLE_RATE_HZ
COLUMNS: Final = 1 + WINDOW // HOP
CUT: Final = Cut(WINDOW, STEP)
NEED: Final = AudioNeed(seconds=60, min_seconds=1, window_s=(WINDOW + STEP) / SAMPLE_RATE_HZ)
"""A longer clip gives stretches from its first to its last second, each of two windows that overlap."""

HIDDEN: Final = 128
AT_ONCE: Final = 8

Layout = Literal["classifier", "head"]


class MelNetwork(nn.Module):
    """Log-mel windows (N, 1, 80, 251) to logits (N, 2) of real and synthetic; the last layers compute in float32.

    11,236,162 parameters; `layout` is the name of the last layers.
    """

    def __init__(self, layout: Layout = "classifier") -> None:
        super().__init__()
        self.backbone = ResNet18(channels=1, outputs=0)
        last = nn.Sequential(nn.Dropout(0.3), nn.Linear(EMBEDDING, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2))
        self.add_module(layout, last)
        self._layout = layout

    def embed(self, windows: Tensor) -> Tensor:
        """Mean over places of the last convolution, (N, 512)."""
        return self.backbone.embed(windows)

    def forward(self, windows: Tensor) -> Tensor:
        return cast("Tensor", self.get_submodule(self._layout)(self.embed(windows).float()))


class MelResNet18:
    """Speech anti-spoofing on mel spectrograms. Judges speech whatever is said, up to one minute of it."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="mel_resnet18",
        version="1",
        branch=Branch.AUDIO,
        needs=Needs(audio=NEED),
        features=("mel_resnet18_prob_fake",),
        parameters=11_236_162,
        source="Model specifications of Monike123/The-Third-Derivative",
    )

    def __init__(self, network: MelNetwork, speech: SpeechNetwork) -> None:
        self._network = network
        self._speech = speech

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        state = read_state(weights)
        layout: Layout = "head" if any(name.startswith("head.") for name in state) else "classifier"
        network = MelNetwork(layout)
        fit(network, state, weights.path.name, device, dtype, keep=(layout,))
        return cls(network, speech_network())

    def assess(self, clip: Clip) -> Evidence:
        """Judge the windows that hold speech. Raises NotApplicable as `listen` does."""
        heard = listen(clip, NEED, CUT, self._speech)
        windows = [seen(excerpt, place) for excerpt, ranges in heard.judged for place in ranges]
        return heard.evidence("mel_resnet18_prob_fake", self.predict(np.stack(windows)))

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits of fake (N,), synthetic less real, of log-mel windows (N, 80, 251) in dB, 0 the loudest."""
        if batch.shape[1:] != (MELS, COLUMNS):
            raise DetectorError(f"log-mel windows must be (N, {MELS}, {COLUMNS}), got {batch.shape}")
        device, dtype = placed(self._network)

        def through(windows: NDArray[np.float32]) -> Tensor:
            return cast("Tensor", self._network(torch.from_numpy(windows).to(device, dtype).unsqueeze(1)))

        real, synthetic = in_batches(through, batch, AT_ONCE).astype(np.float64).T
        return np.asarray(synthetic - real)


def seen(excerpt: Excerpt, place: Range) -> NDArray[np.float32]:
    """A window as the network sees it, (80, 251): what is there, then silence up to four seconds."""
    wave = excerpt.samples[slice(*place)]
    return log_mel(np.pad(wave, (0, WINDOW - len(wave))))
