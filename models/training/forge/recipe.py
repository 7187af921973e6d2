"""What a recipe is: what it makes fake, what it needs, and how it turns a clip that was looked at into edits.

A recipe first draws its parameters, which are recorded; what else it draws comes from the same seeded source. It then
gives an edit of single pictures, of the whole sound, or of both. Pictures pass one at a time, in display order.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from clipwarden.shared.contract import Contract
from clipwarden.shared.errors import ConfigError

Picture = NDArray[np.uint8]
Wave = NDArray[np.float32]
Points = NDArray[np.float64]
Rng = np.random.Generator
Parameters = Mapping[str, float]

LEVEL_FLOOR: Final = 1e-6
SMALLEST_FACE_PX: Final = 48
SHORTEST_SOUND_S: Final = 0.5


class NotForgeable(ConfigError):  # noqa: N818 - named after what is wrong
    """This recipe cannot be made of this clip; the message says what is missing."""


class Truth(StrEnum):
    """What is true of one modality; absent where there is nothing to be true of."""

    REAL = "real"
    FAKE = "fake"
    UNKNOWN = "unknown"
    ABSENT = "absent"


class Labels(Contract):
    """What is true of the picture, of the voice, and of their belonging together."""

    visual: Truth
    audio: Truth
    sync: Truth

    @property
    def fake(self) -> bool:
        """Whether anything about the clip is fake."""
        return Truth.FAKE in (self.visual, self.audio, self.sync)


class Need(StrEnum):
    """What a recipe cannot do without."""

    PICTURES = "moving pictures"
    FACE = f"a face of at least {SMALLEST_FACE_PX} pixels"
    SOUND = f"at least {SHORTEST_SOUND_S:g} s of sound"
    OTHER_FACE = "another clip with such a face"
    OTHER_SOUND = "another clip with such sound"


@dataclass(frozen=True, slots=True)
class Moment:
    """One frame as it passes. image: uint8 (H, W, 3) RGB; points: (5, 2) landmarks, None where no face was seen."""

    index: int
    time_s: float
    image: Picture
    points: Points | None


@dataclass(frozen=True, slots=True)
class Portrait:
    """A face kept from a clip: its surroundings, uint8 (H, W, 3) RGB, and landmarks (5, 2) in them."""

    image: Picture
    points: Points


@dataclass(frozen=True, slots=True)
class Take:
    """What was learnt of a clip by looking through it once; no frame is kept but the portraits.

    `still` is the whole frame with its best face; `portraits` are cut-outs spread over the clip. wave: float32 (N,)
    mono in [-1, 1), empty if there is no sound. A clip that does not move is one picture, shown `frames` times.
    """

    digest: str
    frames: int
    fps: float
    width: int
    height: int
    wave: Wave
    rate_hz: int
    moving: bool = True
    still: Portrait | None = None
    portraits: tuple[Portrait, ...] = ()

    @property
    def has_sound(self) -> bool:
        """Whether there is any sound that is not digital silence."""
        return bool(len(self.wave)) and float(np.abs(self.wave).max()) > LEVEL_FLOOR

    @property
    def loudness(self) -> NDArray[np.float64]:
        """Level of the sound during each frame over that of the loudest, (frames,); zero without sound."""
        if not self.has_sound or not self.frames:
            return np.zeros(self.frames)
        edges = np.minimum(np.arange(self.frames + 1) * self.rate_hz / self.fps, len(self.wave)).astype(np.int64)
        sums = np.concatenate([[0.0], np.cumsum(self.wave.astype(np.float64) ** 2)])
        power = np.diff(sums[edges]) / np.maximum(np.diff(edges), 1)
        return np.asarray(np.sqrt(np.maximum(power, 0) / max(float(power.max()), 1e-12)), np.float64)


class Speech(Contract):
    """What a voice that is not a person's says, and which voice it is."""

    voice: str
    words: str


@dataclass(frozen=True, slots=True)
class Sources:
    """The clip to manipulate and, for recipes that need it, another one to take from, and what shall be said."""

    clip: Take
    other: Take | None = None
    speech: Speech | None = None


Edit = Callable[[Moment], Picture | None]
"""A frame's new picture; None leaves the frame out, the others keep their times."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to manipulate a clip. `fakes` are the modalities that it makes fake; the others are left alone."""

    name: str
    version: int
    summary: str
    fakes: frozenset[Literal["visual", "audio", "sync"]]
    needs: frozenset[Need]
    draw: Callable[[Rng], dict[str, float]]
    look: Callable[[Sources, Parameters, Rng], Edit] | None = None
    listen: Callable[[Sources, Parameters, Rng], Wave] | None = None
    say: Callable[[Take, str | None, Parameters, Rng], Speech] | None = None
    """What is said in this clip, of given words if there are any."""
    package: str | None = None
    """An optional package that it needs, as it is imported."""
    wheel: str | None = None
    """What to install for this package where its name is another."""

    def labels(self, before: Labels) -> Labels:
        """What is true of the clip after it was manipulated; what was fake or absent before stays so."""
        truths = before.model_dump()
        made = {part: Truth.FAKE for part in self.fakes if truths[part] is not Truth.ABSENT}
        return Labels.model_validate({**truths, **made})

    def check(self, sources: Sources) -> None:
        """Raises NotForgeable if something that it needs is not there."""
        if missing := self.missing(sources):
            raise NotForgeable(f"{self.name} needs {', '.join(missing)}, which there is not")

    def missing(self, sources: Sources) -> list[Need]:
        """What it needs and these do not have."""
        return sorted(need for need in self.needs if not _met(need, sources))

    @property
    def needs_other(self) -> bool:
        """Whether it takes something from another clip."""
        return bool(self.needs & {Need.OTHER_FACE, Need.OTHER_SOUND})


def _met(need: Need, sources: Sources) -> bool:
    other = sources.other
    return {
        Need.PICTURES: sources.clip.frames > 1 and sources.clip.moving,
        Need.FACE: sources.clip.still is not None,
        Need.SOUND: _heard(sources.clip),
        Need.OTHER_FACE: other is not None and bool(other.portraits),
        Need.OTHER_SOUND: other is not None and _heard(other),
    }[need]


def _heard(take: Take) -> bool:
    return take.has_sound and len(take.wave) >= SHORTEST_SOUND_S * take.rate_hz


def seeded(seed: int, *names: str) -> Rng:
    """A source of randomness of its own for what these names describe."""
    digest = hashlib.sha256("/".join([str(seed), *names]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def uniform(rng: Rng, **ranges: tuple[float, float]) -> dict[str, float]:
    """One number from each range, rounded so that its record is all of it."""
    return {name: round(float(rng.uniform(low, high)), 4) for name, (low, high) in ranges.items()}
