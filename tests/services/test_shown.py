"""What ingest's first look and a branch's pictures leave in the rows and in the blob store, with real workers' code."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from celery.backends.base import DisabledBackend
from sqlalchemy import create_engine, text
from structlog.testing import capture_logs

from clipwarden.models.catalogue import GATE
from clipwarden.models.fusion.bundle import FusionBundle, Head, Linear, Thresholds, bundle_path, read_bundle
from clipwarden.models.fusion.policies import PREDEFINED
from clipwarden.models.pipeline import local_manifest
from clipwarden.models.weights import bring
from clipwarden.shared.blobs import EVIDENCE, LocalBlobs
from clipwarden.shared.blobs.local import LocalWriter
from clipwarden.shared.bundle import read_manifest
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import Analysis, Branch, BranchResult, Label, OutcomeStatus, Stage
from clipwarden.shared.errors import StorageFull
from clipwarden.shared.evidence import evidence_key
from clipwarden.shared.queue import Queue, celery_config
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, NewAnalysis, Store
from clipwarden.workers.app import app
from clipwarden.workers.branch import assess_branch
from clipwarden.workers.fusing import fuse_analysis
from clipwarden.workers.ingest import ingest
from clipwarden.workers.process import WorkerProcess
from tests.networks import write_weights

ROW_LIMIT = 8 * 1024


class Workers:
    """The processes of an installation's ingest and visual queue, whose tasks are called here."""

    def __init__(self, settings: Settings, store: Store, fusion: FusionBundle | None = None) -> None:
        self.settings, self.store, self.blobs = settings, store, LocalBlobs(settings.blobs)
        self.fusion = (fusion, fusion.digest) if fusion else read_bundle(bundle_path())
        self.processes = {queue: WorkerProcess(settings, queue) for queue in (Queue.INGEST, Queue.VISUAL)}
        for process in self.processes.values():
            process.warm()
            process.fusion = self.fusion
        manifest = local_manifest().model_copy(update={"fusion": self.fusion[1]})
        store.publish("sha256:p", manifest)

    def submit(self, path: Path) -> UUID:
        with self.blobs.create() as writer:
            writer.write(path.read_bytes())
            key = writer.commit()
        return self.store.submit(
            NewAnalysis(path.name, path.stat().st_size, writer.sha256, key, "sha256:p", deadline_s=600)
        ).id

    def claim(self, analysis_id: UUID, stage: Stage, lease_s: float = 60) -> Granted:
        granted = self.store.claim(analysis_id, stage, lease_s, 3, "w")
        assert isinstance(granted, Granted)
        return granted

    def ingest(self, analysis_id: UUID) -> None:
        ingest(self.processes[Queue.INGEST], analysis_id, self.claim(analysis_id, Stage.INGEST))

    def look(self, analysis_id: UUID, granted: Granted | None = None) -> BranchResult:
        owner = granted or self.claim(analysis_id, Stage.VISUAL)
        assess_branch(self.processes[Queue.VISUAL], Branch.VISUAL, analysis_id, owner)
        return self.result(analysis_id, Stage.VISUAL)

    def analysis(self, analysis_id: UUID) -> Analysis:
        found = self.store.analysis(analysis_id)
        assert found is not None
        return found

    def result(self, analysis_id: UUID, stage: Stage) -> BranchResult:
        (row,) = (s for s in self.analysis(analysis_id).stages if s.stage is stage)
        return BranchResult.model_validate(row.outcome)

    def shown(self, result: BranchResult) -> dict[str, bytes]:
        """Every file that a result names, read from the store."""
        named = [(d.name, e.name) for d in result.detectors if d.evidence for e in d.evidence.exhibits]
        keys = {f"{detector}/{name}": evidence_key(result, detector, name) for detector, name in named}
        return {name: self.blobs.read(key) for name, key in keys.items() if key}

    def close(self) -> None:
        for process in self.processes.values():
            process.store.close()
            if "fence" in vars(process):
                process.fence.close()


def tiny_head(intercept: float = -20.0) -> FusionBundle:
    """A bundle whose only head reads the gate; by default it is as sure of real as can be."""
    head = Head(
        name="tiny", feature_cols=("tiny_prob_mean",), temperature=1.0, fitted_on="tests",
        model=Linear(intercept=intercept, coef=(1.0,), mean=(0.0,), scale=(1.0,)),
        thresholds=dict.fromkeys(PREDEFINED, Thresholds(real=0.3, fake=0.7)),
    )  # fmt: skip
    return FusionBundle(format=1, policy="balanced", policies=PREDEFINED, heads=(head,))


@pytest.fixture(autouse=True)
def broker(settings: Settings) -> None:
    """The application of this process, which another test may have asked for its backend before there was any."""
    app.conf.update(celery_config(settings))
    if isinstance(app.backend, DisabledBackend):
        app._backend = app._get_backend()


@pytest.fixture
def gated_settings(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Triage, with a random gate that is content with every patch, and something costly to be spared."""
    options = 'front = "npr"\nscaling = "imagenet"\nclear_below = "1"'
    tables = []
    for name, more in ((GATE, options), ("clip_adapter", "")):
        made = write_weights(name, tmp_path)
        file = made.path.relative_to(tmp_path)
        tables.append(f'[{name}]\nfile = "{file}"\nsha256 = "{made.digest}"\n[{name}.options]\n{more}\n')
    manifest = tmp_path / "weights.toml"
    manifest.write_text("\n".join(tables), "utf-8")
    yield settings.model_copy(update={"weights": manifest, "triage": True})
    bring(None)


@pytest.fixture
def workers() -> Iterator[list[Workers]]:
    opened: list[Workers] = []
    yield opened
    for one in opened:
        one.close()


def test_a_clip_that_the_gate_clears_is_spared_the_rest_and_called_real(
    gated_settings: Settings, store: Store, workers: list[Workers], mute_clip: Path
) -> None:
    here = Workers(gated_settings, store, tiny_head())
    workers.append(here)
    analysis_id = here.submit(mute_clip)
    here.ingest(analysis_id)
    bundle = read_manifest(here.blobs, analysis_id)
    assert bundle.gated
    assert bundle.branches == (Branch.VISUAL,)
    assert here.result(analysis_id, Stage.CLIP).code == SkipCode.GATED
    assert here.result(analysis_id, Stage.LIPSYNC).code == SkipCode.NO_AUDIO
    result = here.look(analysis_id)
    codes = {d.name: d.code for d in result.detectors}
    assert codes == {GATE: None, "forensic_mlp": SkipCode.GATED, "frame_stats": SkipCode.GATED}
    assert {name.rpartition("/")[2] for name in here.shown(result)} >= {"series.json", "face-0.jpg", "heatmap-0.png"}
    assert fuse_analysis(store, here.blobs, here.fusion, analysis_id)
    verdict = here.analysis(analysis_id).verdict
    assert verdict is not None
    assert (verdict.label, verdict.head) == (Label.REAL, "tiny")
    assert {"clip_skipped"} <= {reason.code for reason in verdict.reasons}


@pytest.mark.parametrize("case", ["no head", "no triage", "sound without a head for it"])
def test_the_first_look_is_taken_over_and_everything_runs_where_nothing_may_be_spared(
    case: str,
    gated_settings: Settings,
    store: Store,
    workers: list[Workers],
    mute_clip: Path,
    talking_head: Path,
) -> None:
    chosen = gated_settings.model_copy(update={"triage": case != "no triage"})
    here = Workers(chosen, store, None if case == "no head" else tiny_head())
    workers.append(here)
    analysis_id = here.submit(talking_head if case.startswith("sound") else mute_clip)
    with capture_logs() as logged:
        here.ingest(analysis_id)
    assert any("nothing is spared" in line["event"] for line in logged) == (case != "no triage")
    bundle = read_manifest(here.blobs, analysis_id)
    assert not bundle.gated
    assert Branch.CLIP in bundle.branches
    (found,) = bundle.found
    result = here.look(analysis_id)
    seeing = (GATE, "forensic_mlp", "frame_stats")
    assert {d.name: d.status for d in result.detectors} == dict.fromkeys(seeing, OutcomeStatus.OK)
    (taken,) = (d for d in result.detectors if d.name == GATE)
    assert found.evidence
    assert taken.evidence
    assert (taken.elapsed_ms, taken.evidence.features) == (found.elapsed_ms, found.evidence.features)


def test_without_a_gate_ingest_looks_at_nothing_and_the_row_names_what_can_be_seen(
    settings: Settings, store: Store, workers: list[Workers], mute_clip: Path
) -> None:
    here = Workers(settings, store)
    workers.append(here)
    assert here.processes[Queue.INGEST].gate is None
    analysis_id = here.submit(mute_clip)
    here.ingest(analysis_id)
    assert read_manifest(here.blobs, analysis_id).found == ()
    result = here.look(analysis_id)
    files = here.shown(result)
    assert {d.name for d in result.detectors} == {"forensic_mlp", "frame_stats"}
    assert {name: len(content) for name, content in files.items()} == {
        f"{d.name}/{e.name}": e.size_bytes for d in result.detectors if d.evidence for e in d.evidence.exhibits
    }
    found = [d.evidence for d in result.detectors if d.evidence]
    assert {e.kind for evidence in found for e in evidence.exhibits} == {"series", "face", "residual"}
    assert all(evidence.looks == () for evidence in found)
    assert _row_bytes(settings, analysis_id) < ROW_LIMIT


def test_a_worker_that_lost_its_lease_takes_its_pictures_with_it(
    settings: Settings, store: Store, workers: list[Workers], mute_clip: Path
) -> None:
    here = Workers(settings, store)
    workers.append(here)
    analysis_id = here.submit(mute_clip)
    here.ingest(analysis_id)
    late = here.claim(analysis_id, Stage.VISUAL, lease_s=0)
    result = here.look(analysis_id)
    kept = set(here.shown(result))
    here.look(analysis_id, late)
    again = here.result(analysis_id, Stage.VISUAL)
    assert again == result
    assert set(here.shown(again)) == kept
    assert sum(key.startswith("evidence/") for key in here.blobs.keys()) == len(kept)


class FullBlobs(LocalBlobs):
    """A store without room for evidence."""

    def _writer(self, key: str) -> LocalWriter:
        if key.startswith(EVIDENCE):
            raise StorageFull("the disk is full")
        return super()._writer(key)


def test_a_finding_is_not_lost_for_want_of_room_for_its_pictures(
    settings: Settings, store: Store, workers: list[Workers], mute_clip: Path
) -> None:
    here = Workers(settings, store)
    workers.append(here)
    here.processes[Queue.VISUAL].blobs = FullBlobs(settings.blobs)
    analysis_id = here.submit(mute_clip)
    here.ingest(analysis_id)
    result = here.look(analysis_id)
    assert (result.status, result.folder) == (OutcomeStatus.OK, None)
    assert result.detectors[0].evidence
    assert result.detectors[0].evidence.windows
    assert result.detectors[0].evidence.exhibits == ()


def _row_bytes(settings: Settings, analysis_id: UUID) -> int:
    engine = create_engine(settings.database_url)
    with engine.connect() as c:
        size = c.scalar(
            text("SELECT octet_length(stages::text) FROM stages WHERE analysis_id = :id AND stage = 'visual'"),
            {"id": analysis_id},
        )
    engine.dispose()
    assert isinstance(size, int)
    return size
