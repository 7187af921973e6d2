"""LipFD at full size with random weights: one clip against the time that its matrix products alone would take."""

import gc
import time
from pathlib import Path

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
from tests.media import speech
from tests.networks import pictures

TIMES_THE_FLOOR = 2.5
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


@pytest.fixture(autouse=True)
def _on_one_core():
    """Seconds of work are counted on one core, so that whatever else the machine does is not."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


def _floor_s(operations):
    """CPU seconds of that many operations at the rate of a large matrix product in float32, the best of some."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    taken = []
    for _ in range(8):
        before = time.process_time()
        a @ b
        taken.append(time.process_time() - before)
    return operations / (2 * 2048**3) * min(taken)


def _memory(line):
    """GiB of memory that the process has now (VmRSS) or had at most (VmHWM) since `_forget_peak`."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(one.split()[1]) for one in lines if one.startswith(f"{line}:")) / 2**20


def _forget_peak():
    Path("/proc/self/clear_refs").write_text("5", "ascii")


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_one_clip_takes_little_more_than_its_matrix_products(name, files):
    clip = _clip(name)
    weights = WeightFile(files / f"{name}.safetensors", "sha256:0", weights_table()[name].options)
    detector = detector_class(name).load(weights, "cpu")
    gc.collect()
    floor_s, loaded = _floor_s(_operations()), _memory("VmRSS")
    _forget_peak()
    started = time.process_time()
    evidence = detector.assess(clip)
    taken_s = time.process_time() - started
    print(
        f"{name}: {taken_s:.1f} s of one core, {taken_s / floor_s:.2f} times its floor of {floor_s:.1f} s; "
        f"the process has {loaded:.2f} GiB when loaded and at most {_memory('VmHWM'):.2f} GiB while it judges"
    )
    assert len(evidence.windows) == WINDOWS
    assert taken_s <= TIMES_THE_FLOOR * floor_s
