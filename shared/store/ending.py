"""How an analysis ends, and those with it that wait for its result: all in the transaction of whoever ends it.

Locks are taken from the analysis that others follow to its followers, never the other way round.
"""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection

from clipwarden.shared.codes import SENTENCES, FailCode
from clipwarden.shared.contracts import AnalysisState, Branch, BranchResult, OutcomeStatus, Stage
from clipwarden.shared.store.connection import text
from clipwarden.shared.store.rows import open_stages, owe_delivery

SHARED_ENDS = frozenset({AnalysisState.DONE, AnalysisState.REJECTED})
"""Ends that are the content's own, so that they are those of every analysis of it."""


def fail_stage(c: Connection, analysis_id: UUID, stage: Stage, code: FailCode) -> None:
    """Settle a stage as failed; without a fetched or ingested file that is the end of the analysis."""
    outcome = None
    if stage not in {Stage.FETCH, Stage.INGEST}:
        outcome = BranchResult(
            branch=Branch(stage), status=OutcomeStatus.FAILED, code=code, message=SENTENCES[code]
        ).model_dump_json()
    c.execute(
        text("""
            UPDATE stages
            SET status = 'failed', code = :code, message = :message, outcome = CAST(:outcome AS jsonb),
                so_far = NULL, lease_token = NULL, lease_until = NULL, finished_at = clock_timestamp()
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
    """End an analysis that has not ended, owe its callback, and do right by its followers."""
    c.execute(
        text("""
            UPDATE analyses
            SET state = :state, code = :code, message = :message, finished_at = clock_timestamp()
            WHERE id = :id AND state IN ('queued', 'running')
        """),
        {"id": analysis_id, "state": state.value, "code": code, "message": message},
    )
    owe_delivery(c, analysis_id)
    release_followers(c, analysis_id)


def release_followers(c: Connection, leader_id: UUID) -> None:
    """What becomes of those that wait for an analysis that has ended.

    They end as it did if that is the content's doing; otherwise the first of them runs, and the others follow it.
    """
    waiting = c.execute(
        text("""
            SELECT f.id, f.lane FROM analyses f WHERE f.leader_id = :leader AND f.finished_at IS NULL
            ORDER BY f.id FOR UPDATE
        """),
        {"leader": leader_id},
    ).all()
    if not waiting:
        return
    state = c.scalar(text("SELECT state FROM analyses WHERE id = :leader"), {"leader": leader_id})
    if state in SHARED_ENDS:
        take_over(c, leader_id, [w.id for w in waiting])
    else:
        _promote(c, [w.id for w in sorted(waiting, key=lambda w: w.lane == "bulk")])


def take_over(c: Connection, source_id: UUID, analysis_ids: Sequence[UUID]) -> None:
    """End analyses as another of their content ended: with its findings and its verdict."""
    copy_stages(c, source_id, analysis_ids)
    given = {"source": source_id, "ids": list(analysis_ids)}
    c.execute(
        text("""
            INSERT INTO verdicts (analysis_id, verdict)
            SELECT id, v.verdict FROM verdicts v, unnest(CAST(:ids AS uuid[])) AS id WHERE v.analysis_id = :source
        """),
        given,
    )
    c.execute(
        text("""
            UPDATE analyses a
            SET state = s.state, code = s.code, message = s.message, probe = s.probe, from_cache = true,
                started_at = greatest(a.created_at, s.started_at), finished_at = clock_timestamp()
            FROM analyses s WHERE s.id = :source AND a.id = ANY(:ids)
        """),
        given,
    )
    for analysis_id in analysis_ids:
        owe_delivery(c, analysis_id)


def copy_stages(c: Connection, source_id: UUID, analysis_ids: Sequence[UUID]) -> None:
    """Give analyses the settled stages of another of their content; no worker and no attempt stands for them."""
    c.execute(
        text("""
            INSERT INTO stages (analysis_id, stage, status, code, message, outcome, created_at, started_at, finished_at)
            SELECT id, s.stage, s.status, s.code, s.message, s.outcome, s.created_at, s.started_at, s.finished_at
            FROM stages s, unnest(CAST(:ids AS uuid[])) AS id
            WHERE s.analysis_id = :source AND s.stage <> 'fetch'
            ON CONFLICT (analysis_id, stage) DO NOTHING
        """),
        {"source": source_id, "ids": list(analysis_ids)},
    )


def _promote(c: Connection, waiting: Sequence[UUID]) -> None:
    """The first runs, within the time that is left to it; the others follow it."""
    first, *others = waiting
    c.execute(text("UPDATE analyses SET state = 'queued', leader_id = NULL WHERE id = :id"), {"id": first})
    c.execute(
        text("UPDATE analyses SET leader_id = :first WHERE id = ANY(:others)"), {"first": first, "others": others}
    )
    open_stages(c, first, [Stage.INGEST])
