"""Why a fusion bundle, or a file that should become one, may not be used."""

from enum import StrEnum

from clipwarden.shared.errors import WorkerFault


class FaultCode(StrEnum):
    """Stable names of the reasons; operators see them, uploaders never do."""

    UNREADABLE = "bundle_unreadable"
    MALFORMED = "bundle_malformed"
    OTHER_VERSION = "bundle_version"
    EDITED = "bundle_edited"
    OTHER_BUNDLE = "bundle_other"
    UNKNOWN_COLUMNS = "unknown_columns"
    UNKNOWN_HEAD = "unknown_head"
    UNKNOWN_POLICY = "unknown_policy"
    POLICY_MALFORMED = "policy_malformed"
    BOUND_UNSUPPORTED = "bound_unsupported"
    NOT_ADMITTED = "head_not_admitted"
    TOO_LARGE = "file_too_large"
    OTHER_FILE = "file_other"
    REFUSED = "file_refused"


class FusionFault(WorkerFault):
    """A worker that holds such a bundle cannot fuse; a command that is given one refuses it."""

    def __init__(self, code: FaultCode, detail: str) -> None:
        self.code = code
        super().__init__(f"{detail} [{code}]")
