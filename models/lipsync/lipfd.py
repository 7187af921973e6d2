"""LipFD: do lips, face and sound of a window belong together?

Follows the published program of AaronComo/LipFD to the letter of its input (see `lipfd_input`), since only that fits
its weights: profile `original`. Departs from it in where the windows lie: spread over the whole clip, where the
original's places wrap beyond 260 frames, and in reading at most ten minutes of sound.
"""

from collections.abc import Iterator
from typing import ClassVar, Final, Self, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clipwarden.models.audio.listening import SILENCE_DBFS, level_dbfs
from clipwarden.models.backbones.pictures import in_batches, placed
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.lipsync.lipfd_file import load_network, options_of
from clipwarden.models.lipsync.lipfd_input import PICTURE, SIDE_PX, columns, joined, mel_picture, seen
from clipwarden.models.lipsync.lipfd_network import LipFdNetwork
from clipwarden.models.lipsync.lipfd_windows import FRAMES, WINDOWS, LipFdScores, span, window_rows
from clipwarden.models.visual.scores import frames_of, sigmoid
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip, View
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import AudioNeed, Branch, Dtype, Evidence, FrameNeed, Kernel, Needs, Span
from clipwarden.shared.errors import DetectorError, NotApplicable

NEED: Final = FrameNeed(view="frame", count=WINDOWS, consecutive=FRAMES, size_px=SIDE_PX, kernel=Kernel.CV2_LINEAR)
SOUND: Final = AudioNeed(sample_rate_hz=22050, seconds=600, min_seconds=0.5)
WINDOWS_AT_ONCE: Final = 2


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

    def __init__(self, network: LipFdNetwork, windows: int = WINDOWS) -> None:
        self._network = network
        self._windows = windows

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        """The public checkpoint, or one of ours in its layout and of profile `original`; see `load_network`."""
        options = options_of(weights, "original")
        return cls(load_network(weights, device, dtype), options.n_extract)

    def assess(self, clip: Clip) -> Evidence:
        """Judge the windows. Raises NotApplicable without sound, in silence, or with fewer than five frames."""
        return self.examine(clip).evidence("lipfd_prob_fake")

    def examine(self, clip: Clip) -> LipFdScores:
        """P(fake) of each window; raises as `assess`."""
        view = frames_of(clip.view(NEED), FRAMES)
        found = list(_windows(view, window_rows(view, self._windows), _sound(clip), clip.duration_s))
        if not found:
            raise NotApplicable(SkipCode.AUDIO_TOO_SHORT)
        places, pictures = zip(*found, strict=True)
        return LipFdScores(sigmoid(self.predict(np.stack(pictures))), places)

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Logits of fake (N,) of windows (N, 1000, 2500, 3) in RGB, as `joined` makes them."""
        if batch.dtype != np.uint8 or batch.shape[1:] != PICTURE:
            raise DetectorError(f"windows must be uint8 (N, {PICTURE}), got {batch.dtype} {batch.shape}")
        device, dtype = placed(self._network)

        def through(part: NDArray[np.uint8]) -> Tensor:
            return cast("Tensor", self._network(*seen(part, device, dtype)))

        return in_batches(through, batch, WINDOWS_AT_ONCE).astype(np.float64)


def _sound(clip: Clip) -> NDArray[np.float32]:
    excerpts = clip.excerpts(SOUND)
    if not excerpts:
        raise NotApplicable(SkipCode.NO_AUDIO)
    wave = excerpts[0].samples
    if len(wave) < SOUND.min_seconds * SOUND.sample_rate_hz:
        raise NotApplicable(SkipCode.AUDIO_TOO_SHORT)
    if level_dbfs(wave) < SILENCE_DBFS:
        raise NotApplicable(SkipCode.SILENT_AUDIO)
    return wave


def _windows(
    view: View, rows: list[int], wave: NDArray[np.float32], duration_s: float
) -> Iterator[tuple[Span, NDArray[np.uint8]]]:
    """Times and pictures of the windows whose sound was read and makes at least a column.

    The sound is spread over all frames, as in the original: a track longer or shorter than the pictures is stretched.
    """
    sound, frames = mel_picture(wave, SOUND.sample_rate_hz), int(view.frames[-1]) + 1
    beyond = duration_s > SOUND.seconds
    width = round(sound.shape[1] * duration_s / SOUND.seconds) if beyond else sound.shape[1]
    for row in rows:
        first, last = columns(int(view.frames[row]), frames, width)
        if first < last <= sound.shape[1]:
            yield span(view, row), joined(sound[:, first:last], view.images[row : row + FRAMES])
