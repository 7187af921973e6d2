"""What seeing costs: CPU of each visual detector over the least that its networks ask of this machine's arithmetic.

The least is the floating point operations of convolutions and products of matrices, at the rate of a large product in
the same type, on one thread, in the same run; recurrent layers are not counted in it, so the ratios are too high rather
than too low. Networks are of full size, none above a gigabyte, and random where no weights ship. They compute in
the type that ships.
"""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clipwarden.models.backbones.siglip import SiglipShape
from clipwarden.models.backbones.siglip_lstm import SiglipLstmNetwork, SiglipLstmShape
from clipwarden.models.backbones.vit import VitClassifier, VitShape
from clipwarden.models.checkpoint import save_from
from clipwarden.models.detector import DETECTORS, DetectorSpec, detector_class
from clipwarden.models.faces import FaceDetector
from clipwarden.models.weights import WeightFile, file_digest, state_of, verified, weights_table
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.contracts import Branch, DetectorState, Dtype
from tests import networks
from tests.bench.figures import Bench, Figure, cpu_s, figure
from tests.portraits import EXHIBITS, exhibit, packaged_detector

MOST_PICTURES: Final = 16
FACE_PX: Final = 120
LARGE_FLOPS: Final = 1e9
"""Operations for a picture from which on a network must come near the least."""

NEAR: Final = 2.5
RESIDENT_GB: Final = 1.2
SIDE: Final = 1024  # of the product whose rate counts
VIT: Final = VitShape()
SIGLIP_LSTM: Final = SiglipLstmShape(SiglipShape(), head=512)


@figure
def visual_cost(_: Bench) -> Iterator[Figure]:
    """All that each detector does to up to 16 of a clip's pictures."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with TemporaryDirectory(prefix="clipwarden-bench-") as folder:
            for name in _visual():
                yield from _costs(name, weights_table()[name].dtype, full_size(name, Path(folder)))
    finally:
        torch.set_num_threads(threads)


@figure
def faces_cost(_: Bench) -> Iterator[Figure]:
    """What finding the faces of a picture costs, beside the detector of the package that ships the networks."""
    pictures, ours, theirs = [exhibit(k) for k in range(EXHIBITS)], FaceDetector(), packaged_detector()
    cost = cpu_s(lambda: [ours.detect([picture]) for picture in pictures])
    yield Figure("MTCNN CPU for a picture", cost / EXHIBITS * 1000, "ms")
    rival = cpu_s(lambda: [theirs.detect_faces(picture) for picture in pictures])
    yield Figure("MTCNN CPU / the package's own", cost / rival, "ratio", limit=1.0)


@figure
def visual_memory(_: Bench) -> Iterator[Figure]:
    """A process that has imported what a worker does, loaded what is ready and judged with it."""
    said = subprocess.run(
        [sys.executable, "-m", "tests.bench.visual_bench"], check=True, capture_output=True, text=True
    )
    yield Figure("visual worker, most resident", int(said.stdout) / 1e9, "GB", limit=RESIDENT_GB)


def rate(dtype: Dtype) -> float:
    """Floating point operations in a second of CPU, in a large product of matrices."""
    a, b = (torch.randn(SIDE, SIDE).to(getattr(torch, dtype)) for _ in range(2))
    torch.mm(a, b)
    return 2 * SIDE**3 / cpu_s(lambda: torch.mm(a, b), repeats=7)


def full_size(name: str, folder: Path) -> WeightFile:
    """The detector's own weights, or random ones as an installed file. Two networks are otherwise tested small."""
    if state_of(weights_table()[name]) is DetectorState.READY:
        return verified(name)
    small = networks.write_weights(name, folder)
    if name == "frame_vit":
        networks.write_vit_config(
            small.path.parent / "config.json",
            patch_size=VIT.patch_px,
            hidden_size=VIT.width,
            num_hidden_layers=VIT.layers,
            num_attention_heads=VIT.heads,
            intermediate_size=VIT.inner,
        )
        return _written(VitClassifier(VIT), small.path)
    return _written(SiglipLstmNetwork(SIGLIP_LSTM), small.path) if name == "siglip_lstm" else small


def _written(network: nn.Module, path: Path) -> WeightFile:
    save_from(network, path, {})
    return WeightFile(path, file_digest(path), {})


def _visual() -> list[str]:
    return [name for name in DETECTORS if weights_table()[name].branch is Branch.VISUAL]


def _costs(name: str, dtype: Dtype, weights: WeightFile) -> Iterator[Figure]:
    detector = detector_class(name).load(weights, "cpu", dtype)
    clip, shown = _clip(detector.spec)
    with FlopCounterMode(display=False) as counter:
        detector.assess(clip)
    flops, cost = counter.get_total_flops(), cpu_s(partial(detector.assess, clip))
    yield Figure(f"{name} CPU for a picture", cost / shown * 1000, "ms")
    limit = NEAR if flops / shown > LARGE_FLOPS else None
    yield Figure(f"{name} CPU / its products in {dtype}", cost / (flops / rate(dtype)), "ratio", limit=limit)


def _clip(spec: DetectorSpec) -> tuple[Clip, int]:
    """A clip of what the detector looks at, and how many pictures that are."""
    need = spec.needs.frames
    assert need is not None
    n = min(need.count, MOST_PICTURES)
    boxes = np.tile(np.array([0, 0, FACE_PX, FACE_PX], np.float32), (n, 1))
    view = View.of(networks.pictures(n, need.size_px), np.arange(n, dtype=np.float64), boxes)
    return Clip(views={need.key: view}, duration_s=float(n)), n


def main() -> int:
    """The process whose memory is measured: prints the most bytes that were resident in it."""
    import clipwarden.workers.tasks  # noqa: F401 - what a worker imports counts
    from clipwarden.models.assess import load
    from clipwarden.models.pipeline import local_detectors

    held = [load(entry, "cpu") for entry in local_detectors(Branch.VISUAL)]
    for one in held:
        one.detector.assess(_clip(one.detector.spec)[0])
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
