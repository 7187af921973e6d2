"""Analyses of the same content share one run and one file, and lose neither when one of them ends or goes."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import create_engine, event, text

from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.codes import FailCode, RejectCode
from clipwarden.shared.contracts import (
    Analysis,
    AnalysisState,
    Branch,
    BranchResult,
    Lane,
    OutcomeStatus,
    Stage,
    StageStatus,
)
from clipwarden.shared.ids import new_id
from clipwarden.shared.local.child import until
from clipwarden.shared.queue import Task
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Doomed, Fetched, NewAnalysis, NewBatch, NewUpload, Overdue, Settled, Store
from clipwarden.shared.store.reuse import lock_contents
from clipwarden.shared.tables import DEFAULT_TENANT
from tests.analyses import FACE, assess, claim, finish, found, ingest, verdict
from tests.services.conftest import MANIFEST, PIPELINE

OTHER_PIPELINE = f"sha256:{'b' * 64}"
NEW = NewAnalysis("a.mp4", 9, "ab", "uploads/a", PIPELINE, deadline_s=60, reusable=True)


@pytest.fixture
def blobs(settings: Settings) -> LocalBlobs:
    return LocalBlobs(settings.blobs)


@pytest.fixture(autouse=True)
def published(store: Store) -> None:
    store.publish(PIPELINE, MANIFEST)


def read(store: Store, analysis_id: UUID) -> Analysis:
    analysis = store.analysis(analysis_id)
    assert analysis is not None
    return analysis


def test_content_that_was_examined_is_done_at_once(store: Store, blobs: LocalBlobs) -> None:
    first = store.submit(NEW).id
    finish(store, blobs, first)
    again = store.submit(replace(NEW, filename="b.mp4", tag="mine", upload_key="uploads/b")).id
    one, two = read(store, first), read(store, again)
    assert (two.state, two.from_cache, two.filename, two.tag) == (AnalysisState.DONE, True, "b.mp4", "mine")
    assert (two.verdict, two.probe) == (one.verdict, one.probe)
    assert [(s.stage, s.status, s.outcome) for s in two.stages] == [(s.stage, s.status, s.outcome) for s in one.stages]
    assert two.finished_at is not None
    assert store.next_task(again) is None
    assert isinstance(store.claim(again, Stage.INGEST, 60, 3, "w"), Settled)


@pytest.mark.parametrize(
    "other",
    [
        {"sha256": "cd"},
        {"pipeline": OTHER_PIPELINE},
        {"detectors": ("forensic_mlp",)},
        {"reusable": False},
        {"rerun_of": new_id()},
    ],
    ids=["bytes", "pipeline", "detectors", "opted out", "re-run"],
)
def test_what_is_not_the_same_runs(store: Store, blobs: LocalBlobs, other: dict[str, object]) -> None:
    store.publish(OTHER_PIPELINE, MANIFEST)
    finish(store, blobs, store.submit(NEW).id)
    again = store.submit(replace(NEW, **other)).id  # type: ignore[arg-type]
    assert store.next_task(again) is Task.INGEST
    assert not read(store, again).from_cache


def test_other_tenants_do_not_learn_that_content_is_known(store: Store, blobs: LocalBlobs, tenant: UUID) -> None:
    finish(store, blobs, store.submit(NEW).id)
    theirs = store.submit(replace(NEW, tenant_id=tenant, upload_key="uploads/theirs")).id
    assert store.next_task(theirs) is Task.INGEST
    assert read(store, theirs).upload_key == "uploads/theirs"


def test_an_analysis_that_opted_out_is_nobody_s_source(store: Store, blobs: LocalBlobs) -> None:
    finish(store, blobs, store.submit(replace(NEW, reusable=False)).id)
    assert store.next_task(store.submit(NEW).id) is Task.INGEST


def test_a_result_in_which_something_failed_is_not_taken_over(store: Store, blobs: LocalBlobs) -> None:
    first = store.submit(NEW).id
    ingest(store, first)
    failed = BranchResult(branch=Branch.VISUAL, status=OutcomeStatus.FAILED, code=FailCode.TIMEOUT)
    assert store.finish_branch(first, claim(store, first, Stage.VISUAL), failed)
    assert store.fuse(first, lambda *_: verdict())
    assert store.next_task(store.submit(NEW).id) is Task.INGEST


def test_another_policy_needs_only_a_verdict(store: Store, blobs: LocalBlobs) -> None:
    finish(store, blobs, store.submit(NEW).id)
    strict = store.submit(replace(NEW, policy="low-false-positive")).id
    assert store.next_task(strict) is Task.FUSE
    assert store.unfused(0) == [strict]
    policies: list[str | None] = []
    assert store.fuse(strict, lambda _, __, policy: policies.append(policy) or verdict())
    assert policies == ["low-false-positive"]
    analysis = read(store, strict)
    assert (analysis.state, analysis.from_cache) == (AnalysisState.DONE, True)
    assert analysis.verdict is not None


def test_what_a_gate_spared_is_not_judged_by_another_policy(store: Store, blobs: LocalBlobs) -> None:
    first = store.submit(NEW).id
    ingest(store, first)
    outcome = found().detectors[0]
    spared = outcome.model_copy(
        update={"name": "b", "status": OutcomeStatus.SKIPPED, "code": "gated", "evidence": None}
    )
    assess(store, blobs, first, found().model_copy(update={"detectors": (outcome, spared)}))
    assert store.fuse(first, lambda *_: verdict())
    assert store.next_task(store.submit(replace(NEW, policy="high-recall")).id) is Task.INGEST
    assert read(store, store.submit(NEW).id).state is AnalysisState.DONE


def test_simultaneous_duplicates_share_one_run(store: Store, blobs: LocalBlobs) -> None:
    with ThreadPoolExecutor(5) as threads:
        ids = list(threads.map(lambda n: store.submit(replace(NEW, upload_key=f"uploads/{n}")).id, range(5)))
    leaders = [each for each in ids if store.next_task(each) is Task.INGEST]
    assert len(leaders) == 1
    assert len({read(store, each).upload_key for each in ids}) == 1
    finish(store, blobs, leaders[0])
    ended = [read(store, each) for each in ids]
    assert {a.state for a in ended} == {AnalysisState.DONE}
    assert [a.from_cache for a in ended].count(True) == 4
    assert len({str(a.verdict) for a in ended}) == 1


def test_a_follower_shows_the_progress_of_the_run_it_waits_for(store: Store) -> None:
    first, second = store.submit(NEW).id, store.submit(NEW).id
    assert read(store, second).state is AnalysisState.QUEUED
    ingest(store, first)
    shown = read(store, second)
    assert shown.state is AnalysisState.RUNNING
    assert {s.stage: s.status for s in shown.stages}[Stage.VISUAL] is StageStatus.OPEN


def test_a_rejected_file_is_rejected_for_all_who_wait(store: Store) -> None:
    first, second = store.submit(NEW).id, store.submit(NEW).id
    assert store.end_ingest(first, claim(store, first, Stage.INGEST), RejectCode.TRUNCATED, "cut off")
    ended = read(store, second)
    assert (ended.state, ended.code, ended.message) == (AnalysisState.REJECTED, "truncated", "cut off")


@pytest.mark.parametrize("how", ["failed", "cancelled", "deleted", "overdue"])
def test_when_the_leader_ends_otherwise_one_follower_runs(
    store: Store, blobs: LocalBlobs, execute: Callable[[str], None], how: str
) -> None:
    first, second, third = (store.submit(NEW).id for _ in range(3))
    if how == "failed":
        assert store.end_ingest(first, claim(store, first, Stage.INGEST), FailCode.INTERNAL, "ours")
    elif how == "cancelled":
        assert store.cancel(first, DEFAULT_TENANT)
    elif how == "deleted":
        gone: list[Doomed] = []
        assert store.delete(first, DEFAULT_TENANT, gone.append)
        assert gone[0].upload_key is None
    else:
        execute(f"UPDATE analyses SET deadline_at = clock_timestamp() - interval '1 s' WHERE id = '{first}'")
        assert store.end_overdue(600, 300, 60, 15, 3) == [Overdue(first, Stage.INGEST, FailCode.DEADLINE)]
    assert (store.next_task(second), store.next_task(third)) == (Task.INGEST, None)
    assert store.due(everything=True)[0].analysis_id == second
    finish(store, blobs, second)
    assert {read(store, each).state for each in (second, third)} == {AnalysisState.DONE}


@pytest.mark.parametrize("how", ["submit", "open_batch"])
def test_a_content_is_locked_before_its_files(store: Store, settings: Settings, how: str) -> None:
    """As by whoever deletes an analysis, who would otherwise wait for the one while the other waits for him."""
    kept = store.keep_upload(NewUpload(DEFAULT_TENANT, "a.mp4", "uploads/a", 9, "ab"), 60)
    engine = create_engine(settings.database_url)
    with ThreadPoolExecutor(1) as thread:
        with engine.begin() as c:
            lock_contents(c, [(DEFAULT_TENANT, "ab")])
            if how == "submit":
                opening = thread.submit(store.submit, NEW, kept.id)
            else:
                opening = thread.submit(store.open_batch, NewBatch(DEFAULT_TENANT, [NEW], [kept.id]))
            waiting = text("SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
            assert until(lambda: bool(c.scalar(waiting)), 10)
            c.execute(text("SELECT 1 FROM uploads FOR UPDATE NOWAIT"))
        assert opening.result(10)
    engine.dispose()


def test_a_large_batch_takes_few_locks_in_one_statement(settings: Settings) -> None:
    engine, asked = create_engine(settings.database_url), []
    event.listen(engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: asked.append(statement))
    contents = [(DEFAULT_TENANT, hashlib.sha256(bytes([i % 256, i // 256])).hexdigest()) for i in range(1000)]
    held = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted")
    with engine.begin() as c:
        lock_contents(c, contents)
        assert 0 < c.scalar(held) <= 256
    engine.dispose()
    assert sum("advisory_xact" in statement for statement in asked) == 1


def test_the_sweeper_frees_those_who_follow_an_analysis_that_has_ended(
    store: Store, blobs: LocalBlobs, execute: Callable[[str], None]
) -> None:
    first, second = store.submit(NEW).id, store.submit(NEW).id
    execute(f"UPDATE analyses SET state = 'failed', finished_at = clock_timestamp() WHERE id = '{first}'")
    assert store.release_stranded() == 1
    assert store.next_task(second) is Task.INGEST
    assert store.release_stranded() == 0


def test_the_urgent_wait_for_nobody_less_urgent(store: Store) -> None:
    store.submit(replace(NEW, lane=Lane.BULK))
    urgent = store.submit(NEW).id
    assert store.next_task(urgent) is Task.INGEST
    assert store.next_task(store.submit(replace(NEW, lane=Lane.BULK)).id) is None


def test_a_cancelled_follower_leaves_the_run_alone(store: Store, blobs: LocalBlobs) -> None:
    first, second = store.submit(NEW).id, store.submit(NEW).id
    assert store.cancel(second, DEFAULT_TENANT)
    finish(store, blobs, first)
    assert read(store, first).state is AnalysisState.DONE
    assert read(store, second).state is AnalysisState.CANCELLED


def test_a_fetched_file_that_is_known_needs_no_run(store: Store, blobs: LocalBlobs) -> None:
    finish(store, blobs, store.submit(NEW).id)
    named = replace(NEW, sha256="", size_bytes=0, upload_key=None, source_url="https://example.com/a.mp4")
    fetched = store.submit(named).id
    assert store.next_task(fetched) is Task.FETCH
    token = claim(store, fetched, Stage.FETCH)
    assert store.finish_fetch(fetched, token, Fetched("a.mp4", 9, "ab", "uploads/fetched"))
    analysis = read(store, fetched)
    assert (analysis.state, analysis.from_cache, analysis.upload_key) == (AnalysisState.DONE, True, "uploads/a")


def test_everybody_is_told(store: Store, blobs: LocalBlobs) -> None:
    asked = replace(NEW, callback_url="https://hooks.example.com/")
    first, second = store.submit(asked).id, store.submit(asked).id
    finish(store, blobs, first)
    third = store.submit(asked).id
    assert [len(store.owed(each)) for each in (first, second, third)] == [2, 1, 1]


def test_a_file_goes_with_the_last_that_names_it(store: Store, blobs: LocalBlobs) -> None:
    first = store.submit(NEW).id
    finish(store, blobs, first)
    second = store.submit(replace(NEW, upload_key="uploads/b")).id
    opted_out = store.submit(replace(NEW, upload_key="uploads/c", reusable=False)).id
    assert {read(store, each).upload_key for each in (second, opted_out)} == {"uploads/a"}
    assert [store.forget_upload(each) for each in (first, opted_out, second)] == [None, None, "uploads/a"]
    assert store.forget_upload(second) is None


def test_a_file_that_was_lost_is_not_handed_on(store: Store, blobs: LocalBlobs) -> None:
    finish(store, blobs, store.submit(NEW).id)
    store.lose_upload("uploads/a")
    again = store.submit(replace(NEW, upload_key="uploads/b", reusable=False)).id
    assert read(store, again).upload_key == "uploads/b"


def test_evidence_stays_until_the_last_analysis_that_shows_it_is_deleted(store: Store, blobs: LocalBlobs) -> None:
    first = store.submit(NEW).id
    finish(store, blobs, first)
    second = store.submit(NEW).id

    def remove(doomed: Doomed) -> None:
        for folder in doomed.folders:
            blobs.delete_folder(folder)

    folder = BranchResult.model_validate({s.stage: s for s in read(store, second).stages}["visual"].outcome).folder
    assert store.delete(first, DEFAULT_TENANT, remove)
    assert blobs.read(f"{folder}/forensic_mlp/face-0.jpg") == FACE
    assert store.delete(second, DEFAULT_TENANT, remove)
    assert list(blobs.keys()) == []


@pytest.fixture
def tenant(execute: Callable[[str], None]) -> UUID:
    made = new_id()
    execute(f"INSERT INTO tenants (id, name) VALUES ('{made}', 'another')")
    return made


@pytest.fixture
def execute(postgres_url: str) -> Callable[[str], None]:
    def run(statement: str) -> None:
        engine = create_engine(postgres_url)
        with engine.begin() as c:
            c.execute(text(statement))
        engine.dispose()

    return run
