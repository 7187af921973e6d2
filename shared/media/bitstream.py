"""What a coded picture says of itself in its first bits, read without decoding. Runs inside the fence's child only.

Bytes are hostile: every read is bounded, and what cannot be read counts as unknown, which is always the careful answer
(not a clean start, referred to by others). Written from the standards: H.264 (7.3.2 and 7.3.3), H.265 (7.3.1 and
7.3.6.1), MPEG-4 part 2 (6.2.3 and 6.2.5), MPEG-1 and 2 (13818-2 6.2.3), VP8 (RFC 6386 9.1), VP9 (6.2 and annex B),
AV1 (5.3 and 5.9.2).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from clipwarden.shared.media.units import MOST_UNITS, Bits, obus, units, vp9_frames

PictureType = Literal["I", "P", "B"]
_CANONICAL = {"libdav1d": "av1", "libvpx": "vp8", "libvpx-vp9": "vp9", "mpeg1video": "mpeg2video"}
_MPEG2_TYPES: Final[dict[int, PictureType]] = {1: "I", 2: "P", 3: "B"}


@dataclass(frozen=True, slots=True)
class PacketKind:
    """The picture of one packet.

    clean_start: decoding may begin here, and nothing later in the stream looks past it. referenced: False only where no
    other picture can refer to this one (H.265: none of its own temporal layer or below). pictures: how many are shown
    of this packet, as far as its headers tell: 0 for an empty or hidden one, 2 for two fields or a packed one.
    """

    picture_type: PictureType | None = None
    clean_start: bool = False
    referenced: bool = True
    temporal_id: int = 0
    pictures: int = 1


UNKNOWN = PacketKind()


@dataclass(frozen=True, slots=True)
class Framing:
    """What the stream's header says of how packets are written.

    nal_length_size: bytes of the length before each unit, None where start codes part them; extra_bits: reserved bits
    of an H.265 slice header; time_bits: of an MPEG-4 picture's time, None if unknown.
    """

    nal_length_size: int | None = None
    extra_bits: int = 0
    time_bits: int | None = None


def kind(
    codec: str, packet: memoryview, nal_length_size: int | None = None, framing: Framing | None = None
) -> PacketKind:
    """The kind of a packet of the codec (FFmpeg's name of codec or decoder); `UNKNOWN` where it cannot be told."""
    reader = _READERS.get(_CANONICAL.get(codec, codec))
    if reader is None:
        return UNKNOWN
    try:
        return reader(packet, framing or Framing(nal_length_size))
    except (EOFError, IndexError):
        return UNKNOWN


def framing_of(codec: str, extradata: bytes) -> Framing:
    """How packets of a stream with this header are written."""
    try:
        if codec == "h264" and len(extradata) > 6 and extradata[0] == 1:
            return Framing((extradata[4] & 3) + 1)
        if codec == "hevc" and len(extradata) > 22 and (extradata[0] or extradata[1] or extradata[2] > 1):
            size = (extradata[21] & 3) + 1
            return Framing(size, _extra_bits(u for u in configured(extradata) if u[0] >> 1 & 63 == 34))
        if codec == "hevc":
            return Framing(None, _extra_bits(u for u in units(memoryview(extradata), None) if u[0] >> 1 & 63 == 34))
        if codec == "mpeg4":
            return Framing(None, 0, _time_bits(extradata))
    except (EOFError, IndexError):
        pass
    return Framing()


def _h264(packet: memoryview, framing: Framing) -> PacketKind:
    """An access unit. With start codes a clean start must bring its parameter sets along."""
    types: list[PictureType] = []
    seen: set[int] = set()
    first, referenced, pictures = None, False, 0
    for unit in units(packet, framing.nal_length_size):
        name = unit[0] & 31
        seen.add(name)
        if not 1 <= name <= 5:
            continue
        first = first or name
        referenced |= bool(unit[0] & 0x60)
        if name in {1, 2, 5}:
            bits = Bits(unit[1:], escaped=True)
            pictures += bits.golomb() == 0
            types.append(("P", "B", "I", "P", "I")[bits.golomb() % 5])
    if not types:
        return PacketKind(pictures=0)
    clean = first == 5 and (framing.nal_length_size is not None or {7, 8} <= seen)
    return PacketKind(_strongest(types), clean, referenced or bool(seen & {7, 8, 13, 15}), 0, pictures)


def _hevc(packet: memoryview, framing: Framing) -> PacketKind:
    """An access unit; layers above the base are not looked at, nor are slices after the first of a picture."""
    types: list[PictureType] = []
    seen: set[int] = set()
    first, referenced, temporal_id, pictures = None, False, 0, 0
    for unit in units(packet, framing.nal_length_size):
        name, layer = unit[0] >> 1 & 63, (unit[0] & 1) << 5 | unit[1] >> 3
        if layer:
            continue
        seen.add(name)
        if name > 31:
            continue
        first = name if first is None else first
        referenced |= name > 14 or name % 2 == 1
        temporal_id = max(temporal_id, (unit[1] & 7) - 1)
        bits = Bits(unit[2:], escaped=True)
        if bits.take(1):
            pictures += 1
            bits.take(1 if 16 <= name <= 23 else 0)
            bits.golomb()
            bits.take(framing.extra_bits)
            types.append(("B", "P", "I")[bits.golomb()])
    if not types:
        return PacketKind(pictures=0)
    clean = first in {19, 20} and (framing.nal_length_size is not None or {33, 34} <= seen)
    return PacketKind(_strongest(types), clean, referenced or bool(seen & {32, 33, 34}), temporal_id, pictures)


def _strongest(types: list[PictureType]) -> PictureType:
    return "B" if "B" in types else "P" if "P" in types else "I"


def _mpeg4(packet: memoryview, framing: Framing) -> PacketKind:
    """Never a clean start: B pictures after an I picture may refer to what is before it, and no header rules it out."""
    pictures = [unit for unit in units(packet, None) if unit[0] == 0xB6]
    if not pictures:
        return PacketKind(pictures=0)
    name: PictureType = ("I", "P", "B", "P")[pictures[0][1] >> 6]
    shown = sum(_is_coded(unit, framing.time_bits) for unit in pictures)
    return PacketKind(name, False, name != "B" or len(pictures) > 1, 0, shown)


def _is_coded(unit: memoryview, time_bits: int | None) -> bool:
    """Whether a picture has content of its own; encoders write empty ones for repeated or packed pictures."""
    if time_bits is None:
        return True
    bits = Bits(unit[1:])
    bits.take(2)
    while bits.take(1):
        pass
    bits.take(2 + time_bits)
    return bool(bits.take(1))


def _mpeg2(packet: memoryview, _: Framing) -> PacketKind:
    """Clean only in a closed group that repeats the sequence header; two pictures in a packet are two fields."""
    name: PictureType | None = None
    clean, sequence = False, False
    for unit in units(packet, None):
        sequence |= unit[0] == 0xB3
        if unit[0] == 0xB8:
            bits = Bits(unit[1:])
            bits.take(25)
            clean = sequence and bool(bits.take(1))
        elif unit[0] == 0x00:
            name = _MPEG2_TYPES.get(unit[2] >> 3 & 7)
            break
    return PacketKind(name, clean and name == "I", name != "B")


def _vp8(packet: memoryview, _: Framing) -> PacketKind:
    key, shown = not packet[0] & 1, packet[0] >> 4 & 1
    return PacketKind("I" if key else "P", bool(key and shown), True, 0, shown)


def _vp9(packet: memoryview, _: Framing) -> PacketKind:
    """All pictures but key frames count as referenced: motion vectors and probabilities pass from any to the next."""
    kinds = [_vp9_frame(frame) for frame in vp9_frames(packet)]
    shown = [picture_type for picture_type, _, is_shown in kinds if is_shown]
    return PacketKind(shown[-1] if shown else None, kinds[0][1] and bool(shown), True, 0, len(shown))


def _vp9_frame(frame: memoryview) -> tuple[PictureType | None, bool, bool]:
    """Type, whether it is a key frame, whether it is shown."""
    bits = Bits(frame)
    if bits.take(2) != 2:
        raise EOFError
    profile = bits.take(1) | bits.take(1) << 1
    bits.take(1 if profile == 3 else 0)
    if bits.take(1):
        return None, False, True
    inter, shown, _ = bits.take(1), bits.take(1), bits.take(1)
    intra = not inter or (not shown and bits.take(1))
    return ("I" if intra else "P"), not inter, bool(shown)


def _av1(packet: memoryview, _: Framing) -> PacketKind:
    """A temporal unit. A shown key frame refills every reference, so it is a clean start if it brings its header."""
    name: PictureType | None = None
    clean, sequence, reduced, frames, shown, temporal_id = False, False, False, 0, 0, 0
    for obu, level, body in obus(packet):
        bits = Bits(body)
        if obu == 1:
            sequence, reduced = True, bool(bits.take(5) & 1)
        elif obu in {3, 6}:
            repeats = 0 if reduced else bits.take(1)
            form = 0 if reduced or repeats else bits.take(2)
            visible = 1 if reduced or repeats else bits.take(1)
            clean |= frames == 0 and sequence and not repeats and form == 0 and bool(visible)
            if visible:
                name = None if repeats else "I" if form in {0, 2} else "P"
            frames, shown, temporal_id = frames + 1, shown + visible, max(temporal_id, level)
    return PacketKind(name, clean, True, temporal_id, shown)


def _mjpeg(packet: memoryview, _: Framing) -> PacketKind:
    """A picture that brings its quantisation tables; an abbreviated one leans on those before it."""
    return PacketKind("I", b"\xff\xdb" in bytes(packet[:4096]))


def _intra(_packet: memoryview, _: Framing) -> PacketKind:
    return PacketKind("I", True)


def configured(extradata: bytes) -> Iterator[memoryview]:
    """The parameter sets in an H.265 configuration record."""
    view, at = memoryview(extradata), 23
    for _ in range(extradata[22]):
        count, at = int.from_bytes(view[at + 1 : at + 3], "big"), at + 3
        for _ in range(min(count, MOST_UNITS)):
            size = int.from_bytes(view[at : at + 2], "big")
            if size < 2 or at + 2 + size > len(view):
                raise EOFError
            yield view[at + 2 : at + 2 + size]
            at += 2 + size


def _extra_bits(picture_sets: Iterator[memoryview]) -> int:
    """How many reserved bits the first picture parameter set of H.265 puts before the type of a slice."""
    for unit in picture_sets:
        bits = Bits(unit[2:], escaped=True)
        bits.golomb()
        bits.golomb()
        bits.take(2)
        return bits.take(3)
    return 0


def _time_bits(extradata: bytes) -> int | None:
    """Length of the time field of an MPEG-4 picture, from the video object layer."""
    layer = next((u for u in units(memoryview(extradata), None) if 0x20 <= u[0] <= 0x2F), None)
    if layer is None:
        return None
    bits = Bits(layer[1:])
    bits.take(9)
    if bits.take(1):
        bits.take(7)
    if bits.take(4) == 15:
        bits.take(16)
    if bits.take(1):
        bits.take(3)
        bits.take(79 if bits.take(1) else 0)
    bits.take(3)
    return max((bits.take(16) - 1).bit_length(), 1)


_READERS: dict[str, Callable[[memoryview, Framing], PacketKind]] = {
    "h264": _h264,
    "hevc": _hevc,
    "mpeg4": _mpeg4,
    "mpeg2video": _mpeg2,
    "vp8": _vp8,
    "vp9": _vp9,
    "av1": _av1,
    "mjpeg": _mjpeg,
    "prores": _intra,
    "rawvideo": _intra,
    "png": _intra,
}
