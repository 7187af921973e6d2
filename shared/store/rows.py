"""What goes into the store and comes out of it, and the few row changes that several transactions share."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from clipwarden.shared.codes import FailCode
from clipwarden.shared.contracts import (
    Analysis,
    Lane,
    Manifest,
    MediaProbe,
    Stage,
    StageRow,
    StageStatus,
    Verdict,
)
from clipwarden.shared.ids import new_id
from clipwarden.shared.store.connection import text
from clipwarden.shared.tables import DEFAULT_TENANT

UNSENT_GRACE_S = 5.0
"""How long a fresh row is left to the process that made it, before the sweeper sends it."""


@dataclass(frozen=True, slots=True)
class NewAnalysis:
    """What the gateway knows of an analysis when it hands it over.

    Without a pipeline it gets the current one. What its message has not started in `resend_after_s` is sent again.
    Size, digest and key of a file that is still to be fetched from `source_url` are 0, "" and None.
    """

    filename: str
    size_bytes: int
    sha256: str
    upload_key: str | None
    pipeline: str | None
    deadline_s: float
    resend_after_s: float = UNSENT_GRACE_S
    tag: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tenant_id: UUID = DEFAULT_TENANT
    key_id: UUID | None = None
    lane: Lane = Lane.REALTIME
    policy: str | None = None
    detectors: tuple[str, ...] | None = None
    source_url: str | None = None
    callback_url: str | None = None
    batch_id: UUID | None = None
    rerun_of: UUID | None = None
    reusable: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """The stage is ours until the lease ends; everything the work needs to know.

    `detectors` and `policy` are None where the analysis is to have the pipeline's own.
    """

    token: UUID
    attempts: int
    manifest: Manifest
    upload_key: str | None
    source_url: str | None = None
    lane: Lane = Lane.REALTIME
    policy: str | None = None
    detectors: tuple[str, ...] | None = None

    @property
    def asked(self) -> Manifest:
        """The pipeline as far as the analysis asks for it."""
        return self.manifest.only(self.detectors)


@dataclass(frozen=True, slots=True)
class Busy:
    """Another worker holds a live lease for this long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Settled:
    """There is nothing to do: the stage or its analysis ended; with a code, it was ended just now."""

    code: FailCode | None = field(default=None, compare=False)


Claim = Granted | Busy | Settled


@dataclass(frozen=True, slots=True)
class DueStage:
    """An open row whose message is to be sent (again)."""

    analysis_id: UUID
    stage: Stage
    sends: int
    lane: Lane = Lane.REALTIME


ANALYSIS = text("""
    SELECT a.*, NULL AS awaited,
           (SELECT v.verdict FROM verdicts v WHERE v.analysis_id = a.id) AS verdict,
           (SELECT coalesce(jsonb_agg(to_jsonb(s) ORDER BY s.created_at, s.stage), '[]') FROM stages s
            WHERE s.analysis_id = a.id) AS stages
    FROM analyses a
    WHERE a.id = :id AND a.tenant_id = coalesce(:tenant, a.tenant_id)
""")
"""A whole analysis, unless it waits for another."""

AWAITING = text("""
    SELECT a.*, v.verdict, l.id AS awaited, l.state AS awaited_state, l.started_at AS awaited_since,
           (SELECT coalesce(jsonb_agg(to_jsonb(s) ORDER BY s.created_at, s.stage), '[]') FROM stages s
            WHERE s.analysis_id = a.id OR (s.analysis_id = l.id AND s.stage <> 'fetch')) AS stages
    FROM analyses a
    LEFT JOIN verdicts v ON v.analysis_id = a.id
    LEFT JOIN analyses l ON l.id = a.leader_id AND a.finished_at IS NULL
    WHERE a.id = :id AND a.tenant_id = coalesce(:tenant, a.tenant_id)
""")
"""A whole analysis and the one that it waits for, whose stages it shows; costs twice as much as ANALYSIS."""


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def open_stages(
    c: Connection, analysis_id: UUID, stages: Sequence[Stage], grace_s: float = UNSENT_GRACE_S, sends: int = 0
) -> None:
    """Open stages that the sweeper leaves alone for a time; `sends` is 1 where that is the first message's."""
    for stage in stages:
        c.execute(
            text("""
                INSERT INTO stages (analysis_id, stage, status, sends, not_before)
                VALUES (:id, :stage, 'open', :sends, clock_timestamp() + make_interval(secs => :grace))
                ON CONFLICT (analysis_id, stage) DO NOTHING
            """),
            {"id": analysis_id, "stage": stage.value, "grace": grace_s, "sends": sends},
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
                SET status = :status, code = :code, message = :message, so_far = NULL,
                    outcome = CAST(:outcome AS jsonb), finished_at = clock_timestamp(), lease_until = NULL
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


def owe_delivery(c: Connection, analysis_id: UUID) -> None:
    """Open the delivery that tells how an analysis ended, once, where a callback was asked for."""
    c.execute(
        text("""
            INSERT INTO deliveries (id, tenant_id, analysis_id, event, url, status, finished_at)
            SELECT :delivery, a.tenant_id, a.id, 'analysis.' || a.state, a.callback_url,
                   CASE WHEN s.url IS NULL THEN 'open' ELSE 'skipped' END,
                   CASE WHEN s.url IS NOT NULL THEN clock_timestamp() END
            FROM analyses a LEFT JOIN silenced s ON s.tenant_id = a.tenant_id AND s.url = a.callback_url
            WHERE a.id = :id AND a.callback_url IS NOT NULL AND a.state IN ('done', 'rejected', 'failed', 'cancelled')
              AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.analysis_id = a.id)
        """),
        {"delivery": new_id(), "id": analysis_id},
    )


def to_analysis(row: Row[Any]) -> Analysis:
    """An analysis that waits for another shows that one's progress. `row` is of ANALYSIS, or AWAITING."""
    run = (row.awaited_state, row.awaited_since) if row.awaited else (row.state, row.started_at)
    return Analysis(
        id=row.id,
        tenant_id=row.tenant_id,
        state=run[0],
        started_at=run[1],
        leader_id=row.awaited,
        pipeline=row.pipeline_id,
        filename=row.filename,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        probe=None if row.probe is None else MediaProbe.model_validate(row.probe),
        code=row.code,
        message=row.message,
        created_at=row.created_at,
        finished_at=row.finished_at,
        rerun_of=row.rerun_of,
        batch_id=row.batch_id,
        from_cache=row.from_cache,
        lane=row.lane,
        policy=row.policy,
        detectors=None if row.detectors is None else tuple(row.detectors),
        source_url=row.source_url,
        callback_url=row.callback_url,
        upload_key=row.upload_key,
        deleted_at=row.deleted_at,
        tag=row.tag,
        metadata=row.metadata,
        stages=tuple(StageRow(**{name: stage[name] for name in StageRow.model_fields}) for stage in row.stages),
        verdict=None if row.verdict is None else Verdict.model_validate(row.verdict),
    )
