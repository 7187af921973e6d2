"""LipFD at full size with random weights: one clip against the time that its matrix products alone would take."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clipwarden.models.checkpoint import save_from
from clipwarden.models.detector import detector_class
from clipwarden.models.kernels import resize
from clipwarden.models.lipsync.lipfd_network import LipFdNetwork, LipFdShape
from clipwarden.models.weights import WeightFile, weights_table
from clipwarden.shared.clip import Clip, Sound, View
from tests.floors import TIMES_THE_FLOOR, spent
from tests.media import speech
from tests.networks import pictures

WINDOWS, FRAMES = 10, 50
NAMES = ("lipfd", "lipfd_fixed")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file for each profile, of a network that is gone when they are read."""
    torch.manual_seed(0)
    network, folder = LipFdNetwork(LipFdShape()), tmp_path_factory.mktemp("full")
    for name in NAMES:
        save_from(network, folder / f"{name}.safetensors", dict(weights_table()[name].options))
    return folder


def _clip(name):
    """Fifty frames of one person: ten windows that share none."""
    needs, shown = detector_class(name).spec.needs, pictures(FRAMES, 500, seed=50)
    boxes = np.tile(np.array([[0, 0, 90, 90]], np.float32), (FRAMES, 1))
    views = {
        need.key: View.of(
            np.stack([resize(i, need.size_px, need.kernel) for i in shown]), np.arange(FRAMES) / 25, boxes
        )
        for need in needs.views
    }
    rate_hz = needs.audio.sample_rate_hz
    return Clip(views=views, sounds={rate_hz: Sound.whole(speech(3))}, duration_s=FRAMES / 25)


def _operations():
    """Floating-point operations of the two networks for one clip, all of them matrix products or convolutions."""
    with torch.device("meta"):
        network, picture, crops = (
            LipFdNetwork(LipFdShape()),
            torch.empty(1, 3, 1120, 1120),
            torch.empty(1, 5, 3, 3, 224, 224),
        )
    with FlopCounterMode(display=False) as counter:
        network.eval()(picture, crops)
    return counter.get_total_flops() * WINDOWS


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_one_clip_takes_little_more_than_its_matrix_products(name, files):
    clip = _clip(name)
    weights = WeightFile(files / f"{name}.safetensors", "sha256:0", weights_table()[name].options)
    detector = detector_class(name).load(weights, "cpu")
    evidence, cost = spent(name, detector, clip, _operations())
    assert len(evidence.windows) == WINDOWS
    assert cost.times_the_floor <= TIMES_THE_FLOOR
