"""Results in the shapes of the seeds' documents are what the detectors themselves would have written."""

from typing import Any
from uuid import UUID

import httpx
import numpy as np
import pytest

from clipwarden.models.lipsync.lipfd_windows import LipFdScores
from clipwarden.models.visual.siglip_lstm import SequenceScores, Version
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    Curve,
    DetectorOutcome,
    Evidence,
    Exhibit,
    ExhibitKind,
    Look,
    OutcomeStatus,
    Stage,
)
from clipwarden.shared.evidence import write_evidence
from clipwarden.shared.series import Series
from clipwarden.shared.store import Store
from tests.analyses import PROBE, claim, finish, ingest

SCORES = np.random.default_rng(5).random(24).round(4)
CLOSE = {"abs": 1e-9, "rel": 1e-9}


def settle(store: Store, blobs: LocalBlobs, analysis_id: UUID, branch: Branch, name: str, evidence: Evidence) -> None:
    """Keep a detector's evidence as workers do: scores over time in a file, the rest in the row."""
    series = Series(
        detector=name,
        version="1",
        **{f: getattr(evidence, f) for f in Series.model_fields if f in Evidence.model_fields},
    )
    content = series.model_dump_json().encode()
    shown = Exhibit(kind=ExhibitKind.SERIES, name="series.json", size_bytes=len(content))
    row = evidence.model_copy(update={"windows": (), "looks": (), "curves": (), "exhibits": (shown,)})
    outcome = DetectorOutcome(name=name, version="1", status=OutcomeStatus.OK, evidence=row, elapsed_ms=1500)
    result = BranchResult(branch=branch, status=OutcomeStatus.OK, detectors=(outcome,))
    ingest(store, analysis_id, (branch,))
    token = claim(store, analysis_id, Stage(branch))
    folder = write_evidence(blobs, analysis_id, branch, token, {f"{name}/series.json": content})
    assert store.finish_branch(analysis_id, token, result.model_copy(update={"folder": folder}))


def same(told: Any, expected: Any) -> bool:
    """Alike in every name and word, and in numbers but for the last bits."""
    if isinstance(expected, dict):
        return set(told) == set(expected) and all(same(told[name], expected[name]) for name in expected)
    if isinstance(expected, list):
        return len(told) == len(expected) and all(map(same, told, expected))
    return told == pytest.approx(expected, **CLOSE) if isinstance(expected, float) else bool(told == expected)


@pytest.mark.parametrize("version", ["V1", "V3", "V4"])
def test_siglip_lstm_reads_as_its_document(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID, version: Version
) -> None:
    scores = SequenceScores(version, float(SCORES[-1]), SCORES)
    evidence = Evidence(
        score=scores.probability,
        features={},
        facts={
            "score_variance": scores.score_variance,
            "consistency_score": scores.consistency_score,
            "model_version": float(version[1:]),
        },
        looks=tuple(Look(time_s=k / 12, frame=k, person=0, box=(0, 0, 1, 1), score=s) for k, s in enumerate(SCORES)),
        curves=(Curve(name="rolling", axis="time_s", x=[k / 12 for k in range(24)], y=scores.rolling.tolist()),),
    )
    settle(store, blobs, submitted, Branch.VISUAL, "siglip_lstm", evidence)

    told = gateway.get(f"/v1/analyses/{submitted}/views/siglip-lstm").raise_for_status().json()

    assert same(told, scores.as_seed_json(PROBE.duration_s)), told


@pytest.mark.parametrize(("detector", "view"), [("lipfd", "lipfd"), ("lipfd_fixed", "lipfd-fixed")])
def test_lipfd_reads_as_its_document(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID, detector: str, view: str
) -> None:
    scores = LipFdScores(SCORES[:10], tuple((k / 5, k / 5 + 0.16) for k in range(10)))
    settle(store, blobs, submitted, Branch.LIPSYNC, detector, scores.evidence(f"{detector}_prob_fake"))

    told = gateway.get(f"/v1/analyses/{submitted}/views/{view}").raise_for_status().json()

    assert same(told, scores.as_seed_json(1.5)), told


@pytest.mark.parametrize("view", ["siglip-lstm", "lipfd", "lipfd-fixed"])
def test_a_detector_that_did_not_run_has_no_view(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID, view: str
) -> None:
    early = gateway.get(f"/v1/analyses/{submitted}/views/{view}")
    finish(store, blobs, submitted)
    late = gateway.get(f"/v1/analyses/{submitted}/views/{view}")

    for reply in (early, late):
        assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
        assert "did not run" in reply.json()["detail"]
    assert gateway.get(f"/v1/analyses/{submitted}/views/other").status_code == 404


def test_a_view_whose_scores_are_gone_says_so(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    settle(store, blobs, submitted, Branch.LIPSYNC, "lipfd", LipFdScores(SCORES[:2], ((0, 1), (1, 2))).evidence("x"))
    blobs.delete_folder(f"evidence/{submitted}")

    reply = gateway.get(f"/v1/analyses/{submitted}/views/lipfd")

    assert reply.status_code == 404
    assert "not kept" in reply.json()["detail"]
