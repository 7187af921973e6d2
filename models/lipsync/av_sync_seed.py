"""The sync head of the 5-way pipeline: kept so that its file can be loaded, checked and taken over.

It reads the mean of two embeddings end to end, 512 of faces and 256 of sound, by networks of which one was never
published: of a clip it can say nothing, and it never gives one a number. Whoever has the embeddings calls `predict`.
"""

from typing import ClassVar, Final, NoReturn, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.backbones.pictures import in_batches, placed
from clipwarden.models.checkpoint import load_into
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import Branch, Dtype, Needs
from clipwarden.shared.errors import DetectorError, NotApplicable

WIDTH: Final = 768
HIDDEN: Final = 256
AT_ONCE: Final = 256


class SyncHead(nn.Module):
    """Embeddings (N, 768) to logits (N,) of being in sync. 262,913 parameters."""

    def __init__(self) -> None:
        super().__init__()
        first = [nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Dropout(0.3)]
        self.net = nn.Sequential(*first, nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Dropout(0.3), nn.Linear(HIDDEN, 1))

    def forward(self, embeddings: Tensor) -> Tensor:
        return cast("Tensor", self.net(embeddings)).squeeze(1)


class AvSyncSeed:
    """Can be loaded; judges embeddings, not clips."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="av_sync_seed",
        version="1",
        branch=Branch.LIPSYNC,
        needs=Needs(),
        features=("sync_seed_prob",),
        parameters=262_913,
        source="5-way pipeline of harsh-dev-05/Mugen-Deepfake",
    )

    def __init__(self, network: SyncHead) -> None:
        self._network = network

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        """Computes in float32 whatever `dtype` says: there is nothing to gain."""
        network = SyncHead()
        load_into(network, weights, device, dtype, keep=("net",))
        return cls(network)

    def assess(self, clip: Clip) -> NoReturn:  # noqa: ARG002 - the protocol names it
        """Raises NotApplicable for every clip."""
        raise NotApplicable(SkipCode.NOT_APPLICABLE)

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits of fake (N,), out of sync, of embeddings (N, 768): faces first, then sound."""
        if batch.shape[1:] != (WIDTH,):
            raise DetectorError(f"embeddings must be (N, {WIDTH}), got {batch.shape}")
        device = placed(self._network)[0]

        def through(part: NDArray[np.float32]) -> Tensor:
            return -cast("Tensor", self._network(torch.from_numpy(part).to(device, torch.float32)))

        return in_batches(through, batch, AT_ONCE).astype(np.float64)
