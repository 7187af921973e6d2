"""The BiLSTM over faces: does what a frame network sees of a face change as a face does?

Follows the temporal network of the 5-way pipeline (512 to 128 in both directions, mean over time, one logit). Departs
from it in leaving padding out of the mean, and in the frame network, whose original weights were never published: the
weights entry names the one that its file was fitted to, and the width of its embeddings is read off the file.
"""

from collections.abc import Sequence
from typing import ClassVar, Final, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from clipwarden.models.backbones.embedders import FrameEmbedder
from clipwarden.models.checkpoint import facts_of, fit, read_state
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.sights import looks
from clipwarden.models.visual.scores import faces_of, sigmoid, windows
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence, FrameNeed, Kernel, Needs
from clipwarden.shared.errors import DetectorError, WorkerFault

NEED: Final = FrameNeed(view="face", count=32, size_px=224, margin=0.3, kernel=Kernel.PIL_BILINEAR)
LEAST_FRAMES: Final = 4
HIDDEN: Final = 128
EMBEDDING: Final = 512


class BiLstmNetwork(nn.Module):
    """Embeddings (N, T, width) and lengths (N,) to logits of fake by step (N, T); zero beyond a length.

    The mean over a sequence's own steps is its logit, since the last layer is linear. 657,665 parameters at 512.
    """

    def __init__(self, width: int = EMBEDDING) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, HIDDEN, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * HIDDEN, 1)

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(embeddings, lengths.cpu(), batch_first=True, enforce_sorted=False)
        steps, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=embeddings.shape[1])
        there = torch.arange(steps.shape[1], device=steps.device)[None] < lengths.to(steps.device)[:, None]
        return cast("Tensor", self.fc(steps)).squeeze(2) * there


class TemporalBiLstm:
    """Judges up to 32 faces of one person in the order of time."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="temporal_bilstm",
        version="1",
        branch=Branch.VISUAL,
        needs=Needs(frames=NEED),
        features=("temporal_prob_fake",),
        parameters=657_665,
        source="5-way pipeline of harsh-dev-05/Mugen-Deepfake",
    )

    def __init__(self, network: BiLstmNetwork, backbone: FrameEmbedder, device: str) -> None:
        self._network = network
        self._backbone = backbone
        self._device = device

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        """The frame network computes in `dtype`, the small network over time always in float32."""
        backbone = _backbone(weights, device, dtype)
        state, name = read_state(weights), weights.path.name
        network = BiLstmNetwork(backbone.width)
        fit(network, state, name, device)
        return cls(network, backbone, device)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the faces. Raises NotApplicable with fewer than four that are large enough."""
        view = faces_of(clip.view(NEED), LEAST_FRAMES)
        logits = self.steps([view.images])[0]
        score, by_step = float(sigmoid(logits.mean())), sigmoid(logits)
        return Evidence(
            score=score,
            features={"temporal_prob_fake": score},
            windows=windows(view.times_s, by_step, clip.duration_s),
            looks=looks(view, by_step),
        )

    def predict(self, batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Logits of fake (N,) of N sequences of RGB faces (T, 224, 224, 3), which may differ in length."""
        return np.array([logits.mean() for logits in self.steps(batch)])

    @torch.inference_mode()
    def steps(self, batch: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float64]]:
        """Logits of fake by step, (T,) for each sequence; the frame network sees the faces of all in common batches."""
        lengths = [len(sequence) for sequence in batch]
        if not lengths or not min(lengths):
            raise DetectorError("a sequence must have at least one face")
        embeddings = np.split(self._backbone.embed(np.concatenate(batch)), np.cumsum(lengths)[:-1])
        padded = pad_sequence([torch.from_numpy(e) for e in embeddings], batch_first=True).to(self._device)
        logits = self._network(padded, torch.tensor(lengths)).cpu().numpy().astype(np.float64)
        return [row[:length] for row, length in zip(logits, lengths, strict=True)]


def _backbone(weights: WeightFile, device: str, dtype: Dtype) -> FrameEmbedder:
    """The frame network that the entry names; WorkerFault if it is not the one the file was fitted to.

    The file says which that is, or where it does not, the option `fitted_to`.
    """
    if weights.backbone is None:
        raise WorkerFault("the entry of temporal_bilstm in weights.toml must name its backbone among its options")
    fitted_to = {facts_of(weights).get("backbone"), weights.options.get("fitted_to")} - {None}
    if not fitted_to:
        raise WorkerFault(
            f"{weights.path.name} does not say which weights its backbone had: install it with "
            f"--option fitted_to=sha256:..., the digest of the {weights.options['backbone']} that it was fitted to"
        )
    if fitted_to != {weights.backbone.digest}:
        raise WorkerFault(
            f"{weights.path.name} was fitted to embeddings of {' and '.join(sorted(map(str, fitted_to)))}; "
            f"its backbone now is {weights.backbone.digest}"
        )
    return FrameEmbedder.load(weights.options["backbone"], weights.backbone, device, dtype)
