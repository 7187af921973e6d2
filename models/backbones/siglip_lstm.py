"""The network of SIGLIP-LSTM: SigLIP's tower on each frame, a two-layer BiLSTM over time, one head for clips, one for
stills. Names and sizes are those of the public checkpoints (slantie/Drishtiksha); V4 has a hidden layer in its heads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self, cast

import torch
from torch import Tensor, nn

from clipwarden.models.backbones.siglip import SiglipShape, SiglipTower

LAYERS: Final = 2


@dataclass(frozen=True, slots=True)
class SiglipLstmShape:
    """Sizes of the whole network; `head` is the width of the heads' hidden layer, 0 in V1 and V3."""

    tower: SiglipShape
    hidden: int = 512
    head: int = 0

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Self:
        """Read off a checkpoint's tensors. KeyError, IndexError or ValueError if they are no such network's."""
        deep = state.get("video_classifier.0.weight")
        return cls(
            tower=SiglipShape.of(state, "siglip_backbone."),
            hidden=state["lstm.weight_hh_l0"].shape[1],
            head=0 if deep is None else deep.shape[0],
        )


def _head(inputs: int, hidden: int) -> nn.Module:
    if not hidden:
        return nn.Linear(inputs, 1)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(0.5), nn.Linear(hidden, 1))


class SiglipLstmNetwork(nn.Module):
    """104,436,738 parameters in V1 and V3, 105,354,498 in V4 with the 512 wide heads of its code."""

    def __init__(self, shape: SiglipLstmShape) -> None:
        super().__init__()
        dropout = 0.5 if shape.head else 0.0
        self.siglip_backbone = SiglipTower(shape.tower)
        self.lstm = nn.LSTM(
            shape.tower.width, shape.hidden, LAYERS, batch_first=True, bidirectional=True, dropout=dropout
        )
        self.video_classifier = _head(2 * shape.hidden, shape.head)
        self.image_classifier = _head(shape.tower.width, shape.head)

    def embed(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, S, S) to embeddings (N, width)."""
        return cast("Tensor", self.siglip_backbone(pictures))

    def judge_sequences(self, embeddings: Tensor) -> Tensor:
        """Embeddings (N, T, width) to logits of fake (N,), from the last states forwards and backwards."""
        _, (states, _) = self.lstm(embeddings)
        return cast("Tensor", self.video_classifier(torch.cat([states[-2], states[-1]], dim=1))).squeeze(1)

    def judge_stills(self, embeddings: Tensor) -> Tensor:
        """Embeddings (N, width) to logits of fake (N,), each by itself."""
        return cast("Tensor", self.image_classifier(embeddings)).squeeze(1)
