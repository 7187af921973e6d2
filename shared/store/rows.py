"""What goes into the store and comes out of it, and the few row changes that several transactions share."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from clipwarden.shared.codes import SENTENCES, FailCode
from clipwarden.shared.contracts import (
    Analysis,
    AnalysisState,
    Branch,
    BranchResult,
    Lane,
    Manifest,
    MediaProbe,
    OutcomeStatus,
    Stage,
    StageRow,
    StageStatus,
    Verdict,
)
from clipwarden.shared.tables import DEFAULT_TENANT

UNSENT_GRACE_S = 5.0
"""How long a fresh row is left to the process that made it, before the sweeper sends it."""


@dataclass(frozen=True, slots=True)
class NewAnalysis:
    """What the gateway knows of an analysis when it hands it over.

    Size, digest and key of a file that is still to be fetched from `source_url` are 0, "" and None.
    """

    filename: str
    size_bytes: int
    sha256: str
    upload_key: str | None
    pipeline: str
    deadline_s: float
    tag: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tenant_id: UUID = DEFAULT_TENANT
    lane: Lane = Lane.REALTIME
    policy: str | None = None
    detectors: tuple[str, ...] | None = None
    source_url: str | None = None
    callback_url: str | None = None
    batch_id: UUID | None = None
    rerun_of: UUID | None = None
    reusable: bool = True


@dataclass(frozen=True, slots=True)
class Granted:
    """The stage is ours until the lease ends; everything the work needs to know."""

    token: UUID
    attempts: int
    manifest: Manifest
    upload_key: str | None


@dataclass(frozen=True, slots=True)
class Busy:
    """Another worker holds a live lease for this long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Settled:
    """There is nothing to do: the stage or its analysis ended."""


Claim = Granted | Busy | Settled


@dataclass(frozen=True, slots=True)
class DueStage:
    """An open row whose message is to be sent (again)."""

    analysis_id: UUID
    stage: Stage
    sends: int


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def open_stages(c: Connection, analysis_id: UUID, stages: Sequence[Stage]) -> None:
    for stage in stages:
        c.execute(
            text("""
                INSERT INTO stages (analysis_id, stage, status, not_before)
                VALUES (:id, :stage, 'open', clock_timestamp() + make_interval(secs => :grace))
                ON CONFLICT (analysis_id, stage) DO NOTHING
            """),
            {"id": analysis_id, "stage": stage.value, "grace": UNSENT_GRACE_S},
        )


def settle_stage(
    c: Connection,
    analysis_id: UUID,
    stage: Stage,
    token: UUID,
    status: StageStatus,
    code: str | None,
    message: str | None,
    outcome: str | None,
) -> bool:
    return (
        c.execute(
            text("""
                UPDATE stages s
                SET status = :status, code = :code, message = :message, outcome = CAST(:outcome AS
                    jsonb), finished_at = clock_timestamp(), lease_until = NULL
                FROM analyses a
                WHERE a.id = s.analysis_id
                AND a.state = 'running' AND s.analysis_id = :id AND s.stage = :stage AND s.lease_token =
                    :token AND s.status = 'leased'
            """),
            {
                "id": analysis_id,
                "stage": stage.value,
                "token": token,
                "status": status.value,
                "code": code,
                "message": message,
                "outcome": outcome,
            },
        ).rowcount
        == 1
    )


def fail_stage(c: Connection, analysis_id: UUID, stage: Stage, code: FailCode) -> None:
    outcome = None
    if stage not in {Stage.FETCH, Stage.INGEST}:
        outcome = BranchResult(
            branch=Branch(stage), status=OutcomeStatus.FAILED, code=code, message=SENTENCES[code]
        ).model_dump_json()
    c.execute(
        text("""
            UPDATE stages
            SET status = 'failed', code = :code, message = :message, outcome = CAST(:outcome AS jsonb),
                lease_token = NULL, lease_until = NULL, finished_at = clock_timestamp()
            WHERE analysis_id = :id AND stage = :stage
        """),
        {
            "id": analysis_id,
            "stage": stage.value,
            "code": code,
            "message": SENTENCES[code],
            "outcome": outcome,
        },
    )
    if outcome is None:
        end_analysis(c, analysis_id, AnalysisState.FAILED, code, SENTENCES[code])


def end_analysis(c: Connection, analysis_id: UUID, state: AnalysisState, code: str | None, message: str | None) -> None:
    c.execute(
        text("""
            UPDATE analyses
            SET state = :state, code = :code, message = :message, finished_at = clock_timestamp()
            WHERE id = :id AND state IN ('queued', 'running')
        """),
        {"id": analysis_id, "state": state.value, "code": code, "message": message},
    )


def to_analysis(row: Row[Any], stages: Sequence[Row[Any]]) -> Analysis:
    return Analysis(
        id=row.id,
        tenant_id=row.tenant_id,
        state=row.state,
        pipeline=row.pipeline_id,
        filename=row.filename,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        probe=None if row.probe is None else MediaProbe.model_validate(row.probe),
        code=row.code,
        message=row.message,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        rerun_of=row.rerun_of,
        batch_id=row.batch_id,
        from_cache=row.from_cache,
        lane=row.lane,
        policy=row.policy,
        detectors=None if row.detectors is None else tuple(row.detectors),
        source_url=row.source_url,
        upload_key=row.upload_key,
        tag=row.tag,
        metadata=row.metadata,
        stages=tuple(
            StageRow(
                stage=s.stage,
                status=s.status,
                attempts=s.attempts,
                code=s.code,
                message=s.message,
                outcome=s.outcome,
                started_at=s.started_at,
                finished_at=s.finished_at,
                created_at=s.created_at,
            )
            for s in stages
        ),
        verdict=None if row.verdict is None else Verdict.model_validate(row.verdict),
    )
