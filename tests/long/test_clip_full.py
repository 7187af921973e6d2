"""The CLIP adapter at full size with random weights: one clip against the time of its matrix products alone."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clipwarden.models.backbones.clip import ClipShape
from clipwarden.models.checkpoint import save_from
from clipwarden.models.clip.adapters import ClipAdapterNetwork
from clipwarden.models.clip.clip_adapter import NEED, ClipAdapter
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, View
from tests.floors import TIMES_THE_FLOOR, spent
from tests.networks import pictures

FRAMES = 12


def _operations():
    with torch.device("meta"):
        network, frames = ClipAdapterNetwork(ClipShape()), torch.empty(1, FRAMES, 3, 384, 384)
    with FlopCounterMode(display=False) as counter:
        network.eval()(frames)
    return counter.get_total_flops()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_one_clip_takes_little_more_than_its_matrix_products(tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "clip_adapter.safetensors"
    save_from(ClipAdapterNetwork(ClipShape()), file, {})
    detector = ClipAdapter.load(WeightFile(file, "sha256:0"), "cpu")
    view = View.of(pictures(FRAMES, 384), np.arange(FRAMES) / 4)
    clip = Clip(views={NEED.key: view}, duration_s=3.0)
    evidence, cost = spent("clip_adapter", detector, clip, _operations())
    assert len(evidence.windows) == FRAMES
    assert cost.times_the_floor <= TIMES_THE_FLOOR
