"""Two towers for mouth and sound: do the lips move as the speech demands, and when?

Our own. Each moment of five frames is compared with the sound up to half a second early and late, both as they differ
from the clip's usual mouth and sound. Files often carry their sound a little early or late: the clip is judged at the
offset that suits all its moments best among those that viewers let pass, up to 128 ms. A larger shift counts as out of
sync.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipwarden.models.audio.mel import HOP, MELS, SAMPLE_RATE_HZ
from clipwarden.models.audio.speech import SpeechNetwork, speech_network
from clipwarden.models.backbones.pictures import HALVES, PictureInput, in_batches, placed
from clipwarden.models.checkpoint import load_into
from clipwarden.models.detector import DetectorSpec
from clipwarden.models.lipsync.pairing import OFFSETS, REACH, STEP, Moment, pair
from clipwarden.models.lipsync.towers import COLUMNS, FRAMES, MOUTH_PX, SyncNetwork
from clipwarden.models.sights import looks
from clipwarden.models.visual.scores import Floats, faces_of, sigmoid
from clipwarden.models.weights import WeightFile
from clipwarden.shared.clip import Clip
from clipwarden.shared.contracts import AudioNeed, Branch, Curve, Dtype, Evidence, FrameNeed, Kernel, Needs, Window
from clipwarden.shared.errors import DetectorError

MOMENTS: Final = 30
MOUTHS: Final = FrameNeed(
    view="mouth", count=MOMENTS, consecutive=FRAMES, size_px=MOUTH_PX, margin=0.6, kernel=Kernel.CV2_AREA
)
SOUND: Final = AudioNeed(seconds=360, min_seconds=1, window_s=360 / MOMENTS)
"""As many stretches as moments, both spread over the clip, so that each moment of a long clip has sound about it."""

INPUT: Final = PictureInput(MOUTH_PX, *HALVES)
TOLERATED: Final = 4  # offsets to each side
OFFSET_S: Final = STEP * HOP / SAMPLE_RATE_HZ
MOUTHS_AT_ONCE: Final = 8
NEIGHBOURS: Final = 3
"""Moments to each side that a moment's own score is the mean over: one alone says little."""
SOUNDS_AT_ONCE: Final = 128


@dataclass(frozen=True, slots=True)
class SyncCurve:
    """Logits (K, 33) of being in sync of K moments, from sound half a second early to half a second late.

    NaN where the clip has no sound at an offset.
    """

    logits: Floats

    @property
    def mean(self) -> Floats:
        """Over the moments that know an offset, (33,); -inf where none does."""
        known = ~np.isnan(self.logits)
        sums, counts = np.where(known, self.logits, 0).sum(axis=0), known.sum(axis=0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)

    @property
    def offset(self) -> int:
        """The offset that suits best, in steps; positive where the sound comes late."""
        return int(self.mean.argmax()) - REACH

    @property
    def tolerated(self) -> int:
        """The best among the offsets that count as in sync."""
        return int(self.mean[REACH - TOLERATED : REACH + TOLERATED + 1].argmax()) - TOLERATED

    @property
    def drawn(self) -> Curve:
        """Probability of being in sync by seconds that the sound comes late; without offsets that nobody knows."""
        known = np.flatnonzero(np.isfinite(self.mean))
        late_s = np.round((known - REACH) * OFFSET_S, 6)
        return Curve(name="in_sync_by_offset", axis="offset_s", x=late_s.tolist(), y=sigmoid(self.mean[known]).tolist())

    @property
    def by_moment(self) -> Floats:
        """Logits of being in sync (K,) at the tolerated offset, or at none where the sound does not reach it."""
        chosen = self.logits[:, REACH + self.tolerated]
        return np.where(np.isnan(chosen), self.logits[:, REACH], chosen)

    @property
    def around(self) -> Floats:
        """The same, each the mean over the moments about it (K,)."""
        own = self.by_moment
        near = np.abs(np.subtract.outer(np.arange(len(own)), np.arange(len(own)))) <= NEIGHBOURS
        return np.asarray(near @ own / near.sum(axis=1))


class AvSync:
    """Judges up to thirty moments of the most prominent person speaking."""

    spec: ClassVar[DetectorSpec] = DetectorSpec(
        name="av_sync",
        version="2",
        branch=Branch.LIPSYNC,
        needs=Needs(frames=MOUTHS, audio=SOUND),
        features=("sync_prob",),
        parameters=6_170,
        source="Two linear towers for mouth and sound, after SyncNet (Chung and Zisserman, 2016), by Clipwarden",
    )

    def __init__(self, network: SyncNetwork, speech: SpeechNetwork) -> None:
        self._network = network
        self._speech = speech

    @classmethod
    def load(cls, weights: WeightFile, device: str, dtype: Dtype = "float32") -> Self:
        """Everything is a last layer, and those compute in float32 whatever the `dtype`."""
        network = SyncNetwork()
        load_into(network, weights, device, dtype, keep=("last", "scorer"))
        return cls(network, speech_network())

    def assess(self, clip: Clip) -> Evidence:
        """Judge the moments with speech; `sync_prob` is high in sync, the score is P(fake), one less it.

        Raises NotApplicable as `faces_of` and `pair` do. The fact `offset_s` is the best of all offsets, positive where
        the sound comes late.
        """
        view = faces_of(clip.view(MOUTHS), FRAMES)
        paired = pair(clip, view, SOUND, self._speech)
        curve = self.examine(paired.moments)
        in_sync = float(sigmoid(curve.by_moment.mean()))
        scores = sigmoid(-curve.around)
        middles = np.array([(m.start_s + m.end_s) / 2 for m in paired.moments])
        rows = np.abs(view.times_s[:, None] - middles).argmin(axis=0)
        return Evidence(
            score=1 - in_sync,
            features={"sync_prob": in_sync},
            windows=tuple(
                Window(start_s=m.start_s, end_s=m.end_s, score=float(s))
                for m, s in zip(paired.moments, scores, strict=True)
            ),
            gaps=paired.gaps,
            facts={"offset_s": curve.offset * OFFSET_S, "moments_judged": len(paired.moments)},
            looks=looks(view, scores, rows.tolist()),
            curves=(curve.drawn,),
        )

    def examine(self, moments: Sequence[Moment]) -> SyncCurve:
        """Compare the moments of a clip with their sound at every offset; each mouth and each sound is encoded once.

        Embeddings are taken less their mean over the moments, of the sounds that over those in place.
        """
        mouths = self._mouths(np.stack([moment.mouths for moment in moments]))
        sounds = self._sounds(np.concatenate([moment.candidates() for moment in moments]))
        sounds = sounds.reshape(len(moments), OFFSETS, -1)
        logits = self._scored((mouths - mouths.mean(axis=0))[:, None], sounds - sounds[:, REACH].mean(axis=0))
        return SyncCurve(np.where(np.stack([moment.known for moment in moments]), logits, np.nan))

    def predict(self, batch: tuple[NDArray[np.uint8], NDArray[np.float32]]) -> NDArray[np.float64]:
        """Logits of fake (N,), out of sync, of N mouths (N, 5, 96, 96, 3) in RGB, each with a sound (N, 80, 13)."""
        mouths, sounds = batch
        return -self._scored(self._mouths(mouths), self._sounds(sounds))

    def _mouths(self, mouths: NDArray[np.uint8]) -> NDArray[np.float32]:
        if mouths.shape[1:2] != (FRAMES,):
            raise DetectorError(f"moments must have {FRAMES} frames each, got {mouths.shape}")
        INPUT.check(mouths.reshape(-1, *mouths.shape[2:]))
        device, dtype = placed(self._network)

        def through(part: NDArray[np.uint8]) -> Tensor:
            frames = INPUT.tensor(part.reshape(-1, *part.shape[2:]), device, dtype)
            return cast(
                "Tensor", self._network.mouth(frames.view(len(part), FRAMES, *frames.shape[1:]).transpose(1, 2))
            )

        return in_batches(through, mouths, MOUTHS_AT_ONCE)

    def _sounds(self, sounds: NDArray[np.float32]) -> NDArray[np.float32]:
        if sounds.shape[1:] != (MELS, COLUMNS):
            raise DetectorError(f"sounds must be (N, {MELS}, {COLUMNS}), got {sounds.shape}")
        device, dtype = placed(self._network)

        def through(part: NDArray[np.float32]) -> Tensor:
            return cast("Tensor", self._network.sound(torch.from_numpy(part).to(device, dtype).unsqueeze(1)))

        return in_batches(through, sounds, SOUNDS_AT_ONCE)

    @torch.inference_mode()
    def _scored(self, mouths: NDArray[np.float32], sounds: NDArray[np.float32]) -> Floats:
        device = placed(self._network)[0]
        a, b = (torch.from_numpy(x).to(device) for x in (mouths, sounds))
        return cast("Tensor", self._network.scorer(a, b)).cpu().numpy().astype(np.float64)
