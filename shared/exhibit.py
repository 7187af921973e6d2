"""Evidence that a person can look at: which pictures a detector judged, its curves, and the files that show them."""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, FiniteFloat, model_validator

from clipwarden.shared.contract import Contract, Score

NAME: Final = r"^[a-z0-9_-]{1,60}\.(jpg|png|json)$"

Moment = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Seconds from the start of the clip."""
Box = tuple[int, int, int, int]
"""x1 y1 x2 y2 in pixels of the displayed frame; may reach beyond it, as a square about a face at its edge does."""


class ExhibitKind(StrEnum):
    """`face`, `mouth`: what the detector saw, cut out. `frames`: its pictures side by side, in order of time, by row.

    `heatmap`: brighter where it saw more of a fake, black is P(fake) 0 and white 1. `residual`: noise, brightened, grey
    where there is none. `spectrogram`: time to the right, low tones below, white the loudest. `series`: all scores over
    time, boxes and curves, as JSON.
    """

    FACE = "face"
    MOUTH = "mouth"
    FRAMES = "frames"
    HEATMAP = "heatmap"
    RESIDUAL = "residual"
    SPECTROGRAM = "spectrogram"
    SERIES = "series"


class Look(Contract):
    """One picture that a detector judged: when, where, whose (0 is the clip's most prominent person), and its score."""

    time_s: Moment
    frame: int = Field(ge=0)
    person: int = Field(ge=0)
    box: Box
    score: Score


class Curve(Contract):
    """Numbers `y` over an axis: seconds of the clip, or seconds by which the sound is late."""

    name: str = Field(pattern=r"^[a-z0-9_]{1,40}$")
    axis: Literal["time_s", "offset_s"]
    x: tuple[FiniteFloat, ...]
    y: tuple[FiniteFloat, ...]

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError("a curve has one y for each x")
        return self


class Exhibit(Contract):
    """What is known of one file; its content is kept in the blob store, in the folder of its detector.

    A picture was seen at `time_s`, or shows the stretch from there to `end_s`; `box` is where it lies in the displayed
    frame, so that it can be laid over it.
    """

    kind: ExhibitKind
    name: str = Field(pattern=NAME)
    size_bytes: int = Field(ge=0)
    time_s: Moment | None = None
    end_s: Moment | None = None
    box: Box | None = None
