"""A replay over real rows: what another bundle would decide, read from Postgres alone."""

import json
from pathlib import Path
from uuid import UUID

import pytest

from clipwarden.models.fusion.bundle import FusionBundle, bundle_path, read_bundle, write_bundle
from clipwarden.models.fusion.verdict import judge
from clipwarden.shared.cli import main
from clipwarden.shared.codes import SkipCode
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    DetectorOutcome,
    DetectorState,
    Evidence,
    Label,
    Manifest,
    ManifestDetector,
    MediaKind,
    MediaProbe,
    OutcomeStatus,
    Stage,
    Verdict,
)
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, NewAnalysis, Store

DIGEST = f"sha256:{'1' * 64}"
BUNDLE = read_bundle(bundle_path())[0]
MANIFEST = Manifest(
    detectors=tuple(
        ManifestDetector(name=name, version="1", branch=branch, state=DetectorState.READY, weights=DIGEST)
        for name, branch in (("forensic_mlp", Branch.VISUAL), ("cqcc_cnn", Branch.AUDIO))
    ),
    faces="f",
    fusion=BUNDLE.digest,
)
PROBE = MediaProbe(
    kind=MediaKind.VIDEO, container="mp4", duration_s=2, width=64, height=64, fps=25, frames=50, has_video=True,
    has_audio=True, size_bytes=1,
)  # fmt: skip
NEW = NewAnalysis(filename="a.mp4", size_bytes=1, sha256="0" * 64, upload_key="k", pipeline="sha256:p", deadline_s=60)
SCORES = [(0.97, 0.9), (0.03, 0.1), (0.5, 0.55), (0.9, None), (None, None)]


def outcome(branch: Branch, detector: str, feature: str, score: float | None) -> BranchResult:
    if score is None:
        return BranchResult(branch=branch, status=OutcomeStatus.SKIPPED, code=SkipCode.NO_FACE)
    evidence = Evidence(score=score, features={feature: score})
    found = DetectorOutcome(name=detector, version="1", status=OutcomeStatus.OK, evidence=evidence)
    return BranchResult(branch=branch, status=OutcomeStatus.OK, detectors=(found,))


def decided(store: Store, visual: float | None, audio: float | None) -> tuple[UUID, Verdict]:
    analysis_id = store.submit(NEW).id

    def claim(stage: Stage) -> UUID:
        granted = store.claim(analysis_id, stage, 60, 3, "test")
        assert isinstance(granted, Granted)
        return granted.token

    assert store.finish_ingest(analysis_id, claim(Stage.INGEST), PROBE, [Branch.VISUAL, Branch.AUDIO], {})
    for result in (
        outcome(Branch.VISUAL, "forensic_mlp", "forensic_score", visual),
        outcome(Branch.AUDIO, "cqcc_cnn", "audio_prob_fake", audio),
    ):
        assert store.finish_branch(analysis_id, claim(Stage(result.branch)), result)
    assert store.fuse(analysis_id, lambda manifest, results, _: judge(BUNDLE, manifest, results))
    analysis = store.analysis(analysis_id)
    assert analysis is not None
    assert analysis.verdict is not None
    return analysis_id, analysis.verdict


@pytest.fixture
def history(store: Store) -> dict[UUID, Verdict]:
    store.publish("sha256:p", MANIFEST)
    made = dict(decided(store, *scores) for scores in SCORES)
    store.submit(NEW)
    return made


def test_the_store_gives_back_every_verdict_with_the_features_it_was_made_from(
    store: Store, history: dict[UUID, Verdict]
) -> None:
    wanted = [("cqcc_cnn", "audio_prob_fake"), ("forensic_mlp", "forensic_score"), ("lipfd", "lipfd_prob_fake")]
    for page in (2, 100):
        pages = list(store.verdicts(wanted, page))
        assert max(map(len, pages)) <= page
        found = {d.analysis_id: d for page_ in pages for d in page_}
        assert list(found) == sorted(history)
        assert [d.values for d in found.values()] == [(a, v, None) for v, a in SCORES]
        assert all((d.label, d.probability) == (v.label, v.probability) for d, v in _pairs(found, history))
    assert store.count_verdicts() == len(history)


def _pairs(found, history):
    return [(found[i], history[i]) for i in history]


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPWARDEN_DATABASE_URL", settings.database_url)


def shifted(by: float) -> FusionBundle:
    """The installed bundle, with every head's log-odds moved."""
    heads = [
        h.model_copy(update={"model": h.model.model_copy(update={"intercept": h.model.intercept + by * h.temperature})})
        for h in BUNDLE.heads
    ]
    return BUNDLE.model_copy(update={"heads": tuple(heads)})


def test_a_replay_under_the_same_bundle_flips_nothing(
    history: dict[UUID, Verdict], environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fusion", "replay"]) == 0
    told = capsys.readouterr().out
    assert "5 analyses under" in told
    assert "0 labels would flip, P(fake) moves by 0.000" in told


def test_a_replay_prints_what_would_flip_and_changes_nothing(
    store: Store,
    history: dict[UUID, Verdict],
    environment: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_bundle(tmp_path / "new.json", shifted(5.0))
    assert main(["fusion", "replay", "--bundle", str(tmp_path / "new.json"), "--json"]) == 0
    *flips, counts = map(json.loads, capsys.readouterr().out.splitlines())
    expected = {str(i): v for i, v in history.items() if v.probability is not None and v.label is not Label.FAKE}
    assert {f["analysis_id"]: f["before"] for f in flips} == {i: v.label.value for i, v in expected.items()}
    assert {f["after"] for f in flips} == {"fake"}
    assert (counts["replayed"], counts["flipped"]) == (len(history), len(expected))
    assert {i: store.analysis(i).verdict for i in history} == history


def test_a_replay_can_ask_for_another_policy_and_refuses_an_edited_bundle(
    history: dict[UUID, Verdict], environment: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fusion", "replay", "--policy", "low-false-positive"]) == 0
    assert "policy low-false-positive" in capsys.readouterr().out
    assert main(["fusion", "replay", "--policy", "none"]) == 2
    path = tmp_path / "edited.json"
    path.write_text(bundle_path().read_text().replace('"balanced"', '"high-recall"', 1))
    assert main(["fusion", "replay", "--bundle", str(path)]) == 2
    assert "bundle_edited" in capsys.readouterr().err
