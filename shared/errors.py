"""The error tree. Foreign exceptions are translated into it where they enter, with `from`.

ClipwardenError
├── MediaError       the file's fault: final, the analysis is rejected with a RejectCode
├── DetectorError    a detector failed on this clip: recorded, the other detectors go on
├── NotApplicable    this detector or branch does not apply: skipped with a SkipCode
├── WorkerFault      this worker's fault (device, weights, disk): nothing is recorded, the process leaves
├── ElsewherePlease  this process holds other models than the analysis wants: another takes the stage
├── Unavailable      a service's fault: retry
│   ├── BlobGone     the blob store answers, and has no such blob, or not whole: make it again
│   ├── StorageFull  the blob store has no room
│   └── StorageSick  the blob store cannot be used from this machine: a worker leaves
├── ProblemError     the HTTP request's fault: becomes a problem document
└── ConfigError      the operator's fault: the process does not start
"""

from clipwarden.shared.codes import SENTENCES, FailCode, ProblemCode, RejectCode, SkipCode


class ClipwardenError(Exception):
    """Root of everything we raise on purpose; `code` is stable."""

    code: str = FailCode.INTERNAL

    def __init__(self, message: str = "") -> None:
        super().__init__(message or SENTENCES.get(self.code, self.code))


class MediaError(ClipwardenError):
    """The file cannot be analysed. The message adds the decoder's own words to the code's sentence."""

    def __init__(self, code: RejectCode, detail: str = "") -> None:
        self.code = code
        self.detail = detail
        super().__init__(f"{SENTENCES[code]} ({detail})" if detail else SENTENCES[code])


class DetectorError(ClipwardenError):
    """A detector could not judge this clip though it should have."""

    def __init__(self, message: str, code: FailCode = FailCode.INTERNAL) -> None:
        self.code = code
        super().__init__(message)


class NotApplicable(ClipwardenError):  # noqa: N818 - a normal outcome, not an error
    """The branch or detector has nothing to judge in this clip."""

    def __init__(self, code: SkipCode) -> None:
        self.code = code
        super().__init__(SENTENCES[code])


class WorkerFault(ClipwardenError):  # noqa: N818 - named after whose fault it is
    """This process cannot do its work (weights gone, device lost, blob store replaced)."""


class ElsewherePlease(ClipwardenError):  # noqa: N818 - a request, not an error
    """This process does not hold the analysis's pipeline; another must take the stage."""


class Unavailable(ClipwardenError):  # noqa: N818 - named after the state it reports
    """Redis, Postgres or the blob store did not answer."""

    code = ProblemCode.UNAVAILABLE


class BlobGone(Unavailable):
    """The blob store answers, but this blob is not in it, or not as it was written."""


class StorageFull(Unavailable):
    """The blob store has no room left."""

    code = ProblemCode.STORAGE_FULL


class StorageSick(Unavailable):
    """The system refuses this process the blob store: read-only, forbidden, stale or broken."""


class ProblemError(ClipwardenError):
    """The request cannot be served as sent; `detail` tells the caller what to change."""

    def __init__(self, code: ProblemCode, detail: str = "", retry_after_s: int | None = None) -> None:
        self.code = code
        self.detail = detail or SENTENCES[code]
        self.retry_after_s = retry_after_s
        super().__init__(self.detail)


class ConfigError(ClipwardenError):
    """A setting, file or installation that only the operator can mend."""

    code = "config"
