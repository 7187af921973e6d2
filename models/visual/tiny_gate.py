"""The tiny gate: traces of upsampling and synthesis in single patches, cheap enough to run before everything else.

The network is that of Tiny-LaDeDa (Cavia et al., 2024): 1,297 parameters, a receptive field of five pixels, a fixed
filter in front. The patches are those of the 5-way pipeline in number, nine a face, and not in place: they are the
cells of a 3 x 3 grid over the whole map of logits, where it judged nine separate squares of 32 pixels. Departs from the
original in pooling over any shape. Which filter a file was trained behind is not in it: its entry's options say.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, Self, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipwarden.models.backbones.pictures import IMAGENET, PictureInput, in_batches, placed
from clipwarden.models.checkpoint import facts_of, load_into
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.sights import Picture, looks, shown, worst
from clipwarden.models.visual.scores import faces_of, sigmoid, statistics, windows
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence, ExhibitKind, FrameNeed, Kernel, Needs
from clipwarden.shared.errors import WorkerFault

NEED: Final = FrameNeed(view="face", count=16, size_px=256, margin=0.3, kernel=Kernel.PIL_BILINEAR)
GRID: Final = 3
AT_ONCE: Final = 8
WIDTH: Final = 8
HIGHEST_PATCH: Final = "highest_patch"
CLEAR_BELOW: Final = "clear_below"

Front = Literal["raw", "npr", "right_diag", "left_diag", "x_grad", "y_grad"]
Scaling = Literal["imagenet", "unit"]

INPUTS: Final[Mapping[str, PictureInput]] = {
    "imagenet": PictureInput(256, *IMAGENET),
    "unit": PictureInput(256, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
GRADIENTS: Final[Mapping[str, tuple[tuple[float, ...], ...]]] = {
    "right_diag": ((-2, -1, 0), (-1, 0, 1), (0, 1, 2)),
    "left_diag": ((0, 1, 2), (-1, 0, 1), (-2, -1, 0)),
    "x_grad": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "y_grad": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
}


_PROBABILITY: Final = re.compile(r"[01]|0?\.[0-9]+")


def front_filter(pictures: Tensor, kind: Front) -> Tensor:
    """What the network sees of normalised pictures (N, 3, H, W), in equal shape: a gradient, or neighbours compared.

    `npr` is the difference to the picture at half size and back, by nearest neighbours. Gradients take zeros outside.
    """
    if kind == "raw":
        return pictures
    if kind == "npr":
        height, width = pictures.shape[2:]
        half = pictures[:, :, : height // 2 * 2 : 2, : width // 2 * 2 : 2]
        return pictures - nn.functional.interpolate(half, (height, width), mode="nearest")
    kernel = torch.tensor(GRADIENTS[kind], dtype=pictures.dtype, device=pictures.device).expand(3, 1, 3, 3)
    return nn.functional.conv2d(pictures, kernel, padding=1, groups=3)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(WIDTH, WIDTH, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, 2, bias=False)
        self.bn2 = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)))


class TinyNetwork(nn.Module):
    """Filtered pictures (N, 3, H, W) to a map of logits of fake (N, H / 2 - 2, W / 2 - 2); 126 a side at 256."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTH, 1, bias=False)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTH)
        self.layer1 = nn.Sequential(_Block())
        self.fc = nn.Linear(WIDTH, 1)

    def forward(self, filtered: Tensor) -> Tensor:
        x = self.layer1(torch.relu(self.bn1(self.conv2(self.conv1(filtered)))))
        return cast("Tensor", self.fc(x.permute(0, 2, 3, 1).float())).squeeze(3)


@dataclass(frozen=True, slots=True)
class GateOptions:
    """What a weights file of this network does not say of itself, and what it may say.

    `clear_below` is the calibrated probability under which a patch counts as confidently real; without it no clip does.
    The file may hold it, and an option overrules that.
    """

    front: Front
    scaling: Scaling
    clear_below: float = 0.0

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Self:
        """Raises WorkerFault for options that are missing or unknown."""
        front, scaling, clear = (options.get(name, "") for name in ("front", "scaling", CLEAR_BELOW))
        if front not in get_args(Front) or scaling not in get_args(Scaling) or not _PROBABILITY.fullmatch(clear or "0"):
            raise WorkerFault(
                "the entry of tiny_gate in weights.toml must name the filter in front of its network: "
                f"options front ({', '.join(get_args(Front))}) and scaling ({', '.join(get_args(Scaling))}); "
                "clear_below, if it is there, must be a probability"
            )
        return cls(cast("Front", front), cast("Scaling", scaling), float(clear or "0"))


class TinyGate:
    """Judges up to 16 faces patch by patch; knows nothing of what the picture shows."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="tiny_gate",
        version="1",
        branch=Branch.VISUAL,
        needs=Needs(frames=NEED),
        features=("tiny_prob_mean", "tiny_prob_max", "tiny_prob_p90", "tiny_num_files", "tiny_num_patches"),
        parameters=1_297,
        source="Tiny-LaDeDa (barcavia/RealTime-DeepfakeDetection-in-the-RealWorld)",
    )

    def __init__(self, network: TinyNetwork, options: GateOptions) -> None:
        self._network = network
        self._options = options

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        network = TinyNetwork()
        load_into(network, weights, device, dtype, keep=("fc",))
        return cls(network, GateOptions.of({CLEAR_BELOW: facts_of(weights).get(CLEAR_BELOW, ""), **weights.options}))

    def assess(self, clip: Clip) -> Evidence:
        """Judge the faces; a face's P(fake) is the mean over its patches. Raises NotApplicable without one.

        The fact `highest_patch` is the largest P(fake) of all patches.
        """
        view = faces_of(clip.view(NEED))
        patches = self.patches(self.maps(view.images))
        per_face = patches.mean(axis=1)
        counts = {"tiny_num_files": float(len(view)), "tiny_num_patches": float(patches.size)}
        return Evidence(
            score=float(per_face.mean()),
            features={**statistics("tiny", per_face), **counts},
            windows=windows(view.times_s, per_face, clip.duration_s),
            facts={HIGHEST_PATCH: float(patches.max())},
            looks=looks(view, per_face),
        )

    def cleared(self, evidence: Evidence) -> bool:
        """Whether every patch of the clip is confidently real, so that costlier detectors may be spared."""
        return evidence.facts[HIGHEST_PATCH] < self._options.clear_below

    def pictures(self, clip: Clip, evidence: Evidence) -> Sequence[Picture]:
        """Heat maps of P(fake) by place (126, 126) of the most suspicious faces; one covers its whole crop."""
        view = clip.view(NEED)
        rows = worst(view, evidence.looks)
        if not rows:
            return ()
        heat = np.rint(255 * sigmoid(self.maps(view.images[rows]))).astype(np.uint8)
        return [shown(ExhibitKind.HEATMAP, h, view, row, NEED) for h, row in zip(heat, rows, strict=True)]

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Logits of fake (N,) of RGB faces (N, 256, 256, 3): the mean over the map, as in the original."""
        return np.asarray(self.maps(batch).mean(axis=(1, 2)))

    def maps(self, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Logits of fake by place, (N, 126, 126): a heat map whose cell (r, c) sees five pixels about (2r + 2, 2c + 2).

        Behind a gradient it sees seven. Raises DetectorError for pictures of another kind.
        """
        taken = INPUTS[self._options.scaling]
        taken.check(pictures)
        device, dtype = placed(self._network)

        def through(part: NDArray[np.uint8]) -> Tensor:
            # The filter takes differences of neighbours, too small for bfloat16 before they are taken.
            filtered = front_filter(taken.tensor(part, device), self._options.front)
            return cast("Tensor", self._network(filtered.to(dtype)))

        return in_batches(through, pictures, AT_ONCE).astype(np.float64)

    @staticmethod
    def patches(maps: NDArray[np.float64]) -> NDArray[np.float64]:
        """P(fake) of each patch (N, 9), by row: the logistic of the mean logit over its cell of a 3 x 3 grid."""
        n, side = len(maps), maps.shape[1] // GRID
        cells = maps[:, : GRID * side, : GRID * side].reshape(n, GRID, side, GRID, side)
        return sigmoid(cells.mean(axis=(2, 4)).reshape(n, GRID * GRID))
