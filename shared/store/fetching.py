"""The store's side of fetching: a file that was named by its address becomes one that was uploaded."""

from dataclasses import dataclass
from uuid import UUID

from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import AnalysisState, Stage, StageStatus
from clipwarden.shared.store.connection import Database, text
from clipwarden.shared.store.ending import end_analysis
from clipwarden.shared.store.reuse import lock_contents, share
from clipwarden.shared.store.rows import UNSENT_GRACE_S, open_stages, settle_stage


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that lies in the blob store."""

    filename: str
    size_bytes: int
    sha256: str
    upload_key: str


class Fetching(Database):
    """Leased work on the fetch stage."""

    def finish_fetch(
        self, analysis_id: UUID, token: UUID, found: Fetched, resend_after_s: float = UNSENT_GRACE_S
    ) -> bool:
        """Record the file and open ingest, which counts as sent, unless it was or is examined already.

        False if the lease was lost.
        """
        with self._transaction() as c:
            if not settle_stage(c, analysis_id, Stage.FETCH, token, StageStatus.OK, None, None, None):
                return False
            tenant_id = c.scalars(text("SELECT tenant_id FROM analyses WHERE id = :id"), {"id": analysis_id}).one()
            lock_contents(c, [(tenant_id, found.sha256)])
            c.execute(
                text("""
                    UPDATE analyses SET filename = :filename, size_bytes = :size_bytes, sha256 = :sha256,
                        upload_key = :upload_key
                    WHERE id = :id
                """),
                {
                    "id": analysis_id,
                    "filename": found.filename,
                    "size_bytes": found.size_bytes,
                    "sha256": found.sha256,
                    "upload_key": found.upload_key,
                },
            )
            if not share(c, analysis_id):
                open_stages(c, analysis_id, [Stage.INGEST], resend_after_s, sends=1)
        return True

    def end_fetch(self, analysis_id: UUID, token: UUID, code: RejectCode, message: str) -> bool:
        """Reject the analysis: there is no file to be had. False if the lease was lost."""
        with self._transaction() as c:
            if not settle_stage(c, analysis_id, Stage.FETCH, token, StageStatus.FAILED, code, message, None):
                return False
            end_analysis(c, analysis_id, AnalysisState.REJECTED, code, message)
        return True

    def put_off_fetch(self, analysis_id: UUID, token: UUID, seconds: float) -> None:
        """Open the stage again for an attempt later on; the one that was made counts."""
        with self._transaction() as c:
            c.execute(
                text("""
                    UPDATE stages SET status = 'open', lease_token = NULL, lease_until = NULL,
                        not_before = clock_timestamp() + make_interval(secs => :seconds)
                    WHERE analysis_id = :id AND stage = 'fetch' AND lease_token = :token AND status = 'leased'
                """),
                {"id": analysis_id, "token": token, "seconds": seconds},
            )
