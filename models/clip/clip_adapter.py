"""CLIP with adapters over time: do twelve frames, as CLIP sees them, look and move as filmed ones do?

Follows the card of Arko007/deepfake-detector-dfd-sota: ViT-L/14, twelve frames at 384 pixels, 5,255,938 trained
numbers, labels 0 real and 1 fake. Its code was never published; the adapters are AIM's (see `adapters`). A clip with
fewer frames shows some of them twice, as there; each is encoded once all the same. Departs from it in Pillow's bicubic
kernel, which is CLIP's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipwarden.models.backbones.clip import NORMALISATION, ClipShape
from clipwarden.models.backbones.pictures import PictureInput, in_batches, placed
from clipwarden.models.checkpoint import fit, read_state
from clipwarden.models.clip.adapters import ADAPTED, FRAMES, ClipAdapterNetwork
from clipwarden.models.clip.layouts import own_names
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.sights import looks
from clipwarden.models.visual.scores import Floats, frames_of, sigmoid, windows
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Dtype, Evidence, FrameNeed, Kernel, Needs
from clipwarden.shared.errors import DetectorError, WorkerFault

LEAST_FRAMES: Final = 4
NEED: Final = FrameNeed(view="frame", count=FRAMES, size_px=384, kernel=Kernel.PIL_BICUBIC)
INPUT: Final = PictureInput(384, *NORMALISATION)
CLIPS_AT_ONCE: Final = 2
LABELS: Final = ("real", "fake")


@dataclass(frozen=True, slots=True)
class ClipScores:
    """Logits (2,) of real and fake of a clip, and P(fake) of each of its frames (T,), in order of time.

    A frame's score is the head's word on that frame, which has seen the others.
    """

    logits: Floats
    per_frame: Floats

    @property
    def probabilities(self) -> Floats:
        """P(real) and P(fake)."""
        fake = sigmoid(self.logits[1] - self.logits[0])
        return np.array([1 - fake, fake])

    def as_seed_json(self) -> dict[str, Any]:
        """The result as the card's own functions return it, in plain numbers."""
        prediction = int(self.logits.argmax())
        return {
            "logits": [self.logits.tolist()],
            "probabilities": self.probabilities.tolist(),
            "prediction": prediction,
            "confidence": float(self.probabilities[prediction]),
        }


class ClipAdapter:
    """Judges up to twelve whole frames in the order of time."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="clip_adapter",
        version="1",
        branch=Branch.CLIP,
        needs=Needs(frames=NEED),
        features=("clip_adapter_prob_fake",),
        parameters=308_435_714,
        source="After the card of Arko007/deepfake-detector-dfd-sota; adapters of AIM (Yang et al., ICLR 2023)",
    )

    def __init__(self, network: ClipAdapterNetwork) -> None:
        self._network = network

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        """The sizes are read off the file, which is ours or the public checkpoint of a design that we can build.

        The tower and the adapters compute in `dtype`, the head always in float32.
        """
        name = weights.path.name
        state = own_names(read_state(weights), name)
        try:
            shape = ClipShape.of(state, "tower.")
        except (KeyError, IndexError, ValueError) as error:
            raise WorkerFault(f"weights {name} hold no vision tower of CLIP: {error!r}") from error
        if shape.layers < ADAPTED:
            raise WorkerFault(f"weights {name} are of a tower of {shape.layers} layers, at least {ADAPTED} are needed")
        network = ClipAdapterNetwork(shape)
        fit(network, state, name, device, dtype, keep=("head",))
        return cls(network)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the frames. Raises NotApplicable with fewer than four."""
        view = frames_of(clip.view(NEED), LEAST_FRAMES)
        scores = self.examine(view.images)
        score = float(scores.probabilities[1])
        return Evidence(
            score=score,
            features={"clip_adapter_prob_fake": score},
            windows=windows(view.times_s, scores.per_frame, clip.duration_s),
            looks=looks(view, scores.per_frame),
        )

    def examine(self, frames: NDArray[np.uint8]) -> ClipScores:
        """Everything the network says of one clip's RGB frames (T, 384, 384, 3), T from 1 to 12."""
        clip_logits, frame_logits = self._judged([frames])
        shown = frame_logits[0, np.searchsorted(_spread(len(frames)), np.arange(len(frames)))]
        return ClipScores(clip_logits[0], sigmoid(shown[:, 1] - shown[:, 0]))

    def predict(self, batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Logits of fake (N,), fake less real, of N clips of RGB frames (T, 384, 384, 3), T from 1 to 12."""
        real, fake = self._judged(batch)[0].T
        return np.asarray(fake - real)

    def _judged(self, batch: Sequence[NDArray[np.uint8]]) -> tuple[Floats, Floats]:
        """Logits of the clips (N, 2) and of their frames (N, 12, 2)."""
        if not batch or not all(1 <= len(frames) <= FRAMES for frames in batch):
            raise DetectorError(f"a clip must have 1 to {FRAMES} frames, got {[len(frames) for frames in batch]}")

        def through(rows: NDArray[np.int64]) -> Tensor:
            return self._embedded([batch[row] for row in rows])

        embeddings = torch.from_numpy(in_batches(through, np.arange(len(batch)), CLIPS_AT_ONCE))
        with torch.inference_mode():
            judged = self._network.judge(embeddings.to(placed(self._network)[0]))
        return judged.clips.cpu().numpy().astype(np.float64), judged.frames.cpu().numpy().astype(np.float64)

    def _embedded(self, batch: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Embeddings (N, 12, width); the frames of all clips go through the tower together, each once."""
        frames = np.concatenate(batch)
        INPUT.check(frames)
        tokens = self._network.encode(INPUT.tensor(frames, *placed(self._network)))
        clips = torch.split(tokens, [len(clip) for clip in batch])
        return self._network.follow(torch.stack([clip[_spread(len(clip))] for clip in clips]))


def _spread(frames: int) -> NDArray[np.int64]:
    """Which of a clip's frames stand in the twelve places, (12,)."""
    return np.linspace(0, frames - 1, FRAMES, dtype=np.int64)
