"""Evidence in the blob store: the files that stage rows name, kept for `evidence_retention_s` and
no longer than their analysis.

They lie under `evidence/ANALYSIS/BRANCH/TOKEN/DETECTOR/NAME`. The token is that of the lease they were made under, so
that a worker that lost its lease never writes among the files of the one that has it; a row names its own folder, or
that of the analysis of the same content whose findings it took over. A folder goes with the last row that names it; one
that no row names, because its attempt was lost, after `orphan_retention_s`.
"""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from uuid import UUID

from clipwarden.shared.blobs import BlobStore, evidence_folder
from clipwarden.shared.contracts import Branch, BranchResult
from clipwarden.shared.errors import Unavailable


def write_evidence(
    blobs: BlobStore, analysis_id: UUID, branch: Branch, token: UUID, files: Mapping[str, bytes]
) -> str | None:
    """Keep the files, by `DETECTOR/NAME`; returns the folder for the branch's result, None if there are none.

    Raises StorageFull or Unavailable; then nothing is left behind.
    """
    folder = f"{evidence_folder(analysis_id)}/{branch}/{token.hex}"
    with ExitStack() as undo:
        for name, content in files.items():
            key = f"{folder}/{name}"
            with blobs.create(key) as writer:
                writer.write(content)
                writer.commit()
            undo.callback(_forget, blobs, key)
        undo.pop_all()
    return folder if files else None


def evidence_key(result: BranchResult, detector: str, name: str) -> str | None:
    """Where in the blob store a file of evidence lies; None unless the result names it.

    So detector and name may be anybody's words.
    """
    named = any(
        outcome.name == detector and outcome.evidence and any(e.name == name for e in outcome.evidence.exhibits)
        for outcome in result.detectors
    )
    return f"{result.folder}/{detector}/{name}" if named and result.folder else None


def drop_evidence(blobs: BlobStore, folder: str | None) -> None:
    """Remove what was kept under a lease that was lost; nothing is raised, for it goes with the analysis."""
    if folder:
        with suppress(Unavailable):
            blobs.delete_folder(folder)


def _forget(blobs: BlobStore, key: str) -> None:
    with suppress(Unavailable):  # it goes with the analysis
        blobs.delete(key)
