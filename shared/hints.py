"""What the traces in a file suggest, in plain words, each with what it cannot show.

Hints are evidence for a person to look at. No detector and no fusion head reads them: sharing platforms, messengers
and editors leave the same traces in genuine clips as forgers do, a careful forger leaves none, and all of them can be
written on purpose. A clip without hints is therefore not a genuine clip.
"""

from collections.abc import Callable, Iterator

from clipwarden.shared.contracts import Reason
from clipwarden.shared.probe import EncoderNote, MediaProbe, Provenance

_CAMERA_KEYS = frozenset(
    {
        "make",
        "model",
        "com.apple.quicktime.make",
        "com.apple.quicktime.model",
        "com.android.version",
        "com.android.manufacturer",
        "com.android.model",
    }
)
_CAMERA_HANDLERS = ("core media", "videohandle", "gopro", "dji")
_SOFTWARE = ("x264", "x265", "lavf", "lavc", "handbrake", "adobe", "premiere", "davinci", "capcut", "photoshop", "gimp")
_STILL_SHARE = 0.02
_FEW_PICTURES = 8


def hints(probe: MediaProbe) -> tuple[Reason, ...]:
    """The hints of a probe, at most one of each code, in the order of this list.

    camera_and_software: the file names a camera and a software encoder. Shows that it is no camera original; the tags
    may have been copied, or written by the camera's own program.
    re_encoded: the bit stream was written by a software encoder. Any platform or editor may have been that.
    settings_contradicted: pictures lie otherwise than the encoder's own note says. Shows that stream and note are not
    of one piece; a cut or a join without encoding does that.
    joined_parts: an encoder introduced itself more than once. Shows parts encoded apart; recorders that write in
    segments do that too.
    recompressed: sizes peak at a distance that key frames do not explain, the footprint of an earlier coding. Shows
    nothing about which coding it was; motion that repeats at that distance looks the same.
    resaved: a JPEG names a camera but has the tables of libjpeg, which cameras seldom use. Shows no change of content.
    cut_without_encoding: an edit list hides pictures that are still in the file. A phone's trim tool does that.
    nothing_moves: vectors are almost all zero at the beginning. Screens, stills and fixed cameras are like that.
    """
    return tuple(_hints(probe)) if probe.provenance else ()


def _hints(probe: MediaProbe) -> Iterator[Reason]:
    traces = probe.provenance or Provenance()
    software, camera = _first(traces, _is_software), _first(traces, _is_camera)
    if software and camera:
        text = f"The file names a camera ({camera.text}) and software ({software.text}): it is no camera original. "
        yield Reason(code="camera_and_software", text=text + "That alone does not show what was changed.")
    elif software and software.place == "bitstream" and probe.has_video:
        text = f"The stream was written by {software.text}, a software encoder, not by a camera. "
        yield Reason(code="re_encoded", text=text + "Platforms and editors do that to every clip.")
    yield from _of_coding(traces)
    if traces.tables == "libjpeg" and camera:
        text = f"The picture names a camera ({camera.text}) but was saved by libjpeg at quality {traces.quality}. "
        yield Reason(code="resaved", text=text + "It was saved again; that does not show a change of content.")
    if traces.hidden_pictures:
        text = f"An edit list hides {traces.hidden_pictures} pictures that are still in the file. "
        yield Reason(code="cut_without_encoding", text=text + "It was cut without being encoded, as phones trim.")
    if traces.motion and traces.motion.pictures >= _FEW_PICTURES and traces.motion.moving < _STILL_SHARE:
        text = "Almost nothing moves in the first pictures; screens, stills and fixed cameras look like that."
        yield Reason(code="nothing_moves", text=text)


def _of_coding(traces: Provenance) -> Iterator[Reason]:
    if contradiction := _contradiction(traces):
        text = f"The encoder's note says that {contradiction}. Stream and note are not of one piece, "
        yield Reason(code="settings_contradicted", text=text + "as after a cut or a join without encoding.")
    if traces.openings > 1:
        text = f"An encoder introduces itself {traces.openings} times: parts were encoded apart and joined. "
        yield Reason(code="joined_parts", text=text + "Recorders that write in segments do that too.")
    if traces.period:
        text = f"Picture sizes peak every {traces.period} pictures without a key frame there, as after an earlier "
        yield Reason(code="recompressed", text=text + "coding. Motion that repeats at that distance looks the same.")


def _contradiction(traces: Provenance) -> str:
    """What the settings say against what the pictures are, or nothing."""
    distance = traces.settings.get("keyint", "")
    longest = traces.groups.longest if traces.groups else 0
    if distance.isdecimal() and longest > int(distance) > 0:
        return f"a key frame comes at least every {distance} pictures, but {longest} follow one another without"
    if traces.settings.get("bframes") == "0" and "B" in traces.pictures:
        return f"there are no B pictures, but {traces.pictures['B'].count} were found"
    return ""


def _first(traces: Provenance, fits: Callable[[EncoderNote], bool]) -> EncoderNote | None:
    return next((note for note in traces.notes if fits(note)), None)


def _is_camera(note: EncoderNote) -> bool:
    text = note.text.lower()
    names_one = note.key == "handler_name" and text.startswith(_CAMERA_HANDLERS)
    return note.key in _CAMERA_KEYS or (names_one and text != "videohandler")  # FFmpeg's own name ends in r


def _is_software(note: EncoderNote) -> bool:
    return note.text.lower().startswith(_SOFTWARE)
