"""The forensic network: twelve hand-made numbers per face crop, and whether they look like a generator's.

Follows the forensic classifier of the model specifications (12-64-32-2), trained by us. Departs from it: face crops
of one size instead of whole pictures, heavy-tailed features in logarithm, and several crops per clip.
"""

from typing import ClassVar, Final, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.checkpoint import load_into
from clipwarden.models.detector import DetectorSpec, Dtype
from clipwarden.models.visual.forensic_features import FEATURES, compressed, forensic_features
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import Branch, Evidence, FrameNeed, Needs, Window
from clipwarden.shared.errors import NotApplicable

NEED: Final = FrameNeed(view="face", count=8, size_px=256, margin=0.3)
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
        """Judge the face crops. Raises NotApplicable if there is none."""
        view = clip.view(NEED)
        if not len(view):
            raise NotApplicable(SkipCode.NO_FACE)
        logits = self.predict(np.stack([forensic_features(image) for image in view.images]))
        probabilities = _sigmoid(logits)
        score = float(_sigmoid(logits.mean()))
        return Evidence(
            score=score,
            features={
                "forensic_score": score,
                "forensic_prob_mean": float(probabilities.mean()),
                "forensic_prob_max": float(probabilities.max()),
                "forensic_prob_p90": float(np.percentile(probabilities, 90)),
            },
            windows=_windows(view.times_s, probabilities, clip.duration_s),
        )

    @torch.inference_mode()
    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits of fake (N,), fake less real, for features (N, 12) as `forensic_features` gives them."""
        batch = torch.from_numpy(compressed(features).astype(np.float32)).to(self._device)
        real, fake = self._network(batch).float().cpu().numpy().astype(np.float64).T
        return np.asarray(fake - real)


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-np.clip(logits, -700, 700))))


def _windows(times_s: NDArray[np.float64], probabilities: NDArray[np.float64], duration_s: float) -> tuple[Window, ...]:
    """One window per crop, from halfway to its neighbour before to halfway to the one after."""
    end = max(duration_s, float(times_s[-1]))
    edges = [0.0, *((times_s[:-1] + times_s[1:]) / 2), end]
    spans = zip(edges, edges[1:], probabilities, strict=False)
    return tuple(Window(start_s=max(a, 0.0), end_s=max(b, 0.0), score=float(p)) for a, b, p in spans)
