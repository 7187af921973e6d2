"""LipFD: do lips, face and sound of a window belong together?

Follows the published program of AaronComo/LipFD to the letter of its input (see `lipfd_input`), since only that fits
its weights: profile `original`. Departs from it in where the windows lie: spread over the whole clip, where the
original's places wrap beyond 260 frames, and in reading at most ten minutes of sound.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from clipwarden.models.audio.listening import SILENCE_DBFS, level_dbfs
from clipwarden.models.backbones.pictures import in_batches, placed
from clipwarden.models.checkpoint import fit, read_state
from clipwarden.models.detector import DetectorSpec, Dtype
from clipwarden.models.lipsync.lipfd_input import (
    FRAMES,
    PICTURE,
    SAMPLE_RATE_HZ,
    SIDE_PX,
    WINDOWS,
    columns,
    joined,
    mel_picture,
    seen,
)
from clipwarden.models.lipsync.lipfd_network import LipFdNetwork, LipFdShape, without_text
from clipwarden.models.visual.scores import Floats, frames_of, sigmoid
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import AudioNeed, Branch, Evidence, FrameNeed, Kernel, Needs, Window
from clipwarden.shared.errors import DetectorError, NotApplicable, WorkerFault

NEED: Final = FrameNeed(view="frame", count=WINDOWS, consecutive=FRAMES, size_px=SIDE_PX, kernel=Kernel.CV2_LINEAR)
SOUND: Final = AudioNeed(sample_rate_hz=SAMPLE_RATE_HZ, seconds=600, min_seconds=0.5)
CLIP_PX: Final = 224
WINDOWS_AT_ONCE: Final = 2
THRESHOLD: Final = 0.5


class LipFdOptions(BaseModel):
    """What the weights entry may say; the names are those of the original's configuration."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    profile: Literal["original"]
    arch: Literal["CLIP:ViT-L/14"] = "CLIP:ViT-L/14"
    window_len: int = Field(default=FRAMES, ge=FRAMES, le=FRAMES)
    n_extract: int = Field(default=WINDOWS, ge=WINDOWS, le=WINDOWS)


@dataclass(frozen=True, slots=True)
class LipFdScores:
    """P(fake) of a clip's windows (K,), in order of time."""

    per_window: Floats

    @property
    def mean(self) -> float:
        return float(self.per_window.mean())

    def as_seed_json(self, processing_time_s: float) -> dict[str, Any]:
        """The result as the original's document has it."""
        scores = self.per_window.tolist()
        return {
            "prediction": _word(self.mean),
            "confidence": max(self.mean, 1 - self.mean),
            "processing_time": processing_time_s,
            "frames_analyzed": len(scores),
            "frame_predictions": [{"index": k, "score": s, "prediction": _word(s)} for k, s in enumerate(scores)],
            "metrics": {"final_average_score": self.mean, "window_scores": scores},
        }


class LipFd:
    """Judges up to ten windows of five whole frames with their sound; finds no faces of its own."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="lipfd",
        version="1",
        branch=Branch.LIPSYNC,
        needs=Needs(frames=NEED, audio=SOUND),
        features=("lipfd_prob_fake",),
        parameters=451_130_407,
        source="LipFD (AaronComo/LipFD, NeurIPS 2024)",
    )

    def __init__(self, network: LipFdNetwork) -> None:
        self._network = network

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        """A checkpoint in the public layout, with CLIP's text tower, which is checked and let go, or without.

        The two networks compute in `dtype`, the weighing and the verdict always in float32. The entry must name the
        profile, since a file does not say for which input it was made.
        """
        name = weights.path.name
        _options(weights.options)
        state = without_text(read_state(weights), name)
        try:
            shape = LipFdShape.of(state)
        except (KeyError, IndexError, ValueError) as error:
            raise WorkerFault(f"weights {name} are not LipFD's: {error!r}") from error
        if shape.tower.patch_px * shape.tower.grid != CLIP_PX or not shape.tower.embedding:
            raise WorkerFault(f"weights {name} hold a CLIP tower for other pictures than {CLIP_PX} px")
        network = LipFdNetwork(shape)
        fit(network, state, name, device, dtype, keep=("get_weight", "fc"))
        return cls(network)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the windows. Raises NotApplicable without sound, in silence, or with fewer than five frames."""
        view = frames_of(clip.view(NEED), FRAMES)
        places, pictures = zip(*_windows(view, _sound(clip), clip.duration_s), strict=True)
        scores = LipFdScores(sigmoid(self.predict(np.stack(pictures))))
        return Evidence(
            score=scores.mean,
            features={"lipfd_prob_fake": scores.mean},
            windows=tuple(
                Window(start_s=a, end_s=b, score=float(s)) for (a, b), s in zip(places, scores.per_window, strict=True)
            ),
        )

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Logits of fake (N,) of windows (N, 1000, 2500, 3) in RGB, as `joined` makes them."""
        if batch.dtype != np.uint8 or batch.shape[1:] != PICTURE:
            raise DetectorError(f"windows must be uint8 (N, {PICTURE}), got {batch.dtype} {batch.shape}")
        device, dtype = placed(self._network)

        def through(part: NDArray[np.uint8]) -> Tensor:
            return cast("Tensor", self._network(*seen(part, device, dtype)))

        return in_batches(through, batch, WINDOWS_AT_ONCE).astype(np.float64)


def _options(options: Mapping[str, str]) -> LipFdOptions:
    try:
        return LipFdOptions.model_validate(dict(options))
    except ValidationError as error:
        raise WorkerFault(f"the options of lipfd in weights.toml do not fit: {error}") from error


def _sound(clip: Clip) -> NDArray[np.float32]:
    excerpts = clip.excerpts(SOUND)
    if not excerpts:
        raise NotApplicable(SkipCode.NO_AUDIO)
    wave = excerpts[0].samples
    if len(wave) < SOUND.min_seconds * SAMPLE_RATE_HZ:
        raise NotApplicable(SkipCode.AUDIO_TOO_SHORT)
    if level_dbfs(wave) < SILENCE_DBFS:
        raise NotApplicable(SkipCode.SILENT_AUDIO)
    return wave


def _windows(
    view: View, wave: NDArray[np.float32], duration_s: float
) -> Iterator[tuple[tuple[float, float], NDArray[np.uint8]]]:
    """Times and pictures of the windows whose frames and sound are all there; NotApplicable if none is.

    The sound is spread over all frames, as in the original: a track longer or shorter than the pictures is stretched.
    """
    sound, frames = mel_picture(wave), int(view.frames[-1]) + 1
    beyond = duration_s > SOUND.seconds
    width = round(sound.shape[1] * duration_s / SOUND.seconds) if beyond else sound.shape[1]
    found = False
    for start in np.unique(np.linspace(0, max(frames - FRAMES, 0), WINDOWS).round().astype(np.int64)).tolist():
        row = int(np.searchsorted(view.frames, start))
        rows, (first, last) = slice(row, row + FRAMES), columns(start, frames, width)
        whole = view.frames[rows].tolist() == list(range(start, start + FRAMES))
        if whole and first < last <= sound.shape[1]:
            found = True
            times = (max(float(view.times_s[row]), 0.0), max(float(view.times_s[row + FRAMES - 1]), 0.0))
            yield times, joined(sound[:, first:last], view.images[rows])
    if not found:
        raise NotApplicable(SkipCode.TOO_FEW_FRAMES)


def _word(score: float) -> str:
    return "FAKE" if score >= THRESHOLD else "REAL"
