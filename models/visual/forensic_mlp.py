"""The forensic network: twelve hand-made numbers per face crop, and whether they look like a generator's.

Follows the forensic classifier of the model specifications (12-64-32-2), trained by us. Departs from it: face crops
of one size instead of whole pictures, heavy-tailed features in logarithm, and several crops per clip.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Final, Self, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.checkpoint import load_into
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.sights import Picture, looks, shown, worst
from clipwarden.models.visual.forensic_features import FEATURES, compressed, forensic_features
from clipwarden.models.visual.scores import faces_of, sigmoid, statistics, windows
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence, ExhibitKind, FrameNeed, Needs

NEED: Final = FrameNeed(view="face", count=8, size_px=256, margin=0.3)
RESIDUAL_GAIN: Final = 8
CLAMP: Final = 4.0  # standard deviations: one extreme feature must not decide alone


class ForensicNetwork(nn.Module):
    """Compressed features (N, 12) to logits (N, 2) of real and fake. 3,170 parameters; dropout acts in training."""

    scaler_mean: Tensor
    scaler_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(len(FEATURES), 64),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(64, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(32, 2),
        )
        self.register_buffer("scaler_mean", torch.zeros(len(FEATURES)))
        self.register_buffer("scaler_scale", torch.ones(len(FEATURES)))

    def forward(self, features: Tensor) -> Tensor:
        standard = ((features - self.scaler_mean) / self.scaler_scale).clamp(-CLAMP, CLAMP)
        return cast("Tensor", self.network(standard))


class ForensicMlp:
    """Judges each of up to eight face crops by itself; says nothing about motion."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="forensic_mlp",
        version="1",
        branch=Branch.VISUAL,
        needs=Needs(frames=NEED),
        features=("forensic_score", "forensic_prob_mean", "forensic_prob_max", "forensic_prob_p90"),
        parameters=3_170,
        source="architecture of the model specifications (Monike123/The-Third-Derivative), trained by Clipwarden",
    )

    def __init__(self, network: ForensicNetwork, device: str) -> None:
        self._network = network
        self._device = device

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:  # noqa: ARG003
        """Computes in float32 whatever is asked for: so small a network gains nothing by less."""
        network = ForensicNetwork()
        load_into(network, weights, device)
        return cls(network, device)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the face crops. Raises NotApplicable if there is none, or none large enough."""
        view = faces_of(clip.view(NEED))
        logits = self.predict(features_of(view.images))
        probabilities = sigmoid(logits)
        score = float(sigmoid(logits.mean()))
        return Evidence(
            score=score,
            features={"forensic_score": score, **statistics("forensic", probabilities)},
            windows=windows(view.times_s, probabilities, clip.duration_s),
            looks=looks(view, probabilities),
        )

    def pictures(self, clip: Clip, evidence: Evidence) -> Sequence[Picture]:
        """Noise of the most suspicious crops."""
        view = clip.view(NEED)
        rows = worst(view, evidence.looks)
        return [shown(ExhibitKind.RESIDUAL, residual(view.images[row]), view, row, NEED) for row in rows]

    @torch.inference_mode()
    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits of fake (N,), fake less real, for features (N, 12) as `forensic_features` gives them."""
        batch = torch.from_numpy(compressed(features).astype(np.float32)).to(self._device)
        real, fake = self._network(batch).float().cpu().numpy().astype(np.float64).T
        return np.asarray(fake - real)


def features_of(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Features (N, 12) of RGB pictures (N, S, S, 3), at least one, in as many threads as PyTorch has been given.

    OpenCV's denoiser leaves a picture of this size to one thread, and holds no lock of Python's meanwhile.
    """
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return np.stack(list(pool.map(forensic_features, pictures)))


def residual(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a median over 3 x 3 takes away in grey (S, S), eightfold: the features' denoiser costs far more."""
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    noise = grey.astype(np.int16) - cv2.medianBlur(grey, 3)
    return np.asarray(np.clip(128 + RESIDUAL_GAIN * noise, 0, 255), np.uint8)
