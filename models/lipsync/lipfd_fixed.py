"""LipFD with its input put right: the same network and layout, for weights of our own.

Profile `fixed` (see `lipfd_fixed_input`): RGB, normalised as the two networks were pre-trained, each of the five frames
its own, face and lips from landmarks, sound at 16 kHz by the clock. The public checkpoint was made for another input
and is refused.
"""

from typing import ClassVar, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from clipwarden.models.audio.speech import SpeechNetwork, speech_network
from clipwarden.models.backbones.clip import NORMALISATION
from clipwarden.models.backbones.pictures import IMAGENET, PictureInput, infer, placed
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.lipsync.lipfd_file import load_network, options_of
from clipwarden.models.lipsync.lipfd_fixed_input import NEEDS, LipFdWindows, windows_of
from clipwarden.models.lipsync.lipfd_input import CROP_PX, JOINED_PX
from clipwarden.models.lipsync.lipfd_network import LipFdNetwork
from clipwarden.models.lipsync.lipfd_windows import FRAMES, WINDOWS, LipFdScores
from clipwarden.models.visual.scores import sigmoid
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence
from clipwarden.shared.errors import DetectorError

SEEN: Final = PictureInput(JOINED_PX, *NORMALISATION)
LOOKED_AT: Final = PictureInput(CROP_PX, *IMAGENET)
SCALES: Final = 3
PICTURES_AT_ONCE: Final = 2
CROPS_AT_ONCE: Final = 30


class LipFdFixed:
    """Judges up to ten windows of the most prominent person speaking."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="lipfd_fixed",
        version="1",
        branch=Branch.LIPSYNC,
        needs=NEEDS,
        features=("lipfd_fixed_prob_fake",),
        parameters=327_480_102,
        source="LipFD (AaronComo/LipFD, NeurIPS 2024), its input put right by Clipwarden",
    )

    def __init__(self, network: LipFdNetwork, speech: SpeechNetwork, windows: int = WINDOWS) -> None:
        self._network = network
        self._speech = speech
        self._windows = windows

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        """Weights of our own whose metadata name profile `fixed`; see `load_network`."""
        options = options_of(weights, "fixed")
        return cls(load_network(weights, device, dtype), speech_network(), options.n_extract)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the windows; those left out are gaps. Raises NotApplicable as `windows_of` does."""
        return self.examine(clip).evidence("lipfd_fixed_prob_fake")

    def examine(self, clip: Clip) -> LipFdScores:
        """P(fake) of each window; each picture and each crop is encoded once."""
        windows = windows_of(clip, self._windows, self._speech)
        return LipFdScores(sigmoid(self._judged(windows)), windows.places, windows.gaps)

    def predict(self, batch: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Logits of fake (N,) of windows in RGB: pictures (N, 1120, 1120, 3) and crops (N, 5, 3, 224, 224, 3)."""
        pictures, crops = batch
        if crops.shape[:3] != (len(pictures), FRAMES, SCALES):
            raise DetectorError(f"{len(pictures)} pictures need crops (N, {FRAMES}, {SCALES}, …), got {crops.shape}")
        rows = np.arange(len(crops) * FRAMES).reshape(-1, FRAMES)
        return self._judged(LipFdWindows(pictures, crops.reshape(-1, *crops.shape[2:]), rows))

    @torch.inference_mode()
    def _judged(self, windows: LipFdWindows) -> NDArray[np.float64]:
        network, device = self._network, placed(self._network)[0]
        seen = infer(network, SEEN, windows.pictures, PICTURES_AT_ONCE, network.see)
        crops = windows.crops.reshape(-1, *windows.crops.shape[2:])
        looked = infer(network, LOOKED_AT, crops, CROPS_AT_ONCE, network.look).reshape(len(windows.crops), SCALES, -1)
        logits = network.judge(*(torch.from_numpy(part).to(device) for part in (looked[windows.rows], seen)))
        return logits.cpu().numpy().astype(np.float64)
