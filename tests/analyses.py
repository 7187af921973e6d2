"""Analyses brought along their way without workers: by the store's own methods, with findings made up here."""

import math
from uuid import UUID

from clipwarden.shared.blobs import BlobStore
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    Contribution,
    DetectorOutcome,
    Evidence,
    Exhibit,
    ExhibitKind,
    Label,
    MediaKind,
    MediaProbe,
    OutcomeStatus,
    Stage,
    Verdict,
)
from clipwarden.shared.evidence import write_evidence
from clipwarden.shared.store import Granted, Store

PROBE = MediaProbe(
    kind=MediaKind.VIDEO,
    container="mov",
    duration_s=2.0,
    width=640,
    height=360,
    fps=25.0,
    frames=50,
    has_video=True,
    has_audio=False,
    size_bytes=256_000,
)
FACE = b"\xff\xd8\xff a face"
SERIES = b'{"detector": "forensic_mlp", "windows": []}'
FILES = {"forensic_mlp/face-0.jpg": FACE, "forensic_mlp/series.json": SERIES}


def found(branch: Branch = Branch.VISUAL, detector: str = "forensic_mlp", score: float = 0.75) -> BranchResult:
    """A branch's result that names two files of its detector."""
    exhibits = (
        Exhibit(kind=ExhibitKind.SERIES, name="series.json", size_bytes=len(SERIES)),
        Exhibit(kind=ExhibitKind.FACE, name="face-0.jpg", size_bytes=len(FACE), time_s=0.52, box=(1, 2, 30, 40)),
    )
    outcome = DetectorOutcome(
        name=detector,
        version="1",
        weights=f"sha256:{'1' * 64}",
        status=OutcomeStatus.OK,
        evidence=Evidence(score=score, features={}, exhibits=exhibits),
        elapsed_ms=1500,
    )
    return BranchResult(branch=branch, status=OutcomeStatus.OK, detectors=(outcome,), elapsed_ms=1600)


def verdict(label: Label = Label.FAKE, log_odds: float = 1.5) -> Verdict:
    return Verdict(
        label=label,
        probability=1 / (1 + math.exp(-log_odds)),
        policy="balanced",
        head="visual",
        coverage=1.0,
        degraded=False,
        baseline_logit=0.0,
        contributions=(Contribution(branch=Branch.VISUAL, detector="forensic_mlp", log_odds=log_odds),),
    )


def claim(store: Store, analysis_id: UUID, stage: Stage, worker: str = "test") -> UUID:
    granted = store.claim(analysis_id, stage, 60, 3, worker)
    assert isinstance(granted, Granted)
    return granted.token


def ingest(store: Store, analysis_id: UUID, run: tuple[Branch, ...] = (Branch.VISUAL,)) -> None:
    skipped = {branch: SkipCode.NO_WEIGHTS for branch in Branch if branch not in run}
    assert store.finish_ingest(analysis_id, claim(store, analysis_id, Stage.INGEST), PROBE, run, skipped)


def assess(store: Store, blobs: BlobStore, analysis_id: UUID, result: BranchResult | None = None) -> None:
    """Settle a branch, the files that its result names kept."""
    result = result or found()
    token = claim(store, analysis_id, Stage(result.branch))
    folder = write_evidence(blobs, analysis_id, result.branch, token, FILES)
    assert store.finish_branch(analysis_id, token, result.model_copy(update={"folder": folder}))


def finish(store: Store, blobs: BlobStore, analysis_id: UUID, fused: Verdict | None = None) -> None:
    ingest(store, analysis_id)
    assess(store, blobs, analysis_id)
    assert store.fuse(analysis_id, lambda *_: fused or verdict())
