"""What a file is, as its probe found it: the frozen values of `MediaProbe` and of the provenance it shows."""

from enum import StrEnum
from typing import Literal

from pydantic import Field, PositiveInt

from clipwarden.shared.contract import Contract, Name, Score


class MediaKind(StrEnum):
    VIDEO = "video"
    AUDIO = "audio"
    IMAGE = "image"


class Repair(StrEnum):
    """What is put right, silently wrong otherwise, while a file is read; the table is in `media/probing`."""

    CLOCK_JUMPS = "clock_jumps"
    EDIT_LIST = "edit_list"
    MISSING_TIMES = "missing_times"
    NO_INDEX = "no_index"
    CUT_END = "cut_end"
    WRONG_DURATION = "wrong_duration"
    DAMAGED_PACKETS = "damaged_packets"


class Colour(Contract):
    """How samples stand for colours, in the words of ITU-T H.273; None where the stream does not say."""

    pixel_format: Name
    bit_depth: int = Field(gt=0, le=32)
    primaries: Name | None = None
    transfer: Name | None = None
    matrix: Name | None = None
    full_range: bool | None = None

    @property
    def hdr(self) -> bool:
        """Whether the light is coded for a high dynamic range: perceptual quantiser or hybrid log-gamma."""
        return self.transfer in {"pq", "hlg"}


PictureType = Literal["I", "P", "B"]


class PictureSizes(Contract):
    """Coded pictures of one type: how many, and their size."""

    count: int = Field(gt=0)
    mean_bytes: float = Field(ge=0, allow_inf_nan=False)
    deviation_bytes: float = Field(ge=0, allow_inf_nan=False)


class Groups(Contract):
    """Groups of pictures, each from a key frame to the next, by their number of pictures.

    `closed` of them start with a picture that nothing after it looks past. The last group, which the end of the file
    cuts, counts only if it is the only one.
    """

    count: int = Field(gt=0)
    closed: int = Field(ge=0)
    shortest: int = Field(gt=0)
    median: int = Field(gt=0)
    longest: int = Field(gt=0)


class Motion(Contract):
    """Vectors to earlier pictures in the first `pictures` predicted ones, weighted by the area they move.

    `predicted` is the share of the area that has a vector, `moving` the share of that with a vector other than zero;
    lengths are in pixels.
    """

    pictures: int = Field(gt=0)
    predicted: Score
    moving: Score
    median_px: float = Field(ge=0, allow_inf_nan=False)
    p95_px: float = Field(ge=0, allow_inf_nan=False)


class EncoderNote(Contract):
    """What the file says of what wrote it, as it stands there, unverified."""

    place: Literal["container", "video", "audio", "bitstream", "exif"]
    key: Name
    text: Name


class Provenance(Contract):
    """Traces of how a file was made, read without judging the picture: evidence to look at, never a feature.

    None of it can tell a manipulated clip from a real one: platforms and messengers leave the same traces as editors,
    and whoever wants to can write any of them. `settings` are those that the encoder wrote into the stream, `openings`
    how often one that does so once per stream (x264) introduces itself. `period` is the distance in pictures at which
    sizes peak without a key frame (0: none was found). `tables` says whose quantisation a JPEG uses, `quality` that of
    libjpeg's scale.
    `hints` puts all of this in words.
    """

    pictures: dict[PictureType, PictureSizes] = Field(default={})
    groups: Groups | None = None
    motion: Motion | None = None
    bits_per_pixel: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    hidden_pictures: int = Field(default=0, ge=0)
    notes: tuple[EncoderNote, ...] = Field(default=(), max_length=8)
    settings: dict[Name, Name] = Field(default={}, max_length=12)
    openings: int = Field(default=0, ge=0)
    period: int = Field(default=0, ge=0)
    tables: Literal["libjpeg", "other"] | None = None
    quality: int | None = Field(default=None, ge=1, le=100)


class MediaProbe(Contract):
    """What a file says of itself, checked against its packets; for display and planning, never a feature.

    `frames` counts the video packets (1 for a still, 0 without picture). Width and height are as displayed, after
    rotation, in the pixels that are stored: pictures whose pixels are not square (`pixel_aspect`, width to height of
    one as displayed) are read unstretched, as OpenCV reads them and the detectors were taught. `duration_s` is the
    longer of picture and sound by packet times, 0 for a still; `header_duration_s` is what the header promises. The
    rate varies if more than one in a hundred pictures stays for another time than most. A mirrored picture is mirrored
    left to right, then turned counter-clockwise by `rotation_deg`; reading undoes both. Rate, channels and layout are
    those of the first of `audio_streams`, the only one that is heard.
    """

    kind: MediaKind
    container: str
    duration_s: float = Field(ge=0, allow_inf_nan=False)
    width: int = Field(ge=0)
    height: int = Field(ge=0)
    fps: float = Field(ge=0, allow_inf_nan=False)
    frames: int = Field(ge=0)
    has_video: bool
    has_audio: bool
    video_codec: str | None = None
    audio_codec: str | None = None
    sample_rate_hz: int = Field(default=0, ge=0)
    rotation_deg: int = 0
    size_bytes: int = Field(ge=0)
    header_duration_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    variable_frame_rate: bool = False
    mirrored: bool = False
    interlaced: bool = False
    pixel_aspect: tuple[PositiveInt, PositiveInt] = (1, 1)
    colour: Colour | None = None
    audio_streams: int = Field(default=0, ge=0)
    channels: int = Field(default=0, ge=0)
    channel_layout: Name | None = None
    repairs: tuple[Repair, ...] = ()
    provenance: Provenance | None = None
