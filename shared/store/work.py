"""The workers' side of the store: claiming a stage, keeping it, settling it, and the one verdict."""

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID, uuid4

from pydantic import ValidationError
from sqlalchemy import Connection

from clipwarden.shared.codes import SENTENCES, FailCode, RejectCode, SkipCode
from clipwarden.shared.contracts import (
    AnalysisState,
    Branch,
    BranchResult,
    Lane,
    Manifest,
    MediaProbe,
    OutcomeStatus,
    Stage,
    StageStatus,
    Verdict,
)
from clipwarden.shared.errors import ElsewherePlease
from clipwarden.shared.store.connection import Database, text
from clipwarden.shared.store.ending import end_analysis, fail_stage
from clipwarden.shared.store.reuse import copy_branches
from clipwarden.shared.store.rows import (
    Busy,
    Claim,
    Granted,
    Settled,
    open_stages,
    settle_stage,
)

HANDED_BACK_S = 30.0
"""How long the message that hands a stage back is given before the sweeper sends another."""
INGEST_FIRST_S = 5.0
"""How long a branch waits before it asks again whether ingest is done."""

Judge = Callable[[Manifest, Sequence[BranchResult], str | None], Verdict]


class Work(Database):
    """Leased work on stages."""

    def claim(self, analysis_id: UUID, stage: Stage, lease_s: float, max_attempts: int, worker: str) -> Claim:
        """Take the lease of a stage that is open, or whose lease ran out. A branch waits while ingest is at work.

        The attempt after the last allowed one settles the stage as poison instead. Raises ElsewherePlease, and claims
        nothing, if the analysis's manifest is of a version that this process cannot read.
        """
        token = uuid4()
        with self._transaction() as c:
            attempts = c.scalar(
                text("""
                    UPDATE stages s SET status = 'leased', attempts = attempts + 1, lease_token = :token,
                        worker = :worker, leased_at = clock_timestamp(), so_far = NULL,
                        lease_until = clock_timestamp() + make_interval(secs => :lease),
                        started_at = coalesce(s.started_at, clock_timestamp())
                    FROM analyses a WHERE a.id = s.analysis_id AND s.analysis_id = :id AND s.stage = :stage
                      AND a.state IN ('queued', 'running')
                      AND (s.status = 'open' OR (s.status = 'leased' AND s.lease_until < clock_timestamp()))
                      AND (s.stage = 'ingest' OR NOT EXISTS (
                           SELECT 1 FROM stages i WHERE i.analysis_id = s.analysis_id
                           AND i.stage = 'ingest' AND i.status IN ('open', 'leased')))
                    RETURNING s.attempts
                """),
                {"id": analysis_id, "stage": stage.value, "token": token, "worker": worker, "lease": lease_s},
            )
            if attempts is None:
                return _unclaimed(c, analysis_id, stage)
            if attempts > max_attempts:
                fail_stage(c, analysis_id, stage, FailCode.POISON)
                return Settled(FailCode.POISON)
            row = c.execute(
                text("""
                    UPDATE analyses a SET state = 'running', started_at = coalesce(a.started_at, clock_timestamp())
                    FROM pipelines p WHERE a.id = :id AND p.id = a.pipeline_id AND a.state IN ('queued', 'running')
                    RETURNING a.upload_key, a.source_url, a.lane, a.policy, a.detectors, p.manifest
                """),
                {"id": analysis_id},
            ).one_or_none()
            if row is None:  # ended while we waited for the row; nobody reads the stages of an ended analysis
                return Settled()
            return Granted(
                token=token,
                attempts=attempts,
                manifest=_manifest(row.manifest),
                upload_key=row.upload_key,
                source_url=row.source_url,
                lane=Lane(row.lane),
                policy=row.policy,
                detectors=None if row.detectors is None else tuple(row.detectors),
            )

    def extend(self, analysis_id: UUID, stage: Stage, token: UUID, lease_s: float) -> bool:
        """Heartbeat. False if the lease is no longer ours, or the analysis ended."""
        with self._transaction() as c:
            return (
                c.execute(
                    text("""
                        UPDATE stages s
                        SET lease_until = clock_timestamp() + make_interval(secs => :lease)
                        FROM analyses a
                        WHERE a.id = s.analysis_id
                        AND a.state = 'running' AND s.analysis_id = :id AND s.stage = :stage AND
                            s.lease_token = :token AND s.status = 'leased'
                    """),
                    {"id": analysis_id, "stage": stage.value, "token": token, "lease": lease_s},
                ).rowcount
                == 1
            )

    def hand_back(self, analysis_id: UUID, stage: Stage, token: UUID, pause_s: float = 0.0) -> None:
        """Open the stage again for another worker; the attempt does not count. Its message comes after the pause."""
        with self._transaction() as c:
            c.execute(
                text("""
                    UPDATE stages
                    SET status = 'open', attempts = attempts - 1, so_far = NULL, lease_token = NULL,
                        lease_until = NULL, not_before = clock_timestamp() + make_interval(secs => :patience)
                    WHERE analysis_id = :id AND stage = :stage AND lease_token = :token AND status =
                        'leased'
                """),
                {"id": analysis_id, "stage": stage.value, "token": token, "patience": pause_s + HANDED_BACK_S},
            )

    def finish_ingest(
        self,
        analysis_id: UUID,
        token: UUID,
        probe: MediaProbe,
        run: Sequence[Branch],
        skipped: Mapping[Branch, SkipCode],
        reused: Mapping[Branch, UUID] | None = None,
    ) -> bool:
        """Settle the ingest stage and open the branches, in one transaction. False if the lease was lost.

        `reused` names the analyses whose findings some branches take over. Raises Unavailable if one is there no more.
        """
        with self._transaction() as c:
            if not settle_stage(c, analysis_id, Stage.INGEST, token, StageStatus.OK, None, None, None):
                return False
            c.execute(
                text("UPDATE analyses SET probe = CAST(:probe AS jsonb) WHERE id = :id"),
                {"id": analysis_id, "probe": probe.model_dump_json()},
            )
            open_stages(c, analysis_id, [Stage(b) for b in run])
            copy_branches(c, analysis_id, reused or {})
            for branch, code in skipped.items():
                result = BranchResult(branch=branch, status=OutcomeStatus.SKIPPED, code=code, message=SENTENCES[code])
                c.execute(
                    text("""
                        INSERT INTO stages (analysis_id, stage, status, code, message, outcome,
                            finished_at)
                        VALUES (:id, :stage, 'skipped', :code, :message, CAST(:outcome AS jsonb),
                            clock_timestamp())
                        ON CONFLICT (analysis_id, stage) DO NOTHING
                    """),
                    {
                        "id": analysis_id,
                        "stage": branch.value,
                        "code": code,
                        "message": result.message,
                        "outcome": result.model_dump_json(),
                    },
                )
        return True

    def end_ingest(self, analysis_id: UUID, token: UUID, code: RejectCode | FailCode, message: str) -> bool:
        """End the analysis at ingest: rejected for the file's fault, failed for ours. False if the lease was lost."""
        with self._transaction() as c:
            if not settle_stage(c, analysis_id, Stage.INGEST, token, StageStatus.FAILED, code, message, None):
                return False
            end_analysis(
                c,
                analysis_id,
                AnalysisState.REJECTED if isinstance(code, RejectCode) else AnalysisState.FAILED,
                code,
                message,
            )
        return True

    def tell_branch(self, analysis_id: UUID, token: UUID, so_far: BranchResult) -> None:
        """Show what a branch at work has found by now; nothing is shown once the lease is lost."""
        with self._transaction() as c:
            c.execute(
                text("""
                    UPDATE stages SET so_far = CAST(:so_far AS jsonb)
                    WHERE analysis_id = :id AND stage = :stage AND lease_token = :token AND status = 'leased'
                """),
                {"id": analysis_id, "stage": so_far.branch.value, "token": token, "so_far": so_far.as_row()},
            )

    def finish_branch(self, analysis_id: UUID, token: UUID, result: BranchResult) -> bool:
        """Settle a branch with its result. False if the lease was lost."""
        with self._transaction() as c:
            return settle_stage(
                c,
                analysis_id,
                Stage(result.branch),
                token,
                StageStatus(result.status),
                result.code,
                result.message,
                result.as_row(),
            )

    def reopen_ingest(self, analysis_id: UUID, branch: Branch, token: UUID) -> bool:
        """The bundle is gone: give the branch back, at no cost, and have ingest make the bundle again.

        True if this call opened ingest. Ingest's own attempts bound how often this can happen.
        """
        with self._transaction() as c:
            c.execute(
                text("""
                    UPDATE stages
                    SET status = 'open', attempts = attempts - 1, so_far = NULL, lease_token = NULL, lease_until = NULL
                    WHERE analysis_id = :id AND stage = :stage AND lease_token = :token AND status = 'leased'
                """),
                {"id": analysis_id, "stage": branch.value, "token": token},
            )
            opened = c.execute(
                text("""
                    UPDATE stages SET status = 'open', not_before = clock_timestamp(), finished_at = NULL
                    WHERE analysis_id = :id AND stage = 'ingest' AND status = 'ok'
                """),
                {"id": analysis_id},
            ).rowcount
        return opened == 1

    def fuse(self, analysis_id: UUID, judge: Judge) -> bool:
        """Judge an analysis all of whose stages are settled, exactly once; the row lock is the fence.

        `judge` is given the pipeline as far as the analysis asks for it, what was found, and the policy asked for.
        Returns True if this call closed it, False if it is closed already or a stage is still open. Raises
        ElsewherePlease if the manifest is of a version that this process cannot read.
        """
        with self._transaction() as c:
            row = c.execute(
                text("""
                    SELECT a.state, a.policy, a.detectors, p.manifest
                    FROM analyses a JOIN pipelines p ON p.id = a.pipeline_id
                    WHERE a.id = :id
                    FOR UPDATE OF a
                """),
                {"id": analysis_id},
            ).one_or_none()
            if row is None or row.state != AnalysisState.RUNNING:
                return False
            stages = c.execute(
                text("SELECT stage, status, outcome FROM stages WHERE analysis_id = :id"), {"id": analysis_id}
            ).all()
            if any(s.status in {"open", "leased"} for s in stages) or not any(s.stage in set(Branch) for s in stages):
                return False
            results = [BranchResult.model_validate(s.outcome) for s in stages if s.stage in set(Branch)]
            verdict = judge(
                _manifest(row.manifest).only(row.detectors),
                sorted(results, key=lambda r: list(Branch).index(r.branch)),
                row.policy,
            )
            c.execute(
                text("INSERT INTO verdicts (analysis_id, verdict) VALUES (:id, CAST(:verdict AS jsonb))"),
                {"id": analysis_id, "verdict": verdict.model_dump_json()},
            )
            end_analysis(c, analysis_id, AnalysisState.DONE, None, None)
        return True


def _manifest(found: Mapping[str, object]) -> Manifest:
    try:
        return Manifest.model_validate(found)
    except ValidationError as error:
        raise ElsewherePlease(f"the analysis's manifest is of another version: {error}") from error


def _unclaimed(c: Connection, analysis_id: UUID, stage: Stage) -> Claim:
    """Why a stage could not be taken: it ended, a live lease holds it, or ingest has to come first."""
    row = c.execute(
        text("""
            SELECT s.status, extract(epoch FROM s.lease_until - clock_timestamp()) AS seconds
            FROM stages s JOIN analyses a ON a.id = s.analysis_id
            WHERE s.analysis_id = :id AND s.stage = :stage AND s.status IN ('open', 'leased')
              AND a.state IN ('queued', 'running')
        """),
        {"id": analysis_id, "stage": stage.value},
    ).one_or_none()
    if row is None:
        return Settled()
    return Busy(INGEST_FIRST_S if row.seconds is None else max(0.0, float(row.seconds)))
