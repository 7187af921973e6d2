"""
Every statement of SQL: analyses, leased stages, verdicts, pipelines. Postgres is the truth; Redis may be lost.

Each public method is one transaction. A stage row is claimed by lease with a fencing token; what a worker reports
counts only while it holds the token. Times are the database's own clock.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from clipwarden.shared.codes import SENTENCES, FailCode, RejectCode, SkipCode
from clipwarden.shared.contracts import (
    Analysis,
    AnalysisState,
    Branch,
    BranchResult,
    Manifest,
    MediaProbe,
    OutcomeStatus,
    Stage,
    StageRow,
    StageStatus,
    Verdict,
)
from clipwarden.shared.errors import ConfigError, Unavailable
from clipwarden.shared.ids import new_id
from sqlalchemy import Connection, Row, create_engine, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

UNSENT_GRACE_S = 5.0
"""How long a fresh row is left to the process that made it, before the sweeper sends it."""


@dataclass(frozen=True, slots=True)
class NewAnalysis:
    """What the gateway knows of an upload when it hands it over."""

    filename: str
    size_bytes: int
    sha256: str
    upload_key: str
    pipeline: str
    deadline_s: float
    tag: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Granted:
    """The stage is ours until the lease ends; everything the work needs to know."""

    token: UUID
    attempts: int
    manifest: Manifest
    upload_key: str | None
    probe: MediaProbe | None


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


class Store:
    """Access to Postgres. `pool_size` is 1 in a worker process: its heartbeat shares the one connection."""

    def __init__(self, database_url: str, pool_size: int = 5) -> None:
        try:
            self._engine = create_engine(
                database_url.replace("postgresql://", "postgresql+psycopg2://", 1),
                pool_size=pool_size,
                max_overflow=0,
                pool_pre_ping=True,
                pool_timeout=10,
                connect_args={"connect_timeout": 3},
            )
        except Exception as error:  # SQLAlchemy raises several unrelated kinds for a bad URL
            raise ConfigError(f"CLIPWARDEN_DATABASE_URL is not a PostgreSQL URL: {error}") from error

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except ProgrammingError as error:
            if "does not exist" in str(error.orig):
                raise ConfigError(
                    f"the database schema is not this version's: run `clipwarden db upgrade` ({error.orig})"
                ) from error
            raise
        except PoolTimeout as error:
            raise Unavailable(f"no database connection is free: {error}") from error
        except DBAPIError as error:
            if error.connection_invalidated or type(error).__name__ in {"OperationalError", "InterfaceError"}:
                raise Unavailable(f"Postgres did not answer: {error.orig}") from error
            raise

    def ping(self) -> None:
        """Raises Unavailable if Postgres does not answer."""
        with self._transaction() as c:
            c.execute(text("SELECT 1"))

    # installation and pipelines

    def store_id(self) -> str | None:
        """The id of the blob store that belongs to this database, None before set-up."""
        with self._transaction() as c:
            return _text(c, "SELECT value FROM installation WHERE key = 'store_id'")

    def set_store_id(self, store_id: str) -> None:
        with self._transaction() as c:
            c.execute(
                text(
                    "INSERT INTO installation (key, value) VALUES ('store_id', :id)"
                    " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
                ),
                {"id": store_id},
            )

    def publish(self, pipeline_id: str, manifest: Manifest) -> None:
        """Make this the pipeline of new analyses. Publishing one again moves it back to the front."""
        with self._transaction() as c:
            c.execute(
                text(
                    "INSERT INTO pipelines (id, manifest) VALUES (:id, CAST(:manifest AS jsonb))"
                    " ON CONFLICT (id) DO UPDATE SET published_at = clock_timestamp()"
                ),
                {"id": pipeline_id, "manifest": manifest.model_dump_json()},
            )

    def current_pipeline(self) -> str | None:
        with self._transaction() as c:
            return _text(c, "SELECT id FROM pipelines ORDER BY published_at DESC LIMIT 1")

    def manifest(self, pipeline_id: str) -> Manifest | None:
        with self._transaction() as c:
            found = c.scalar(text("SELECT manifest FROM pipelines WHERE id = :id"), {"id": pipeline_id})
        return None if found is None else Manifest.model_validate(found)

    # the gateway's side

    def submit(self, new: NewAnalysis) -> UUID:
        """Open an analysis and its ingest stage; the open row is also the outbox of the message to send."""
        analysis_id = new_id()
        with self._transaction() as c:
            c.execute(
                text(
                    "INSERT INTO analyses"
                    " (id, pipeline_id, state, filename, size_bytes, sha256, upload_key, tag, metadata, deadline_at)"
                    " VALUES (:id, :pipeline, 'queued', :filename, :size, :sha256, :upload_key, :tag,"
                    " CAST(:metadata AS jsonb), clock_timestamp() + make_interval(secs => :deadline))"
                ),
                {
                    "id": analysis_id,
                    "pipeline": new.pipeline,
                    "filename": new.filename,
                    "size": new.size_bytes,
                    "sha256": new.sha256,
                    "upload_key": new.upload_key,
                    "tag": new.tag,
                    "metadata": _json(dict(new.metadata)),
                    "deadline": new.deadline_s,
                },
            )
            _open_stages(c, analysis_id, [Stage.INGEST])
        return analysis_id

    def mark_sent(self, analysis_id: UUID, stages: Sequence[Stage], resend_after_s: float) -> None:
        """Note that the messages of these stages are on their way; the sweeper doubles its patience each time."""
        with self._transaction() as c:
            c.execute(
                text(
                    "UPDATE stages SET sends = sends + 1,"
                    " not_before = clock_timestamp() + make_interval(secs => :after * 2 ^ least(sends, 6))"
                    " WHERE analysis_id = :id AND stage = ANY(:stages) AND status = 'open'"
                ),
                {"id": analysis_id, "stages": [s.value for s in stages], "after": resend_after_s},
            )

    def analysis(self, analysis_id: UUID) -> Analysis | None:
        """The whole analysis, None if the id is unknown."""
        with self._transaction() as c:
            row = c.execute(
                text(
                    "SELECT a.*, v.verdict FROM analyses a LEFT JOIN verdicts v ON v.analysis_id = a.id WHERE a.id = :id"
                ),
                {"id": analysis_id},
            ).one_or_none()
            if row is None:
                return None
            stages = c.execute(
                text("SELECT * FROM stages WHERE analysis_id = :id ORDER BY created_at, stage"),
                {"id": analysis_id},
            ).all()
        return _analysis(row, stages)

    # the workers' side

    def claim(self, analysis_id: UUID, stage: Stage, lease_s: float, max_attempts: int, worker: str) -> Claim:
        """
        Take the lease of a stage that is open, or whose lease ran out.

        The attempt after the last allowed one settles the stage as poison instead.
        """
        token = uuid4()
        with self._transaction() as c:
            attempts = c.scalar(
                text(
                    "UPDATE stages s SET status = 'leased', attempts = attempts + 1, lease_token = :token, worker = :worker,"
                    " leased_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => :lease),"
                    " started_at = coalesce(s.started_at, clock_timestamp())"
                    " FROM analyses a WHERE a.id = s.analysis_id AND s.analysis_id = :id AND s.stage = :stage"
                    " AND a.state IN ('queued', 'running')"
                    " AND (s.status = 'open' OR (s.status = 'leased' AND s.lease_until < clock_timestamp()))"
                    " RETURNING s.attempts"
                ),
                {"id": analysis_id, "stage": stage.value, "token": token, "worker": worker, "lease": lease_s},
            )
            if attempts is None:
                left = c.scalar(
                    text(
                        "SELECT extract(epoch FROM s.lease_until - clock_timestamp()) FROM stages s"
                        " JOIN analyses a ON a.id = s.analysis_id WHERE s.analysis_id = :id AND s.stage = :stage"
                        " AND s.status = 'leased' AND a.state IN ('queued', 'running')"
                    ),
                    {"id": analysis_id, "stage": stage.value},
                )
                return Settled() if left is None else Busy(max(0.0, float(left)))
            if attempts > max_attempts:
                _fail_stage(c, analysis_id, stage, FailCode.POISON)
                return Settled()
            row = c.execute(
                text(
                    "UPDATE analyses a SET state = 'running', started_at = coalesce(a.started_at, clock_timestamp())"
                    " FROM pipelines p WHERE a.id = :id AND p.id = a.pipeline_id"
                    " RETURNING a.upload_key, a.probe, p.manifest"
                ),
                {"id": analysis_id},
            ).one()
        probe = None if row.probe is None else MediaProbe.model_validate(row.probe)
        return Granted(token, attempts, Manifest.model_validate(row.manifest), row.upload_key, probe)

    def extend(self, analysis_id: UUID, stage: Stage, token: UUID, lease_s: float) -> bool:
        """Heartbeat. False if the lease is no longer ours, or the analysis ended."""
        with self._transaction() as c:
            return (
                c.execute(
                    text(
                        "UPDATE stages s SET lease_until = clock_timestamp() + make_interval(secs => :lease) FROM analyses a"
                        " WHERE a.id = s.analysis_id AND a.state = 'running' AND s.analysis_id = :id AND s.stage = :stage"
                        " AND s.lease_token = :token AND s.status = 'leased'"
                    ),
                    {"id": analysis_id, "stage": stage.value, "token": token, "lease": lease_s},
                ).rowcount
                == 1
            )

    def hand_back(self, analysis_id: UUID, stage: Stage, token: UUID) -> None:
        """Open the stage again for another worker; the attempt does not count."""
        with self._transaction() as c:
            c.execute(
                text(
                    "UPDATE stages SET status = 'open', attempts = attempts - 1, lease_token = NULL, lease_until = NULL"
                    " WHERE analysis_id = :id AND stage = :stage AND lease_token = :token AND status = 'leased'"
                ),
                {"id": analysis_id, "stage": stage.value, "token": token},
            )

    def finish_ingest(
        self,
        analysis_id: UUID,
        token: UUID,
        probe: MediaProbe,
        run: Sequence[Branch],
        skipped: Mapping[Branch, SkipCode],
    ) -> bool:
        """Settle the ingest stage and open the branches, in one transaction. False if the lease was lost."""
        with self._transaction() as c:
            if not _settle(c, analysis_id, Stage.INGEST, token, StageStatus.OK, None, None, None):
                return False
            c.execute(
                text("UPDATE analyses SET probe = CAST(:probe AS jsonb) WHERE id = :id"),
                {"id": analysis_id, "probe": probe.model_dump_json()},
            )
            _open_stages(c, analysis_id, [Stage(b) for b in run])
            for branch, code in skipped.items():
                result = BranchResult(branch=branch, status=OutcomeStatus.SKIPPED, code=code, message=SENTENCES[code])
                c.execute(
                    text(
                        "INSERT INTO stages (analysis_id, stage, status, code, message, outcome, finished_at)"
                        " VALUES (:id, :stage, 'skipped', :code, :message, CAST(:outcome AS jsonb), clock_timestamp())"
                        " ON CONFLICT (analysis_id, stage) DO NOTHING"
                    ),
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
            if not _settle(c, analysis_id, Stage.INGEST, token, StageStatus.FAILED, code, message, None):
                return False
            _end(
                c,
                analysis_id,
                AnalysisState.REJECTED if isinstance(code, RejectCode) else AnalysisState.FAILED,
                code,
                message,
            )
        return True

    def finish_branch(self, analysis_id: UUID, token: UUID, result: BranchResult) -> bool:
        """Settle a branch with its result. False if the lease was lost."""
        with self._transaction() as c:
            return _settle(
                c,
                analysis_id,
                Stage(result.branch),
                token,
                StageStatus(result.status),
                result.code,
                result.message,
                result.model_dump_json(),
            )

    def reopen_ingest(self, analysis_id: UUID, branch: Branch, token: UUID) -> None:
        """The bundle is gone: give the branch back and have ingest make the bundle again."""
        with self._transaction() as c:
            c.execute(
                text(
                    "UPDATE stages SET status = 'open', lease_token = NULL, lease_until = NULL"
                    " WHERE analysis_id = :id AND stage = :stage AND lease_token = :token AND status = 'leased'"
                ),
                {"id": analysis_id, "stage": branch.value, "token": token},
            )
            c.execute(
                text(
                    "UPDATE stages SET status = 'open', not_before = clock_timestamp(), finished_at = NULL"
                    " WHERE analysis_id = :id AND stage = 'ingest' AND status = 'ok'"
                ),
                {"id": analysis_id},
            )

    def fuse(self, analysis_id: UUID, judge: Callable[[Manifest, Sequence[BranchResult]], Verdict]) -> bool:
        """
        Judge an analysis all of whose stages are settled, exactly once; the row lock is the fence.

        Returns True if this call closed it, False if it is closed already or a stage is still open.
        """
        with self._transaction() as c:
            row = c.execute(
                text(
                    "SELECT a.state, p.manifest FROM analyses a JOIN pipelines p ON p.id = a.pipeline_id"
                    " WHERE a.id = :id FOR UPDATE OF a"
                ),
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
                Manifest.model_validate(row.manifest),
                sorted(results, key=lambda r: list(Branch).index(r.branch)),
            )
            c.execute(
                text("INSERT INTO verdicts (analysis_id, verdict) VALUES (:id, CAST(:verdict AS jsonb))"),
                {"id": analysis_id, "verdict": verdict.model_dump_json()},
            )
            _end(c, analysis_id, AnalysisState.DONE, None, None)
        return True

    # the sweeper's side

    @contextmanager
    def sweeping(self) -> Iterator[bool]:
        """Hold the lock that lets one sweeper work at a time; False if another holds it."""
        with self._transaction() as c:
            yield bool(c.scalar(text("SELECT pg_try_advisory_xact_lock(727463)")))

    def end_overdue(
        self, ingest_limit_s: float, assess_limit_s: float, max_attempts: int
    ) -> dict[FailCode, list[tuple[UUID, Stage]]]:
        """
        Settle what can no longer succeed, and open again what lost its worker.

        timeout: a lease that ran out after the stage's time limit; poison: one that ran out on the last attempt;
        deadline: an analysis past its deadline.
        """
        ended: dict[FailCode, list[tuple[UUID, Stage]]] = {
            FailCode.DEADLINE: [],
            FailCode.TIMEOUT: [],
            FailCode.POISON: [],
        }
        with self._transaction() as c:
            late = c.execute(
                text(
                    "SELECT s.analysis_id, s.stage, s.attempts, a.deadline_at < clock_timestamp() AS past_deadline,"
                    " s.leased_at + make_interval(secs => CASE s.stage WHEN 'ingest' THEN :ingest ELSE :assess END)"
                    " < clock_timestamp() AS past_limit"
                    " FROM stages s JOIN analyses a ON a.id = s.analysis_id"
                    " WHERE a.finished_at IS NULL AND s.status IN ('open', 'leased') AND (a.deadline_at < clock_timestamp()"
                    " OR (s.status = 'leased' AND s.lease_until < clock_timestamp())) ORDER BY s.analysis_id, s.stage FOR UPDATE OF s SKIP LOCKED"
                ),
                {"ingest": ingest_limit_s, "assess": assess_limit_s},
            ).all()
            for row in late:
                code = (
                    FailCode.DEADLINE
                    if row.past_deadline
                    else FailCode.TIMEOUT
                    if row.past_limit
                    else FailCode.POISON
                    if row.attempts >= max_attempts
                    else None
                )
                if code is None:
                    c.execute(
                        text(
                            "UPDATE stages SET status = 'open', lease_token = NULL, lease_until = NULL,"
                            " not_before = clock_timestamp() WHERE analysis_id = :id AND stage = :stage"
                        ),
                        {"id": row.analysis_id, "stage": row.stage},
                    )
                else:
                    _fail_stage(c, row.analysis_id, Stage(row.stage), code)
                    ended[code].append((row.analysis_id, Stage(row.stage)))
        return ended

    def due(self, everything: bool = False, limit: int = 500) -> list[DueStage]:
        """
        Open rows whose time to be sent has come; `everything` ignores the time, after the broker was emptied.

        Branches of an analysis whose ingest is open again wait for it.
        """
        with self._transaction() as c:
            rows = c.execute(
                text(
                    "SELECT s.analysis_id, s.stage, s.sends FROM stages s JOIN analyses a ON a.id = s.analysis_id"
                    " WHERE s.status = 'open' AND a.finished_at IS NULL AND (:everything OR s.not_before <= clock_timestamp())"
                    " AND (s.stage = 'ingest' OR NOT EXISTS (SELECT 1 FROM stages i WHERE i.analysis_id = s.analysis_id"
                    " AND i.stage = 'ingest' AND i.status IN ('open', 'leased')))"
                    " ORDER BY s.not_before LIMIT :limit"
                ),
                {"everything": everything, "limit": limit},
            ).all()
        return [DueStage(r.analysis_id, Stage(r.stage), r.sends) for r in rows]

    def open_counts(self) -> dict[Stage, int]:
        """How many rows of each stage are open."""
        with self._transaction() as c:
            rows = c.execute(text("SELECT stage, count(*) AS n FROM stages WHERE status = 'open' GROUP BY stage")).all()
        return {Stage(r.stage): r.n for r in rows}

    def unfused(self, age_s: float, limit: int = 500) -> list[UUID]:
        """Running analyses all of whose stages were settled at least `age_s` ago."""
        with self._transaction() as c:
            rows = c.scalars(
                text(
                    "SELECT a.id FROM analyses a JOIN stages s ON s.analysis_id = a.id WHERE a.finished_at IS NULL"
                    " AND a.state = 'running' GROUP BY a.id HAVING count(*) > 1 AND bool_and(s.status NOT IN ('open', 'leased'))"
                    " AND max(s.finished_at) < clock_timestamp() - make_interval(secs => :age) ORDER BY a.id LIMIT :limit"
                ),
                {"age": age_s, "limit": limit},
            ).all()
        return list(rows)

    def expired_uploads(self, age_s: float, limit: int = 500) -> list[tuple[UUID, str]]:
        """Uploads of analyses that ended at least `age_s` ago, rejected ones at once."""
        with self._transaction() as c:
            rows = c.execute(
                text(
                    "SELECT id, upload_key FROM analyses WHERE upload_key IS NOT NULL AND finished_at IS NOT NULL AND"
                    " (state = 'rejected' OR finished_at < clock_timestamp() - make_interval(secs => :age)) LIMIT :limit"
                ),
                {"age": age_s, "limit": limit},
            ).all()
        return [(r.id, r.upload_key) for r in rows]

    def forget_upload(self, analysis_id: UUID) -> None:
        """Note that the analysis's upload is deleted."""
        with self._transaction() as c:
            c.execute(text("UPDATE analyses SET upload_key = NULL WHERE id = :id"), {"id": analysis_id})

    def finished(self, analysis_ids: Sequence[UUID]) -> set[UUID]:
        """Those of the ids that ended, or that the database does not know."""
        with self._transaction() as c:
            alive = c.scalars(
                text("SELECT id FROM analyses WHERE id = ANY(:ids) AND finished_at IS NULL"),
                {"ids": list(analysis_ids)},
            ).all()
        return set(analysis_ids) - set(alive)


def _text(c: Connection, statement: str) -> str | None:
    found = c.scalar(text(statement))
    return None if found is None else str(found)


def _json(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)


def _open_stages(c: Connection, analysis_id: UUID, stages: Sequence[Stage]) -> None:
    for stage in stages:
        c.execute(
            text(
                "INSERT INTO stages (analysis_id, stage, status, not_before) VALUES (:id, :stage, 'open',"
                " clock_timestamp() + make_interval(secs => :grace)) ON CONFLICT (analysis_id, stage) DO NOTHING"
            ),
            {"id": analysis_id, "stage": stage.value, "grace": UNSENT_GRACE_S},
        )


def _settle(
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
            text(
                "UPDATE stages s SET status = :status, code = :code, message = :message, outcome = CAST(:outcome AS jsonb),"
                " finished_at = clock_timestamp(), lease_until = NULL FROM analyses a WHERE a.id = s.analysis_id"
                " AND a.state = 'running' AND s.analysis_id = :id AND s.stage = :stage AND s.lease_token = :token"
                " AND s.status = 'leased'"
            ),
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


def _fail_stage(c: Connection, analysis_id: UUID, stage: Stage, code: FailCode) -> None:
    outcome = None
    if stage not in {Stage.FETCH, Stage.INGEST}:
        outcome = BranchResult(
            branch=Branch(stage), status=OutcomeStatus.FAILED, code=code, message=SENTENCES[code]
        ).model_dump_json()
    c.execute(
        text(
            "UPDATE stages SET status = 'failed', code = :code, message = :message, outcome = CAST(:outcome AS jsonb),"
            " lease_token = NULL, lease_until = NULL, finished_at = clock_timestamp()"
            " WHERE analysis_id = :id AND stage = :stage"
        ),
        {
            "id": analysis_id,
            "stage": stage.value,
            "code": code,
            "message": SENTENCES[code],
            "outcome": outcome,
        },
    )
    if outcome is None:
        _end(c, analysis_id, AnalysisState.FAILED, code, SENTENCES[code])


def _end(c: Connection, analysis_id: UUID, state: AnalysisState, code: str | None, message: str | None) -> None:
    c.execute(
        text(
            "UPDATE analyses SET state = :state, code = :code, message = :message, finished_at = clock_timestamp()"
            " WHERE id = :id AND state IN ('queued', 'running')"
        ),
        {"id": analysis_id, "state": state.value, "code": code, "message": message},
    )


def _analysis(row: Row[Any], stages: Sequence[Row[Any]]) -> Analysis:
    return Analysis(
        id=row.id,
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
