"""What an analysis asks for is what workers do, and what they did before they do not do again; with real detectors."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from clipwarden.models.pipeline import local_manifest
from clipwarden.shared.bundle import read_manifest
from clipwarden.shared.contracts import Analysis, AnalysisState, Branch, BranchResult, Manifest, Stage, Verdict
from clipwarden.shared.errors import BlobGone
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, NewAnalysis, Store
from clipwarden.workers import ingest as ingesting
from clipwarden.workers.branch import assess_branch
from clipwarden.workers.fusing import fuse_analysis
from clipwarden.workers.ingest import ingest
from clipwarden.workers.process import WorkerProcess
from tests.queues import celery_app

PIPELINE, NEXT = (f"sha256:{digit * 64}" for digit in "12")


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return local_manifest()


QUEUES = (Queue.INGEST, Queue.VISUAL, Queue.AUDIO, Queue.LIPSYNC, Queue.FUSION)


@pytest.fixture
def workers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[Queue, WorkerProcess]]:
    """A process of each pool that has detectors here, without the queue between them."""
    started = {q: WorkerProcess(settings, q) for q in QUEUES}
    for process in started.values():
        process.warm()
    with celery_app(settings) as app:
        monkeypatch.setattr(ingesting, "app", app)
        yield started
    started[Queue.INGEST].fence.close()
    for process in started.values():
        process.store.close()


@pytest.fixture
def new(workers: dict[Queue, WorkerProcess], store: Store, manifest: Manifest, talking_head: Path) -> NewAnalysis:
    store.publish(PIPELINE, manifest)
    with workers[Queue.INGEST].blobs.create() as writer:
        writer.write(talking_head.read_bytes())
        key = writer.commit()
    return NewAnalysis("a.mp4", writer.size, writer.sha256, key, PIPELINE, deadline_s=60, reusable=True)


def granted(process: WorkerProcess, analysis_id: UUID, stage: Stage) -> Granted:
    claim = process.store.claim(analysis_id, stage, 60, 3, "test")
    assert isinstance(claim, Granted)
    return claim


def ingested(workers: dict[Queue, WorkerProcess], analysis_id: UUID) -> list[Branch]:
    """The branches that ingest opened."""
    process = workers[Queue.INGEST]
    ingest(process, analysis_id, granted(process, analysis_id, Stage.INGEST))
    analysis = process.store.analysis(analysis_id)
    assert analysis is not None
    return [Branch(s.stage) for s in analysis.stages if s.status == "open"]


def finished(workers: dict[Queue, WorkerProcess], analysis_id: UUID, branches: list[Branch]) -> Analysis:
    for branch in branches:
        process = workers[Queue(branch)]
        assess_branch(process, branch, analysis_id, granted(process, analysis_id, Stage(branch)))
    fusing = workers[Queue.FUSION]
    assert fuse_analysis(fusing.store, fusing.blobs, fusing.fusion, analysis_id)
    analysis = fusing.store.analysis(analysis_id)
    assert analysis is not None
    assert analysis.state is AnalysisState.DONE
    return analysis


def results(analysis: Analysis) -> dict[Branch, BranchResult]:
    return {Branch(s.stage): BranchResult.model_validate(s.outcome) for s in analysis.stages if s.outcome}


def verdict(analysis: Analysis) -> Verdict:
    assert analysis.verdict is not None
    return analysis.verdict


def test_only_the_detectors_asked_for_judge_and_count(
    workers: dict[Queue, WorkerProcess], store: Store, new: NewAnalysis
) -> None:
    analysis_id = store.submit(replace(new, detectors=("cqcc_cnn",), policy="high-recall")).id
    assert ingested(workers, analysis_id) == [Branch.AUDIO]
    analysis = finished(workers, analysis_id, [Branch.AUDIO])
    found = results(analysis)
    assert (found[Branch.VISUAL].status, found[Branch.VISUAL].code) == ("skipped", "disabled")
    assert [d.name for d in found[Branch.AUDIO].detectors] == ["cqcc_cnn"]
    assert (verdict(analysis).coverage, verdict(analysis).degraded) == (1.0, False)
    assert verdict(analysis).policy == "high-recall"


def test_a_branch_tells_what_each_detector_found_before_the_next_one_runs(
    workers: dict[Queue, WorkerProcess], store: Store, new: NewAnalysis, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis_id = store.submit(new).id
    opened = ingested(workers, analysis_id)
    seen: list[BranchResult] = []

    def tell(*told: Any) -> None:
        Store.tell_branch(workers[Queue.VISUAL].store, *told)
        analysis = store.analysis(analysis_id)
        assert analysis is not None
        seen.extend(BranchResult.model_validate(s.so_far) for s in analysis.stages if s.so_far)

    monkeypatch.setattr(workers[Queue.VISUAL].store, "tell_branch", tell)
    analysis = finished(workers, analysis_id, opened)
    first, second = results(analysis)[Branch.VISUAL].detectors
    ((told,),) = [so_far.detectors for so_far in seen]
    assert (told.name, told.elapsed_ms, second.name) == (first.name, first.elapsed_ms, "frame_stats")
    assert told.evidence is not None
    assert first.evidence is not None
    assert told.evidence.score == first.evidence.score
    assert all(s.so_far is None for s in analysis.stages)


def test_when_one_model_changed_only_its_branch_runs(
    workers: dict[Queue, WorkerProcess], store: Store, new: NewAnalysis, manifest: Manifest
) -> None:
    first_id = store.submit(new).id
    opened = ingested(workers, first_id)
    assert opened == [Branch.VISUAL, Branch.AUDIO, Branch.LIPSYNC]
    first = finished(workers, first_id, opened)
    newer = [d.model_copy(update={"version": "next"}) if d.name == "cqcc_cnn" else d for d in manifest.detectors]
    store.publish(NEXT, manifest.model_copy(update={"detectors": tuple(newer)}))
    second_id = store.submit(replace(new, pipeline=NEXT)).id
    assert ingested(workers, second_id) == [Branch.AUDIO]
    assert read_manifest(workers[Queue.INGEST].blobs, second_id).branches == (Branch.AUDIO,)
    audio = workers[Queue.AUDIO]
    audio.detectors = tuple(replace(d, entry=next(n for n in newer if n.name == d.entry.name)) for d in audio.detectors)
    second = finished(workers, second_id, [Branch.AUDIO])
    assert [results(second)[b].reused for b in (Branch.VISUAL, Branch.AUDIO)] == [True, False]
    assert results(second)[Branch.VISUAL].folder == results(first)[Branch.VISUAL].folder
    assert verdict(second) == verdict(first)


def test_when_no_model_changed_nothing_is_decoded(
    workers: dict[Queue, WorkerProcess], store: Store, new: NewAnalysis, manifest: Manifest
) -> None:
    first_id = store.submit(new).id
    first = finished(workers, first_id, ingested(workers, first_id))
    store.publish(NEXT, manifest.model_copy(update={"policies": ("balanced",)}))
    second_id = store.submit(replace(new, pipeline=NEXT)).id
    blobs = workers[Queue.INGEST].blobs
    blobs.delete(str(new.upload_key))
    assert ingested(workers, second_id) == []
    with pytest.raises(BlobGone):
        read_manifest(blobs, second_id)
    second = finished(workers, second_id, [])
    assert second.probe == first.probe
    assert verdict(second) == verdict(first)
    reused = {b: r.model_copy(update={"reused": False}) for b, r in results(second).items()}
    assert reused == results(first)
    assert not second.from_cache
