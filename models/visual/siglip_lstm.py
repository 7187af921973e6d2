"""SIGLIP-LSTM V1, V3 and V4: does what SigLIP sees of the frames change as a filmed scene does?

Follows slantie/Drishtiksha: 120 frames spread over the clip, a shorter clip filled up with copies of its first frame,
and a window of up to 120 frames ending at each frame for the scores by frame. Departs from it in three ways: each frame
is encoded once, however many windows hold it; the windows end at each of those 120 frames, where it took fifty windows
of neighbouring frames from all of the video; a clip too short for a window is judged. The consistency score is ours: no
code of it exists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipwarden.models.backbones.pictures import HALVES, PictureInput, in_batches, infer, placed
from clipwarden.models.backbones.siglip_lstm import SiglipLstmNetwork, SiglipLstmShape
from clipwarden.models.checkpoint import fit, read_state
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.sights import looks
from clipwarden.models.visual.scores import Floats, frames_of, sigmoid, windows
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import Branch, Curve, Dtype, Evidence, FrameNeed, Kernel, Needs
from clipwarden.shared.errors import DetectorError, WorkerFault

FRAMES: Final = 120
LEAST_FRAMES: Final = 16
NEED: Final = FrameNeed(view="frame", count=FRAMES, size_px=224, kernel=Kernel.PIL_BICUBIC)
INPUT: Final = PictureInput(224, *HALVES)
SMOOTHING: Final = 10  # frames
FRAMES_PER_WINDOW: Final = 5
FRAMES_AT_ONCE: Final = 4
SEQUENCES_AT_ONCE: Final = 32
THRESHOLD: Final = 0.5

Version = Literal["V1", "V3", "V4"]


@dataclass(frozen=True, slots=True)
class SequenceScores:
    """P(fake) of a clip and of the windows that end at each of its frames, (T,), in order of time."""

    version: Version
    probability: float
    per_frame: Floats

    @property
    def rolling(self) -> Floats:
        """Mean over each frame and up to nine before it, (T,)."""
        sums = np.cumsum(np.insert(self.per_frame, 0, 0.0))
        ends = np.arange(1, len(sums))
        starts = np.maximum(ends - SMOOTHING, 0)
        return np.asarray((sums[ends] - sums[starts]) / (ends - starts))

    @property
    def score_variance(self) -> float:
        """Variance of the scores by frame."""
        return float(self.per_frame.var())

    @property
    def consistency_score(self) -> float:
        """One less the mean step between scores of neighbouring frames: 1 for a flat line, 0 for full swings."""
        return 1 - float(np.abs(np.diff(self.per_frame)).mean()) if len(self.per_frame) > 1 else 1.0

    def as_seed_json(self, duration_s: float) -> dict[str, Any]:
        """The result as SIGLIP-LSTM's own document has it; V1 has no scores by frame."""
        metadata: dict[str, Any] = {
            "model_version": self.version,
            "frames_analyzed": len(self.per_frame),
            "video_duration": duration_s,
        }
        if self.version != "V1":
            metadata["per_frame_scores"] = self.per_frame.tolist()
            metadata["rolling_average_scores"] = self.rolling.tolist()
            metadata["temporal_metrics"] = {
                "score_variance": self.score_variance,
                "consistency_score": self.consistency_score,
            }
        fake = self.probability > THRESHOLD
        confidence = self.probability if fake else 1 - self.probability
        return {"prediction": "FAKE" if fake else "REAL", "confidence": confidence, "metadata": metadata}


class SiglipLstm:
    """Judges up to 120 whole frames in the order of time."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="siglip_lstm",
        version="1",
        branch=Branch.VISUAL,
        needs=Needs(frames=NEED),
        features=("siglip_lstm_prob_fake",),
        parameters=105_354_498,
        source="SIGLIP-LSTM V1, V3 and V4 (slantie/Drishtiksha)",
    )

    def __init__(self, network: SiglipLstmNetwork, version: Version) -> None:
        self._network = network
        self._version = version

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        """Version and widths are read off the file; V1 and V3 are alike there, so option `version` may say V1.

        The tower computes in `dtype`, what follows it always in float32.
        """
        state, name = read_state(weights), weights.path.name
        try:
            shape = SiglipLstmShape.of(state)
        except (KeyError, IndexError, ValueError) as error:
            raise WorkerFault(f"weights {name} are of no version of SIGLIP-LSTM: {error!r}") from error
        if shape.tower.image_px != INPUT.size_px:
            raise WorkerFault(f"weights {name} are for pictures of {shape.tower.image_px} px, not {INPUT.size_px}")
        version = _version(shape, weights.options)
        network = SiglipLstmNetwork(shape)
        fit(network, state, name, device, dtype, keep=("lstm", "video_classifier", "image_classifier"))
        return cls(network, version)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the frames. Raises NotApplicable with fewer than 16."""
        view = frames_of(clip.view(NEED), LEAST_FRAMES)
        scores = self.examine(view.images)
        grouped, times_s = _grouped(scores.rolling), _grouped(view.times_s)
        return Evidence(
            score=scores.probability,
            features={"siglip_lstm_prob_fake": scores.probability},
            windows=windows(times_s, grouped, max(clip.duration_s, float(view.times_s[-1]))),
            facts={
                "model_version": float(scores.version.removeprefix("V")),
                "score_variance": scores.score_variance,
                "consistency_score": scores.consistency_score,
            },
            looks=looks(view, scores.per_frame),
            curves=(Curve(name="rolling", axis="time_s", x=view.times_s.tolist(), y=scores.rolling.tolist()),),
        )

    def examine(self, frames: NDArray[np.uint8]) -> SequenceScores:
        """Everything the network says of one clip's RGB frames (T, 224, 224, 3), T from 1 to 120."""
        logits = self._judged(_windows_of(self._encoded([frames])[0]))
        return SequenceScores(self._version, float(sigmoid(logits[-1])), sigmoid(logits))

    def predict(self, batch: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Logits of fake (N,) of N clips of RGB frames (T, 224, 224, 3), T from 1 to 120 and not alike for all."""
        return self._judged(np.concatenate([_windows_of(encoded)[-1:] for encoded in self._encoded(batch)]))

    def predict_stills(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Logits of fake (N,) of pictures (N, 224, 224, 3) that belong to no clip, by the head for stills."""
        embeddings = torch.from_numpy(self._encoded([batch])[0]).to(placed(self._network)[0])
        with torch.inference_mode():
            return self._network.judge_stills(embeddings).cpu().numpy().astype(np.float64)

    @torch.inference_mode()
    def _encoded(self, batch: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Embeddings (T, width) of each clip, the frames of all in common batches."""
        lengths = [len(frames) for frames in batch]
        if not lengths or not 1 <= min(lengths) <= max(lengths):
            raise DetectorError("a clip must have at least one frame")
        found = infer(self._network, INPUT, np.concatenate(batch), FRAMES_AT_ONCE, self._network.embed)
        return np.split(found, np.cumsum(lengths)[:-1])

    def _judged(self, sequences: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits of fake (N,) of windows (N, 120, width)."""
        device = placed(self._network)[0]

        def through(part: NDArray[Any]) -> Tensor:
            return self._network.judge_sequences(torch.from_numpy(part).to(device))

        return in_batches(through, sequences, SEQUENCES_AT_ONCE).astype(np.float64)


def _version(shape: SiglipLstmShape, options: Mapping[str, str]) -> Version:
    """V4 has a hidden layer, V1 and V3 have none. WorkerFault if the entry says otherwise."""
    named = options.get("version", "V4" if shape.head else "V3")
    if named not in get_args(Version) or (named == "V4") != bool(shape.head):
        raise WorkerFault(
            f"the entry of siglip_lstm names version {named}, its file is {'V4' if shape.head else 'V1 or V3'}"
        )
    return cast("Version", named)


def _windows_of(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each frame the window of 120 that ends with it, (T, 120, width).

    Where the clip has not begun early enough, copies of its first frame are put behind, as the original does.
    """
    ends, places = np.arange(len(embeddings))[:, None], np.arange(FRAMES)[None, :]
    starts = np.maximum(ends - FRAMES + 1, 0)
    taken = starts + places
    return embeddings[np.where(taken <= ends, taken, starts)]


def _grouped(values: Floats) -> Floats:
    """Means of each five values, (T,) to (ceil(T / 5),), so that the evidence stays small."""
    cuts = np.arange(FRAMES_PER_WINDOW, len(values), FRAMES_PER_WINDOW)
    return np.array([part.mean() for part in np.split(values, cuts)])
