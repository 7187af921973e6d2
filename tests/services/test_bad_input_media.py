"""A file that cannot be analysed ends as `rejected` with a code and a sentence; the worker goes on, nothing is left."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from clipwarden.models.faces import FaceDetector
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.codes import SENTENCES, RejectCode
from clipwarden.shared.contracts import Analysis, AnalysisState, Manifest, Stage
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, NewAnalysis, Store
from clipwarden.workers.ingest import ingest
from clipwarden.workers.process import WorkerProcess

PIPELINE = f"sha256:{'a' * 64}"
CODES = {
    "empty": RejectCode.EMPTY_FILE,
    "text named .mp4": RejectCode.NOT_MEDIA,
    "zeros": RejectCode.NOT_MEDIA,
    "truncated": RejectCode.TRUNCATED,
    "three hours in 2 kB": RejectCode.TRUNCATED,
    "zero frames": RejectCode.NO_STREAMS,
    "30000 x 30000": RejectCode.TOO_MANY_PIXELS,
    "HLS": RejectCode.UNSUPPORTED_FORMAT,
    "concat": RejectCode.UNSUPPORTED_FORMAT,
    "SDP": RejectCode.UNSUPPORTED_FORMAT,
    "DASH": RejectCode.UNSUPPORTED_FORMAT,
    "GIF": RejectCode.UNSUPPORTED_FORMAT,
}


@pytest.fixture
def process(settings: Settings, store: Store) -> Iterator[WorkerProcess]:
    """An ingest worker of an installation whose pipeline has no detectors."""
    store.publish(PIPELINE, Manifest(detectors=(), faces=FaceDetector.VERSION, fusion=f"sha256:{'2' * 64}"))
    made = WorkerProcess(settings, Queue.INGEST)
    made.warm()
    yield made
    made.fence.close()
    made.store.close()


def ingested(process: WorkerProcess, path: Path) -> Analysis:
    """Submit the file as the gateway does, and ingest it as its worker does."""
    with process.blobs.create() as writer:
        writer.write(path.read_bytes())
        key = writer.commit()
    new = NewAnalysis(
        pipeline=PIPELINE,
        filename=path.name,
        size_bytes=writer.size,
        sha256=writer.sha256,
        upload_key=key,
        deadline_s=600,
    )
    analysis_id: UUID = process.store.submit(new).id
    claim = process.store.claim(analysis_id, Stage.INGEST, lease_s=60, max_attempts=3, worker=process.name)
    assert isinstance(claim, Granted)
    ingest(process, analysis_id, claim)
    analysis = process.store.analysis(analysis_id)
    assert analysis is not None
    return analysis


def test_each_bad_file_is_rejected_by_one_worker_that_goes_on(process: WorkerProcess, hostile: dict[str, Path]) -> None:
    found = {name: ingested(process, path) for name, path in hostile.items()}
    assert {name: analysis.code for name, analysis in found.items()} == CODES
    assert {analysis.state for analysis in found.values()} == {AnalysisState.REJECTED}
    for analysis in found.values():
        assert (analysis.message or "").startswith(SENTENCES[RejectCode(str(analysis.code))])
    assert list(LocalBlobs(process.settings.blobs).keys()) == []
    assert process.store.due(everything=True) == []


def test_a_clip_over_the_operators_limit_is_rejected(
    settings: Settings, store: Store, talking_head: Path, process: WorkerProcess
) -> None:
    strict = WorkerProcess(settings.model_copy(update={"max_duration_s": 1.0}), Queue.INGEST)
    try:
        analysis = ingested(strict, talking_head)
    finally:
        strict.fence.close()
        strict.store.close()
    assert (analysis.state, analysis.code) == (AnalysisState.REJECTED, RejectCode.TOO_LONG)
