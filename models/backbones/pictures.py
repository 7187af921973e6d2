"""From uint8 pictures to a network's input, and through the network in batches that fit into memory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.backbones.memory import is_out_of_memory
from clipwarden.shared.errors import DetectorError

Triple = tuple[float, float, float]
Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PictureInput:
    """What a network was trained to see: square RGB, less `mean`, divided by `std`, both in units of [0, 1]."""

    size_px: int
    mean: Triple
    std: Triple

    def check(self, pictures: Pictures) -> None:
        """Raises DetectorError unless the pictures are uint8 (N, size_px, size_px, 3)."""
        if pictures.dtype != np.uint8 or pictures.shape[1:] != (self.size_px, self.size_px, 3):
            wanted = f"uint8 (N, {self.size_px}, {self.size_px}, 3)"
            raise DetectorError(f"pictures must be {wanted} in RGB, got {pictures.dtype} {pictures.shape}")

    def tensor(self, pictures: Pictures, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
        """Pictures (N, S, S, 3) as (N, 3, S, S) in channels_last order; they cross to the device as bytes."""
        levels = torch.from_numpy(np.array(pictures)).to(device).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(v, device=device).mul_(255).view(3, 1, 1) for v in (self.mean, self.std))
        return levels.sub_(mean).div_(std).to(dtype)


IMAGENET: Final[tuple[Triple, Triple]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES: Final[tuple[Triple, Triple]] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Mean and spread that bring [0, 1] to [-1, 1]."""


def placed(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where a network lies, and in which type it takes its input: those of its first parameter."""
    first = next(network.parameters())
    return first.device, first.dtype


def infer(
    network: nn.Module,
    taken: PictureInput,
    pictures: Pictures,
    at_once: int,
    forward: Callable[[Tensor], Tensor] | None = None,
) -> NDArray[np.float32]:
    """The network's (or `forward`'s) output (N, …) for pictures (N, S, S, 3), `at_once` at a time.

    Raises DetectorError for pictures of another kind.
    """
    taken.check(pictures)
    device, dtype = placed(network)

    def through(part: Pictures) -> Tensor:
        return (forward or network)(taken.tensor(part, device, dtype))

    return in_batches(through, pictures, at_once)


@torch.inference_mode()
def in_batches(through: Callable[[NDArray[Any]], Tensor], items: NDArray[Any], at_once: int) -> NDArray[np.float32]:
    """Outputs for all items (at least one), in their order.

    Where the device runs out of memory, the batch is halved and tried again, down to one item.
    """
    parts, start = [], 0
    while start < len(items):
        try:
            parts.append(through(items[start : start + at_once]).float().cpu())
            start += at_once
            continue
        except (MemoryError, RuntimeError) as error:
            if at_once == 1 or not is_out_of_memory(error):
                raise
        # Not before here is the error gone, and with it what its frames held of the batch.
        at_once //= 2
        torch.cuda.empty_cache()
    return torch.cat(parts).numpy()
