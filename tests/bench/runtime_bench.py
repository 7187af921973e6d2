"""What computes a network faster on two cores, torch or onnxruntime: one batch through each, in float32.

Where the weights manifest chooses onnxruntime it has to be the faster one, and where it does not, not by much. By the
clock: where other programs want the cores too, the runtime with the shorter waits looks better than it is.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from clipwarden.models.backbones.vit import VitClassifier, VitShape
from clipwarden.models.checkpoint import settle
from clipwarden.models.detector import Detector, detector_class
from clipwarden.models.graphs import Graph, graph_of
from clipwarden.models.runtime import OnnxNetwork
from clipwarden.models.tracing import onnx_bytes
from clipwarden.models.visual.frame_vit import FrameVit
from clipwarden.models.weights import state_of, verified, weights_table
from clipwarden.shared.contracts import DetectorState
from tests.bench.figures import Bench, Figure, figure
from tests.networks import write_weights

THREADS: Final = 2
BATCH: Final = 4
ROUNDS: Final = 4
BEYOND_EXAMPLES: Final[Mapping[str, int]] = {
    "forensic_mlp": 0,
    "cqcc_cnn": 336,
    "mel_resnet18": 0,
    "speech_stats": 0,
    "tiny_gate": 160,
    "frame_resnet18": 128,
    "frame_efficientnet_lite0": 0,
    "frame_efficientnet_b4": 128,
    "frame_stats": 0,
    "frame_vit": 0,
    "temporal_3dcnn": 128,
    "av_sync_seed": 0,
}
"""What is measured, and how much longer its axes of any length are than their examples: 400 columns, 256 or 224 px."""

MUCH_FASTER: Final = 0.5
"""Below this share of torch's time onnxruntime would be worth its choosing in the weights manifest."""

SPARED_NOTHING: Final = frozenset({"forensic_mlp", "speech_stats"})
"""Where it is not chosen all the same: these networks take a thousandth of the time that their features do."""


@figure
def runtimes(_: Bench) -> Iterator[Figure]:
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with TemporaryDirectory(prefix="clipwarden-bench-") as folder:
            for name, more in BEYOND_EXAMPLES.items():
                yield _figure(name, _ratio(graph_of(name, _full_size(name, Path(folder))), more))
    finally:
        torch.set_num_threads(threads)


def _figure(name: str, ratio: float) -> Figure:
    what = f"{name} network, onnxruntime / torch, {THREADS} cores"
    if weights_table()[name].runtime == "onnxruntime":
        return Figure(what, ratio, "ratio", limit=1.0)
    return Figure(what, ratio, "ratio", "higher", None if name in SPARED_NOTHING else MUCH_FASTER)


@torch.inference_mode()
def _ratio(graph: Graph, more: int) -> float:
    """Of the shortest times, taken in turn."""
    inputs, onnx = graph.samples(BATCH, more), OnnxNetwork(onnx_bytes(graph))
    times = [(_seconds(lambda: onnx(*inputs)), _seconds(lambda: graph.network(*inputs))) for _ in range(ROUNDS + 1)]
    theirs, ours = (min(column) for column in zip(*times[1:], strict=True))
    return theirs / ours


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _full_size(name: str, folder: Path) -> Detector:
    """With the weights that ship, or random ones; a ViT as large as the public one."""
    if name == "frame_vit":
        network = VitClassifier(VitShape())
        settle(network, "cpu")
        return FrameVit(network)
    ships = state_of(weights_table()[name]) is DetectorState.READY
    return detector_class(name).load(verified(name) if ships else write_weights(name, folder), "cpu")
