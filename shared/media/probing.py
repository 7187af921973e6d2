"""What a file is, found by walking its packets. Runs inside the fence's child only.

Headers may lie, so frames and duration are counted from the packets that are there. This is what becomes of files
that are not as they should be; a repair has its code in `MediaProbe.repairs`, "-" needs none to be read right:

    what is wrong                                          what is done                           code
    MP4: an edit list that shows nothing                   opened again without its edit lists    edit_list
    MP4: an edit list of more than a thousand edits        opened without its edit lists          edit_list
    MP4, Matroska: a header that promises up to twice      what is left is read                   cut_end
        as much as there is (cut off, or never true)
    MP4, Matroska: a header that promises less             all that is there is read              wrong_duration
    MP4: fragments, the last of them cut                   read up to the cut                     -
    Matroska: no cues, no sizes (a live recording)         read from front to back                -
    AVI: no index, or sizes that were never filled in      read from front to back                no_index
    MPEG-TS: the first packet is cut                       read from the next one                 -
    MPEG-TS, MPEG-PS, Ogg: a clock that jumps              what follows is moved to where it fits clock_jumps
    MPEG-TS: packets are missing                           what is damaged is left out            damaged_packets
    AVI: H.264 with B pictures, of which it has no times   times follow from the place in display missing_times
    WAV: sizes that were never filled in                   read to the end                        -
    JPEG: cut, at least half of its rows are there         the rest is as the decoder leaves it   cut_end
    more data behind a still (motion photos)               is not looked at                       -

    what is wrong                                          it is rejected as
    MP4 without its index (moov): nothing else knows       truncated
        where a picture starts or how it was coded
    a header that promises more than twice what is there   truncated
    JPEG or PNG: less than half is there, or none of it    truncated
    MP4: an index that points elsewhere                    decode_failed
    no picture can be decoded (no key frame, damaged)      decode_failed
    bytes before the first of the container                not_media

A remux repairs nothing here that FFmpeg's demuxers do not repair while they read: none of these files is read better
after it has been copied, and a copy in memory would cost its size.
"""

from typing import Any

import av
from av.container import InputContainer

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.errors import MediaError
from clipwarden.shared.media.container import WITHOUT_EDITS, picture_stream, readable, sound_stream
from clipwarden.shared.media.facts import colour_of, flat_share, pixel_aspect, sound_of
from clipwarden.shared.media.index import PacketIndex
from clipwarden.shared.media.limits import MediaLimits
from clipwarden.shared.media.sniff import STILLS
from clipwarden.shared.media.walk import Track, Walk
from clipwarden.shared.probe import Repair

_SHORTEST_PROMISE_S = 1.0
_TOLERATED_S, _TOLERATED_SHARE = 0.5, 0.05
_PROMISING = frozenset({"mov", "matroska", "avi", "flac"})
"""Containers whose header states a duration; of the others FFmpeg guesses it."""

_NO_INDEX = 2
_MOST_MISSING = 0.5
_PROGRESSIVE = (0, 1)


def probe_container(
    container: InputContainer, size_bytes: int, limits: MediaLimits, index: PacketIndex | None = None
) -> dict[str, Any]:
    """Fields of a MediaProbe; the packets of the picture go to `index`. Raises MediaError."""
    walk = _begin(container, limits, index)
    indexed = len(walk.video.stream.index_entries) if walk.video else 0
    walk.go(container)
    _refuse_broken(container, walk)
    heard = walk.audio if walk.audio and walk.audio.packets else None
    return {
        "kind": "image" if walk.still else "video" if walk.shown is not None else "audio",
        "container": container.format.name,
        "duration_s": 0.0 if walk.still else walk.duration_s,
        "header_duration_s": None if walk.still else _promised_s(container),
        "size_bytes": size_bytes,
        "has_video": walk.shown is not None,
        "has_audio": heard is not None,
        "audio_streams": len(container.streams.audio),
        **(_picture(walk) if walk.shown is not None else _NO_PICTURE),
        **(sound_of(heard.stream) if heard else {}),
        "repairs": _repairs(container, walk, indexed),
        "provenance": _provenance(container, walk),
    }


_NO_PICTURE = {"width": 0, "height": 0, "fps": 0.0, "frames": 0}


def _begin(container: InputContainer, limits: MediaLimits, index: PacketIndex | None) -> Walk:
    picture, sound = picture_stream(container), sound_stream(container)
    if picture is not None and not readable(picture):
        raise MediaError(RejectCode.UNSUPPORTED_FORMAT, "the video codec is not read")
    if sound is not None and not readable(sound):
        sound = None
    if picture is None and sound is None:
        raise MediaError(RejectCode.NO_STREAMS if not container.streams.audio else RejectCode.UNSUPPORTED_FORMAT)
    still = container.format.name in STILLS
    return Walk(limits, Track(picture) if picture else None, Track(sound) if sound else None, still, index)


def _picture(walk: Walk) -> dict[str, Any]:
    assert walk.video is not None
    stream, frame, turn = walk.video.stream, walk.shown, walk.turn
    rate, varies = (0.0, False) if walk.still else walk.video.rate()
    return {
        "width": frame.height if turn.swaps_sides else frame.width,
        "height": frame.width if turn.swaps_sides else frame.height,
        "fps": rate,
        "variable_frame_rate": varies,
        "frames": 1 if walk.still else walk.video.packets,
        "video_codec": stream.codec_context.name,
        "rotation_deg": turn.degrees,
        "mirrored": turn.mirrored,
        "interlaced": bool(frame.interlaced_frame) or stream.codec_context.field_order not in _PROGRESSIVE,
        "pixel_aspect": pixel_aspect(stream, turn.swaps_sides),
        "colour": colour_of(frame),
    }


def _promised_s(container: InputContainer) -> float | None:
    """What the header says, or FFmpeg's estimate."""
    return container.duration / av.time_base if container.duration and container.duration > 0 else None


def _repairs(container: InputContainer, walk: Walk, indexed: int) -> list[Repair]:
    """The codes of what was put right, in the order of the table above."""
    tracks = [track for track in (walk.video, walk.audio) if track]
    promised_s = _promised_s(container) if container.format.name in _PROMISING and not walk.still else None
    missed_s = 0.0 if promised_s is None else promised_s - walk.duration_s
    tolerated_s = max(_TOLERATED_S, _TOLERATED_SHARE * walk.duration_s)
    packets = walk.video.packets if walk.video else 0
    found = {
        Repair.EDIT_LIST: WITHOUT_EDITS in container.options,
        Repair.CUT_END: missed_s > tolerated_s or walk.cut,
        Repair.WRONG_DURATION: missed_s < -tolerated_s,
        Repair.NO_INDEX: container.format.name == "avi" and indexed <= _NO_INDEX < packets,
        Repair.CLOCK_JUMPS: walk.clock.jumps > 0,
        Repair.DAMAGED_PACKETS: any(track.damaged for track in tracks),
        Repair.MISSING_TIMES: bool(walk.video and walk.video.dateless and not walk.still),
    }
    return [repair for repair, needed in found.items() if needed]


def _provenance(container: InputContainer, walk: Walk) -> dict[str, Any]:
    """Fields of a Provenance: what was met on the walk, then the tags, as far as there is room."""
    notes, frame = walk.traces.notes, walk.shown
    notes.read_tags("container", container.metadata)
    if walk.video:
        notes.read_tags("video", walk.video.stream.metadata)
    if walk.audio:
        notes.read_tags("audio", walk.audio.stream.metadata)
    codec = walk.video.stream.codec_context.name if walk.video else None
    return walk.traces.fields(codec, frame.width * frame.height if frame is not None else 0)


def _refuse_broken(container: InputContainer, walk: Walk) -> None:
    tracks = [t for t in (walk.video, walk.audio) if t]
    promised_s = _promised_s(container) if container.format.name in _PROMISING else None
    if promised_s is not None and promised_s > max(_SHORTEST_PROMISE_S, 2 * walk.duration_s):
        raise MediaError(RejectCode.TRUNCATED, f"{walk.duration_s:.1f} s of {promised_s:.1f} s are left")
    if not any(t.packets for t in tracks):
        promised = any(t.stream.frames for t in tracks) and not walk.still
        raise MediaError(RejectCode.TRUNCATED if promised else RejectCode.NO_STREAMS)
    if walk.video and walk.video.packets and walk.shown is None:
        raise MediaError(RejectCode.TRUNCATED if walk.cut else RejectCode.DECODE_FAILED, "no picture could be decoded")
    if walk.cut and flat_share(walk.shown) > _MOST_MISSING:
        raise MediaError(RejectCode.TRUNCATED, "more than half of the picture is missing")
