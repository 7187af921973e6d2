"""Every stable code that reaches a user, each with the sentence that says what to do.

Codes are added, never renamed. Documentation and the OpenAPI document read them from here.
"""

from enum import StrEnum


class SkipCode(StrEnum):
    """Why a branch or a detector does not apply; never an error."""

    NO_AUDIO = "no_audio"
    SILENT_AUDIO = "silent_audio"
    NO_SPEECH = "no_speech"
    AUDIO_TOO_SHORT = "audio_too_short"
    NO_FACE = "no_face"
    FACE_TOO_SMALL = "face_too_small"
    TOO_FEW_FRAMES = "too_few_frames"
    NOT_APPLICABLE = "not_applicable"
    NO_WEIGHTS = "no_weights"
    DISABLED = "disabled"
    GATED = "gated"


class RejectCode(StrEnum):
    """Why a file cannot be analysed: the file's fault, final."""

    EMPTY_FILE = "empty_file"
    NOT_MEDIA = "not_media"
    UNSUPPORTED_FORMAT = "unsupported_format"
    NO_STREAMS = "no_streams"
    TRUNCATED = "truncated"
    TOO_LONG = "too_long"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_FRAMES = "too_many_frames"
    DECODE_FAILED = "decode_failed"
    DECODE_LIMIT = "decode_limit"
    FETCH_REFUSED = "fetch_refused"
    FETCH_FAILED = "fetch_failed"
    FETCH_TOO_LARGE = "fetch_too_large"


class FailCode(StrEnum):
    """Why we could not finish: our fault."""

    TIMEOUT = "timeout"
    POISON = "poison"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL = "internal"
    DEADLINE = "deadline"


class ProblemCode(StrEnum):
    """What an HTTP problem document says; the gateway owns the table to HTTP status."""

    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    IDEMPOTENCY_IN_PROGRESS = "idempotency_in_progress"
    TOO_LARGE = "too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID = "invalid"
    IDEMPOTENCY_MISMATCH = "idempotency_mismatch"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    STORAGE_FULL = "storage_full"


Code = SkipCode | RejectCode | FailCode | ProblemCode

SENTENCES: dict[str, str] = {
    SkipCode.NO_AUDIO: "The file has no sound track; send a version with sound to have speech examined.",
    SkipCode.SILENT_AUDIO: "The sound track is silent; send a version with audible speech.",
    SkipCode.NO_SPEECH: "No speech was heard; this branch judges speech only.",
    SkipCode.AUDIO_TOO_SHORT: "The sound track is too short to judge; send at least one second of speech.",
    SkipCode.NO_FACE: "No face was found in the sampled frames; this branch judges faces only.",
    SkipCode.FACE_TOO_SMALL: "Every face is too small to judge; send a larger or less compressed version.",
    SkipCode.TOO_FEW_FRAMES: "The clip has too few frames for this branch; send a longer clip.",
    SkipCode.NOT_APPLICABLE: "This branch does not apply to this kind of file.",
    SkipCode.NO_WEIGHTS: "No detector of this branch is installed, so it took no part; see `clipwarden models list`.",
    SkipCode.DISABLED: "The operator switched this branch off, or none of its detectors was asked for.",
    SkipCode.GATED: "The first look found nothing suspicious, so the costly branches were not run.",
    RejectCode.EMPTY_FILE: "The file is empty; check the upload and send it again.",
    RejectCode.NOT_MEDIA: "The file is not video, audio or a picture; send the media file itself.",
    RejectCode.UNSUPPORTED_FORMAT: "This container or codec is not accepted; convert the file to MP4 (H.264, AAC).",
    RejectCode.NO_STREAMS: "The file holds no picture and no sound; send a file with at least one of them.",
    RejectCode.TRUNCATED: "The file is cut off; upload it again in full.",
    RejectCode.TOO_LONG: "The clip is longer than the limit; send the part that matters.",
    RejectCode.TOO_MANY_PIXELS: "The picture is larger than the limit; scale it down.",
    RejectCode.TOO_MANY_FRAMES: "The clip has more frames than the limit; send a shorter part.",
    RejectCode.DECODE_FAILED: "The file could not be decoded; re-export it and send it again.",
    RejectCode.DECODE_LIMIT: "Decoding the file hit the memory or time limit; re-export it or send a shorter part.",
    RejectCode.FETCH_REFUSED: "The address is not allowed; use a public address or upload the file.",
    RejectCode.FETCH_FAILED: "The file could not be fetched; check the address or upload the file.",
    RejectCode.FETCH_TOO_LARGE: "The file at that address is over the size limit; send a smaller one.",
    FailCode.TIMEOUT: "This part of the analysis took too long and was stopped; a shorter clip may pass.",
    FailCode.POISON: "This part of the analysis stopped its worker repeatedly and was given up.",
    FailCode.OUT_OF_MEMORY: "This part of the analysis ran out of memory; a smaller clip may pass.",
    FailCode.INTERNAL: "This part of the analysis failed for a reason of ours; the log names it by the analysis id.",
    FailCode.DEADLINE: "The analysis was not finished before its deadline; submit it again.",
    ProblemCode.BAD_REQUEST: "The request is malformed; see detail.",
    ProblemCode.UNAUTHORIZED: "An API key is needed; send it in the Authorization header.",
    ProblemCode.FORBIDDEN: "This host, origin or key may not do that.",
    ProblemCode.NOT_FOUND: "There is nothing at this address; check the id.",
    ProblemCode.CONFLICT: "The resource is not in a state that allows this; read it again.",
    ProblemCode.IDEMPOTENCY_IN_PROGRESS: "A request with this idempotency key still runs; wait and read its result.",
    ProblemCode.TOO_LARGE: "The upload is over the size limit; send a smaller file.",
    ProblemCode.UNSUPPORTED_MEDIA_TYPE: "Send the file as multipart/form-data in a field named 'file'.",
    ProblemCode.INVALID: "The request does not have the expected fields; see detail.",
    ProblemCode.IDEMPOTENCY_MISMATCH: "This idempotency key was used for another request; use a new key.",
    ProblemCode.RATE_LIMITED: "Too many requests; wait as Retry-After says.",
    ProblemCode.OVERLOADED: "The queues are full; try again as Retry-After says.",
    ProblemCode.UNAVAILABLE: "A service behind the gateway is not reachable; try again as Retry-After says.",
    ProblemCode.STORAGE_FULL: "There is no room to store the upload; the operator must free space.",
}
