"""The JSON of what reading a file tells beyond its size and length."""

from typing import Self

from pydantic import Field

from clipwarden.api.schema import ReasonView, View
from clipwarden.shared.contracts import MediaProbe
from clipwarden.shared.hints import hints


class ColourView(View):
    """How samples stand for colours, in the words of ITU-T H.273; null where the stream does not say."""

    pixel_format: str
    bit_depth: int
    primaries: str | None
    transfer: str | None
    matrix: str | None
    full_range: bool | None
    hdr: bool


class PictureSizesView(View):
    """Coded pictures of one type."""

    count: int
    mean_bytes: float
    deviation_bytes: float


class GroupsView(View):
    """Groups of pictures between key frames, by their number of pictures."""

    count: int
    closed: int
    shortest: int
    median: int
    longest: int


class MotionView(View):
    """Motion vectors of the first pictures: shares of the area, lengths in pixels."""

    pictures: int
    predicted: float
    moving: float
    median_px: float
    p95_px: float


class EncoderNoteView(View):
    """What the file says of what wrote it, unverified."""

    place: str
    key: str
    text: str


class ProvenanceView(View):
    """Traces of how the file was made: evidence to look at. No detector reads it."""

    hints: list[ReasonView] = Field(description="What the traces suggest, and what they cannot show")
    pictures: dict[str, PictureSizesView] = Field(description="By type: I, P, B")
    groups: GroupsView | None
    motion: MotionView | None
    bits_per_pixel: float
    hidden_pictures: int
    notes: list[EncoderNoteView]
    settings: dict[str, str]
    openings: int
    period: int
    tables: str | None
    quality: int | None


class ProbeView(View):
    """What reading the file tells beyond its size and length."""

    container: str
    header_duration_s: float | None
    video_codec: str | None
    variable_frame_rate: bool
    interlaced: bool
    rotation_deg: int
    mirrored: bool
    pixel_aspect: tuple[int, int] = Field(description="Width to height of a pixel; pictures are read unstretched")
    colour: ColourView | None
    audio_codec: str | None
    audio_streams: int
    sample_rate_hz: int
    channels: int
    channel_layout: str | None
    repairs: list[str] = Field(description="What was put right while the file was read")
    provenance: ProvenanceView | None

    @classmethod
    def from_domain(cls, seen: MediaProbe) -> Self:
        said = seen.model_dump()
        if seen.colour:
            said["colour"]["hdr"] = seen.colour.hdr
        if seen.provenance:
            said["provenance"]["hints"] = [hint.model_dump() for hint in hints(seen)]
        return cls.model_validate(said)
