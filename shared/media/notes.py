"""What a file says of what wrote it: tags, notes that encoders leave in streams, EXIF. Fence's child only.

All of it is free text from a hostile file: it is cut to printable ASCII, short, and a few.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from clipwarden.shared.media.bitstream import Framing, configured, framing_of
from clipwarden.shared.media.stills import MAKE, MODEL, SOFTWARE, comment, exif_tags
from clipwarden.shared.media.units import MOST_UNITS, units

Place = Literal["container", "video", "audio", "bitstream", "exif"]
MOST_NOTES = 8
_LONGEST = 40
_MOST_LOOKED_AT = 2000
_KEYS = (
    "encoder", "encoding_tool", "handler_name", "vendor_id", "make", "model", "software", "tool",
    "com.apple.quicktime.make", "com.apple.quicktime.model", "com.apple.quicktime.software",
    "com.android.version", "com.android.manufacturer", "com.android.model",
)  # fmt: skip
_EXIF_KEYS = {MAKE: "make", MODEL: "model", SOFTWARE: "software"}
_SETTINGS = ("rc", "crf", "qp", "bitrate", "keyint", "min-keyint", "bframes", "ref", "open-gop", "scenecut", "pass")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")


@dataclass(slots=True)
class Notes:
    """Notes as they are met. `openings` counts how often an encoder introduces itself in the stream."""

    found: dict[tuple[Place, str, str], None] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    openings: int = 0
    _looked_at: int = 0

    def read_tags(self, place: Place, tags: Mapping[str, str]) -> None:
        """The tags of a container or a stream."""
        lower = {key.lower(): text for key, text in tags.items()}
        for key in _KEYS:
            self.add(place, key, lower.get(key, ""))

    def read_header(self, codec: str, extradata: bytes) -> None:
        """The stream's header."""
        for text in _written_ahead(codec, extradata):
            self._introduce(text)

    def read_packet(self, codec: str, packet: memoryview, framing: Framing) -> None:
        """A packet in which decoding may begin; encoders introduce themselves in such."""
        if self._looked_at < _MOST_LOOKED_AT:
            self._looked_at += 1
            for text in _written(codec, packet, framing):
                self._introduce(text)

    def read_still(self, content: memoryview) -> None:
        """A JPEG, PNG or WebP file."""
        for tag, text in exif_tags(content).items():
            if tag in _EXIF_KEYS and isinstance(text, str):
                self.add("exif", _EXIF_KEYS[tag], text)
        self.add("bitstream", "comment", comment(content))

    def add(self, place: Place, key: str, text: str) -> None:
        kept = _UNPRINTABLE.sub(" ", text).strip()[:_LONGEST].strip()
        if kept and len(self.found) < MOST_NOTES:
            self.found[place, key, kept] = None

    def listed(self) -> list[dict[str, str]]:
        """Fields of the EncoderNotes."""
        return [{"place": place, "key": key, "text": text} for place, key, text in self.found]

    def _introduce(self, text: str) -> None:
        name, _, options = text.partition(" - options: ")
        if not name[:1].isalpha():
            return
        self.openings += name.startswith("x264")  # x264 does so once in a stream, others at each key frame
        self.add("bitstream", "encoder", " ".join(name.split(" - ")[:2]))
        if not self.settings:
            pairs = (word.partition("=") for word in options.split())
            self.settings = {
                key: _UNPRINTABLE.sub("", value)[:16] for key, _, value in pairs if key in _SETTINGS and value
            }


def _written(codec: str, packet: memoryview, framing: Framing) -> Iterator[str]:
    """What the encoder wrote about itself into this packet, or into the stream's header: free text, at most 4096 bytes.

    H.264 and H.265 have unregistered user data for it, MPEG-4 a user data unit.
    """
    try:
        for unit in units(packet, framing.nal_length_size):
            if codec == "mpeg4" and unit[0] == 0xB2:
                yield _text(unit[1:])
            elif (codec == "h264" and unit[0] & 31 == 6) or (codec == "hevc" and unit[0] >> 1 & 63 == 39):
                yield from _unregistered(unit[1 if codec == "h264" else 2 :])
    except (EOFError, IndexError):
        return


def _written_ahead(codec: str, extradata: bytes) -> Iterator[str]:
    """As `_written`, of the stream's header."""
    view = memoryview(extradata)
    try:
        if codec == "hevc" and framing_of(codec, extradata).nal_length_size is not None:
            for unit in configured(extradata):
                yield from _unregistered(unit[2:]) if unit[0] >> 1 & 63 == 39 else ()
        else:
            yield from _written(codec, view, Framing())
    except (EOFError, IndexError):
        return


def _unregistered(messages: memoryview) -> Iterator[str]:
    """Texts of the user data among the first messages of a supplemental unit, without their 16 bytes of identity."""
    at = 0
    for _ in range(MOST_UNITS):
        if len(messages) - at < 3:
            return
        form, at = _summed(messages, at)
        size, at = _summed(messages, at)
        if form == 5 and size > 16:
            yield _text(messages[at + 16 : at + size])
        at += size


def _summed(messages: memoryview, at: int) -> tuple[int, int]:
    """A number written as bytes of 255 and one of less, and where it ends."""
    total = 0
    while messages[at] == 255:
        total, at = total + 255, at + 1
    return total + messages[at], at + 1


def _text(content: memoryview) -> str:
    return bytes(content[:4096]).partition(b"\0")[0].decode("ascii", "replace")
