"""The store keeps its promises under claims, lost leases and late workers, on a real Postgres."""

import threading
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.codes import FailCode, RejectCode, SkipCode
from clipwarden.shared.contracts import (
    AnalysisState,
    Branch,
    BranchResult,
    DetectorOutcome,
    Evidence,
    Label,
    Manifest,
    MediaKind,
    MediaProbe,
    OutcomeStatus,
    Stage,
    StageStatus,
    Verdict,
)
from clipwarden.shared.database import tie_blob_store
from clipwarden.shared.errors import ConfigError, ElsewherePlease, Unavailable
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Busy, Granted, NewAnalysis, Overdue, Settled, Store
from clipwarden.shared.tables import metadata

MANIFEST = Manifest(detectors=(), faces="f", fusion=f"sha256:{'0' * 64}")
PROBE = MediaProbe(
    kind=MediaKind.VIDEO,
    container="mp4",
    duration_s=1,
    width=64,
    height=64,
    fps=25,
    frames=25,
    has_video=True,
    has_audio=True,
    size_bytes=9,
)
LIMITS = {"ingest_limit_s": 600, "assess_limit_s": 300, "lease_s": 60, "heartbeat_s": 15, "max_attempts": 3}


@pytest.fixture
def analysis_id(store: Store) -> UUID:
    store.publish("sha256:p", MANIFEST)
    return store.submit(
        NewAnalysis(
            filename="a.mp4", size_bytes=9, sha256="ab", upload_key="uploads/x", pipeline="sha256:p", deadline_s=60
        )
    ).id


def claimed(store: Store, analysis_id: UUID, stage: Stage = Stage.INGEST, lease_s: float = 60) -> Granted:
    claim = store.claim(analysis_id, stage, lease_s, 3, "w")
    assert isinstance(claim, Granted)
    return claim


def result(branch: Branch, score: float = 0.5) -> BranchResult:
    outcome = DetectorOutcome(
        name="d", version="1", status=OutcomeStatus.OK, evidence=Evidence(score=score, features={})
    )
    return BranchResult(branch=branch, status=OutcomeStatus.OK, detectors=(outcome,))


def judge(_: Manifest, results: Sequence[BranchResult], __: str | None) -> Verdict:
    return Verdict(
        label=Label.INCONCLUSIVE,
        probability=None,
        policy="p",
        head=None,
        coverage=len(results) / 4,
        degraded=False,
        baseline_logit=None,
    )


def ingested(store: Store, analysis_id: UUID, run: Sequence[Branch]) -> None:
    token = claimed(store, analysis_id).token
    assert store.finish_ingest(analysis_id, token, PROBE, run, {b: SkipCode.NO_WEIGHTS for b in Branch if b not in run})


def test_the_migrations_make_exactly_the_tables(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_a_stage_has_one_owner_at_a_time(store: Store, analysis_id: UUID) -> None:
    claims = []
    threads = [
        threading.Thread(target=lambda: claims.append(store.claim(analysis_id, Stage.INGEST, 60, 3, "w")))
        for _ in range(5)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(type(c).__name__ for c in claims) == ["Busy"] * 4 + ["Granted"]


def test_an_expired_lease_can_be_taken_and_the_late_worker_is_fenced_off(store: Store, analysis_id: UUID) -> None:
    late = claimed(store, analysis_id, lease_s=0)
    owner = claimed(store, analysis_id)
    assert owner.attempts == 2
    assert not store.finish_ingest(analysis_id, late.token, PROBE, [], {})
    assert not store.extend(analysis_id, Stage.INGEST, late.token, 60)
    assert store.extend(analysis_id, Stage.INGEST, owner.token, 60)


def test_the_attempt_after_the_last_is_poison_and_ends_the_analysis(store: Store, analysis_id: UUID) -> None:
    for _ in range(3):
        claimed(store, analysis_id, lease_s=0)
    assert isinstance(store.claim(analysis_id, Stage.INGEST, 0, 3, "w"), Settled)
    analysis = store.analysis(analysis_id)
    assert analysis is not None
    assert (analysis.state, analysis.code) == (AnalysisState.FAILED, FailCode.POISON)


def test_a_stage_handed_back_costs_no_attempt(store: Store, analysis_id: UUID) -> None:
    store.hand_back(analysis_id, Stage.INGEST, claimed(store, analysis_id).token)
    assert claimed(store, analysis_id).attempts == 1


def test_what_a_branch_found_so_far_is_shown_while_its_lease_lasts(store: Store, analysis_id: UUID) -> None:
    ingested(store, analysis_id, [Branch.VISUAL])

    def shown() -> object:
        analysis = store.analysis(analysis_id)
        assert analysis is not None
        return next(s.so_far for s in analysis.stages if s.stage is Stage.VISUAL)

    lost = claimed(store, analysis_id, Stage.VISUAL, lease_s=0).token
    store.tell_branch(analysis_id, lost, result(Branch.VISUAL))
    assert shown() is not None
    token = claimed(store, analysis_id, Stage.VISUAL).token
    store.tell_branch(analysis_id, lost, result(Branch.VISUAL))
    assert shown() is None
    store.tell_branch(analysis_id, token, result(Branch.VISUAL))
    assert shown() is not None
    store.hand_back(analysis_id, Stage.VISUAL, token)
    assert shown() is None
    token = claimed(store, analysis_id, Stage.VISUAL).token
    store.tell_branch(analysis_id, token, result(Branch.VISUAL))
    assert store.finish_branch(analysis_id, token, result(Branch.VISUAL))
    assert shown() is None


def test_ingest_opens_and_skips_the_branches_in_one_step(store: Store, analysis_id: UUID) -> None:
    ingested(store, analysis_id, [Branch.VISUAL])
    analysis = store.analysis(analysis_id)
    assert analysis is not None
    status = {s.stage: (s.status, s.code) for s in analysis.stages}
    assert status == {
        Stage.INGEST: (StageStatus.OK, None),
        Stage.VISUAL: (StageStatus.OPEN, None),
        **dict.fromkeys((Stage.AUDIO, Stage.LIPSYNC, Stage.CLIP), (StageStatus.SKIPPED, "no_weights")),
    }
    assert analysis.probe == PROBE


def test_a_rejected_file_ends_the_analysis_with_its_code(store: Store, analysis_id: UUID) -> None:
    assert store.end_ingest(analysis_id, claimed(store, analysis_id).token, RejectCode.TRUNCATED, "cut off")
    analysis = store.analysis(analysis_id)
    assert analysis is not None
    assert (analysis.state, analysis.code, analysis.message) == (AnalysisState.REJECTED, "truncated", "cut off")
    assert store.expired_uploads(age_s=3600) == [(analysis_id, "uploads/x")]


def test_an_analysis_is_fused_once_and_only_when_all_stages_are_settled(store: Store, analysis_id: UUID) -> None:
    ingested(store, analysis_id, [Branch.VISUAL])
    assert not store.fuse(analysis_id, judge)
    token = claimed(store, analysis_id, Stage.VISUAL).token
    assert store.finish_branch(analysis_id, token, result(Branch.VISUAL))
    outcomes: list[bool] = []
    threads = [threading.Thread(target=lambda: outcomes.append(store.fuse(analysis_id, judge))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(outcomes) == [False, False, False, True]
    analysis = store.analysis(analysis_id)
    assert analysis is not None
    assert analysis.state is AnalysisState.DONE
    assert analysis.verdict is not None


def test_a_judge_that_fails_leaves_the_analysis_open(store: Store, analysis_id: UUID) -> None:
    ingested(store, analysis_id, [])

    def refuse(_: Manifest, __: Sequence[BranchResult], ___: str | None) -> Verdict:
        raise Unavailable("no")

    with pytest.raises(Unavailable):
        store.fuse(analysis_id, refuse)
    assert store.fuse(analysis_id, judge)


def test_a_lost_worker_s_stage_is_opened_again_and_sent(store: Store, analysis_id: UUID) -> None:
    claimed(store, analysis_id, lease_s=0)
    assert store.due() == []
    store.end_overdue(**LIMITS)
    assert [(d.analysis_id, d.stage) for d in store.due()] == [(analysis_id, Stage.INGEST)]


def test_each_send_doubles_the_patience(store: Store, analysis_id: UUID, postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    waits = []
    for _ in range(3):
        store.mark_sent(analysis_id, [Stage.INGEST], 30)
        with engine.connect() as c:
            waits.append(c.scalar(text("SELECT round(extract(epoch FROM not_before - clock_timestamp())) FROM stages")))
    engine.dispose()
    assert waits == [60, 120, 240], "the first message is sent by whoever opens the analysis"
    assert store.due() == []
    assert len(store.due(everything=True)) == 1


def test_a_branch_past_its_limit_is_a_timeout_and_the_rest_is_judged(store: Store, analysis_id: UUID) -> None:
    ingested(store, analysis_id, [Branch.VISUAL])
    claimed(store, analysis_id, Stage.VISUAL, lease_s=0)
    ended = store.end_overdue(ingest_limit_s=0, assess_limit_s=0, lease_s=0, heartbeat_s=0, max_attempts=3)
    assert ended == [Overdue(analysis_id, Stage.VISUAL, FailCode.TIMEOUT)]
    assert store.unfused(0) == [analysis_id]
    assert store.fuse(analysis_id, judge)


def test_a_missing_bundle_opens_ingest_again_and_holds_the_branches(store: Store, analysis_id: UUID) -> None:
    ingested(store, analysis_id, [Branch.VISUAL, Branch.AUDIO])
    token = claimed(store, analysis_id, Stage.VISUAL).token
    store.reopen_ingest(analysis_id, Branch.VISUAL, token)
    assert [d.stage for d in store.due(everything=True)] == [Stage.INGEST]
    ingested_again = claimed(store, analysis_id)
    assert store.finish_ingest(analysis_id, ingested_again.token, PROBE, [Branch.VISUAL, Branch.AUDIO], {})
    assert {d.stage for d in store.due(everything=True)} == {Stage.VISUAL, Stage.AUDIO}


def test_an_outage_longer_than_the_limit_is_no_timeout(store: Store, analysis_id: UUID, postgres_url: str) -> None:
    claimed(store, analysis_id, lease_s=60)
    engine = create_engine(postgres_url)
    with engine.begin() as c:
        c.execute(
            text(
                "UPDATE stages SET leased_at = leased_at - interval '1 hour', lease_until = leased_at - interval '59"
                " minutes'"
            )
        )
    engine.dispose()
    assert store.end_overdue(**LIMITS) == []
    assert [d.stage for d in store.due()] == [Stage.INGEST]


def test_a_branch_waits_for_the_bundle_without_losing_attempts(store: Store, analysis_id: UUID) -> None:
    ingested(store, analysis_id, [Branch.VISUAL])
    assert store.reopen_ingest(analysis_id, Branch.VISUAL, claimed(store, analysis_id, Stage.VISUAL).token)
    for _ in range(5):
        assert isinstance(store.claim(analysis_id, Stage.VISUAL, 60, 3, "w"), Busy)
    assert store.finish_ingest(analysis_id, claimed(store, analysis_id).token, PROBE, [Branch.VISUAL], {})
    assert claimed(store, analysis_id, Stage.VISUAL).attempts == 1


def test_an_analysis_nobody_can_fuse_ends_at_its_deadline(store: Store, analysis_id: UUID, postgres_url: str) -> None:
    ingested(store, analysis_id, [])
    assert store.end_overdue(**LIMITS) == []
    engine = create_engine(postgres_url)
    with engine.begin() as c:
        c.execute(text("UPDATE analyses SET deadline_at = clock_timestamp() - interval '1 hour'"))
    engine.dispose()
    assert store.end_overdue(**LIMITS) == [Overdue(analysis_id, None, FailCode.DEADLINE)]
    analysis = store.analysis(analysis_id)
    assert analysis is not None
    assert analysis.state is AnalysisState.FAILED


def test_a_manifest_of_another_version_is_left_to_others(store: Store, analysis_id: UUID, postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as c:
        c.execute(text("UPDATE pipelines SET manifest = manifest || '{\"new_field\": 1}'"))
    with pytest.raises(ElsewherePlease):
        store.claim(analysis_id, Stage.INGEST, 60, 3, "w")
    with engine.connect() as c:
        assert c.execute(text("SELECT status, attempts FROM stages")).one() == ("open", 0)
    engine.dispose()


def test_past_its_deadline_an_analysis_ends(store: Store) -> None:
    store.publish("sha256:p", MANIFEST)
    aid = store.submit(
        NewAnalysis(filename="a", size_bytes=1, sha256="x", upload_key="uploads/x", pipeline="sha256:p", deadline_s=0)
    ).id
    assert store.end_overdue(**LIMITS) == [Overdue(aid, Stage.INGEST, FailCode.DEADLINE)]
    analysis = store.analysis(aid)
    assert analysis is not None
    assert (analysis.state, analysis.code) == (AnalysisState.FAILED, FailCode.DEADLINE)


def test_only_one_sweeper_works_at_a_time(store: Store) -> None:
    with store.sweeping() as first, store.sweeping() as second:
        assert (first, second) == (True, False)


def test_an_unknown_analysis_is_none_and_cannot_be_claimed(store: Store) -> None:
    assert store.analysis(uuid4()) is None
    assert isinstance(store.claim(uuid4(), Stage.INGEST, 60, 3, "w"), Settled)


def test_a_live_lease_says_how_long_to_wait(store: Store, analysis_id: UUID) -> None:
    claimed(store, analysis_id, lease_s=60)
    claim = store.claim(analysis_id, Stage.INGEST, 60, 3, "w")
    assert isinstance(claim, Busy)
    assert 50 < claim.seconds <= 60


def test_the_blob_store_of_another_database_is_refused(settings: Settings, store: Store) -> None:
    blobs = LocalBlobs(settings.blobs)
    (settings.blobs / "store-id").write_text("another")
    with pytest.raises(ConfigError, match="not the blob store"):
        blobs.check(store.store_id())
    (settings.blobs / "store-id").unlink()
    with pytest.raises(ConfigError, match="already has a blob store"):
        tie_blob_store(store, blobs)
    assert tie_blob_store(store, blobs, new_blob_store=True) == store.store_id()


def test_a_database_without_the_schema_says_what_to_run(postgres_url: str) -> None:
    empty = Store(postgres_url)
    engine = create_engine(postgres_url)
    with engine.begin() as c:
        c.execute(text("DROP TABLE installation"))
    engine.dispose()
    with pytest.raises(ConfigError, match="clipwarden db upgrade"):
        empty.store_id()
    empty.close()
