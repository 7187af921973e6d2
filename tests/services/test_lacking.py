"""A worker that lacks what a pipeline names takes nothing of it and says so; it is ready for the others."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import httpx
import pytest
from sqlalchemy import create_engine, text

from clipwarden.models.assess import Loaded
from clipwarden.models.fusion.bundle import bundle_path, read_bundle
from clipwarden.shared.contracts import Branch, Manifest, Stage
from clipwarden.shared.errors import ElsewherePlease
from clipwarden.shared.exposing import HANDED_BACK, LACKING, SHARED_COUNTS
from clipwarden.shared.local.valkey import free_port
from clipwarden.shared.metrics import WORKER
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import NewAnalysis, Store
from clipwarden.workers import tasks
from clipwarden.workers.lease import with_lease
from clipwarden.workers.process import WorkerProcess
from tests import analyses
from tests.services.conftest import MANIFEST, PIPELINE
from tests.services.test_metrics import PARENT, counting, scrape

ENTRY = MANIFEST.detectors[0]
WARMS = """
import sys
from clipwarden.shared.logs import configure_logging
from clipwarden.shared.queue import Queue
from clipwarden.shared.settings import load_settings
from clipwarden.workers.process import WorkerProcess
configure_logging("worker-fusion", "ERROR")
process = WorkerProcess(load_settings(), Queue.FUSION)
process.warm()
print("warm", flush=True)
for line in sys.stdin:
    process.look()
    print("looked", flush=True)
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process notes what its health is to say."""
    folder = tmp_path / "notes"
    folder.mkdir()
    monkeypatch.setenv(SHARED_COUNTS, str(folder))
    return folder


@pytest.fixture
def worker(settings: Settings, notes: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Makes worker processes that have loaded what they are given."""
    made: list[WorkerProcess] = []

    def make(queue: Queue, *detectors: Loaded) -> WorkerProcess:
        process = WorkerProcess(settings, queue)
        process.detectors = detectors
        made.append(process)
        return process

    yield make
    for process in made:
        process.store.close()


@pytest.fixture
def analysis_id(store: Store) -> UUID:
    store.publish(PIPELINE, MANIFEST)
    return store.submit(NewAnalysis("a.mp4", 9, "ab", "uploads/x", PIPELINE, deadline_s=60)).id


def publish(store: Store, name: str, **changes: object) -> None:
    store.publish(f"sha256:{name}", MANIFEST.model_copy(update=changes))


def elsewhere(stage: str) -> float:
    labels = {"stage": stage, "end": "elsewhere"}
    return WORKER.get_sample_value("clipwarden_task_seconds_count", labels) or 0.0


def test_a_worker_with_another_fusion_is_ready_and_says_what_it_lacks_until_it_fits(
    settings: Settings, store: Store
) -> None:
    publish(store, "other")
    port = free_port()
    with counting(PARENT, CLIPWARDEN_METRICS_PORT=str(port)) as (_, folder):
        environment = {
            "CLIPWARDEN_DATABASE_URL": settings.database_url,
            "CLIPWARDEN_REDIS_URL": settings.redis_url,
            "CLIPWARDEN_BLOB_DIR": str(settings.blobs),
            SHARED_COUNTS: folder,
        }
        with counting(WARMS, **environment) as (process, line):
            assert process.stdin is not None
            assert process.stdout is not None
            assert line == "warm"
            assert health(port) == (200, f"ready\nlacks of the published pipeline: fusion {MANIFEST.fusion}\n")
            assert scrape(port)["clipwarden_worker_lacks", (("queue", "fusion"),)] == 1
            publish(store, "ours", fusion=read_bundle(bundle_path())[1])
            process.stdin.write("look\n")
            process.stdin.flush()
            assert process.stdout.readline().strip() == "looked"
            assert health(port) == (200, "ready\n")
            assert scrape(port)["clipwarden_worker_lacks", (("queue", "fusion"),)] == 0
    shutil.rmtree(folder)


def health(port: int) -> tuple[int, str]:
    answer = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False)
    return answer.status_code, answer.text


def test_other_weights_other_faces_and_a_detector_too_many_are_lacks(
    worker: Callable[..., WorkerProcess], store: Store, notes: Path
) -> None:
    store.publish(PIPELINE, MANIFEST)
    retrained = ENTRY.model_copy(update={"weights": f"sha256:{'9' * 64}"})
    found = {}
    for name, queue, entries in (
        ("same", Queue.VISUAL, [ENTRY]),
        ("nothing", Queue.VISUAL, []),
        ("retrained", Queue.VISUAL, [retrained]),
        ("one more", Queue.VISUAL, [ENTRY, ENTRY.model_copy(update={"name": "frame_vit"})]),
        ("faces", Queue.INGEST, []),
    ):
        process = worker(queue, *(Loaded(entry, object()) for entry in entries))
        process.look()
        found[name] = process.lacking
    assert found == {
        "same": [],
        "nothing": ["forensic_mlp"],
        "retrained": ["forensic_mlp"],
        "one more": ["frame_vit"],
        "faces": ["faces mtcnn"],
    }
    assert "faces mtcnn" in (notes / LACKING).read_text("utf-8")


def test_a_verdict_by_another_fusion_is_handed_back_in_health_and_metrics(
    worker: Callable[..., WorkerProcess],
    store: Store,
    notes: Path,
    analysis_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    analyses.ingest(store, analysis_id, run=())
    process, before = worker(Queue.FUSION), elsewhere("fuse")
    monkeypatch.setattr(tasks, "here", lambda: process)
    monkeypatch.setattr(tasks.run_fuse, "retry", lambda **given: given["exc"])
    assert isinstance(tasks.run_fuse.apply((str(analysis_id),)).result, ElsewherePlease)
    assert elsewhere("fuse") == before + 1
    assert MANIFEST.fusion in (notes / HANDED_BACK).read_text("utf-8")
    assert process.lacking == [f"fusion {MANIFEST.fusion}"]


@pytest.mark.parametrize("stage", ["ingest", "fuse"])
def test_a_manifest_that_cannot_be_read_is_handed_back_in_health_and_metrics(
    worker: Callable[..., WorkerProcess],
    settings: Settings,
    store: Store,
    notes: Path,
    analysis_id: UUID,
    stage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if stage == "fuse":
        analyses.ingest(store, analysis_id, run=())
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(text("""UPDATE pipelines SET manifest = '{"of": "tomorrow"}'"""))
    engine.dispose()
    process, before = worker(Queue.FUSION if stage == "fuse" else Queue.INGEST), elsewhere(stage)
    monkeypatch.setattr(tasks, "here", lambda: process)
    task = tasks.run_fuse if stage == "fuse" else tasks.run_ingest
    monkeypatch.setattr(task, "retry", lambda **given: given["exc"])
    assert isinstance(task.apply((str(analysis_id),)).result, ElsewherePlease)
    assert elsewhere(stage) == before + 1
    assert "of another version" in (notes / HANDED_BACK).read_text("utf-8")
    assert process.lacking == ["the pipeline is of another version"]


def test_what_lacked_is_looked_at_again_after_the_next_work(
    worker: Callable[..., WorkerProcess], store: Store, notes: Path, analysis_id: UUID
) -> None:
    analyses.ingest(store, analysis_id)
    process = worker(Queue.VISUAL)
    process.look()
    assert process.lacking == ["forensic_mlp"]
    store.publish("sha256:none", Manifest(detectors=(), faces="mtcnn", fusion=MANIFEST.fusion))
    with_lease(SimpleNamespace(), process, analysis_id, Stage(Branch.VISUAL), 60, lambda _: None)
    assert process.lacking == []
    assert (notes / LACKING).read_text("utf-8") == ""
