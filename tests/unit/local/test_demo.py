"""What the demo says: of a file it cannot take, of a verdict, of an analysis that ended without one."""

import signal

import pytest

from clipwarden.shared.cli import main as clipwarden
from clipwarden.shared.codes import SENTENCES
from clipwarden.shared.local import demo

VERDICT = {
    "label": "inconclusive",
    "probability": 0.4123,
    "coverage": 1.0,
    "degraded": False,
    "head": "forensic_mlp",
    "baseline_logit": -0.5,
    "contributions": [{"branch": "visual", "detector": "forensic_mlp", "log_odds": 0.145}],
    "reasons": [{"code": "between_thresholds", "text": "The evidence is thin."}],
}
BRANCHES = {
    "visual": {
        "status": "ok",
        "code": None,
        "detectors": [
            {"name": "forensic_mlp", "status": "ok", "score": 0.61},
            {"name": "frame_vit", "status": "failed", "code": "internal"},
        ],
    },
    "audio": {"status": "skipped", "code": "silent_audio", "detectors": []},
}


def done(**changes):
    return {"state": "done", "error": None, "verdict": VERDICT, "branches": BRANCHES, **changes}


def test_the_summary_gives_the_label_the_probability_and_every_branch():
    shown = "\n".join(demo.summary(done()))
    assert "INCONCLUSIVE (probability of fake 0.41, from 100% of the branches that apply)" in shown
    assert "Head forensic_mlp, log-odds: baseline -0.500, forensic_mlp +0.145" in shown
    assert "The evidence is thin." in shown
    assert "forensic_mlp     score 0.61" in shown
    assert "frame_vit        failed" in shown


def test_the_summary_says_once_why_a_branch_has_no_answer():
    told_by_verdict = {**VERDICT, "reasons": [{"code": "silent_audio", "text": SENTENCES["silent_audio"]}]}
    for verdict in (VERDICT, told_by_verdict):
        shown = "\n".join(demo.summary(done(verdict=verdict)))
        assert shown.count(SENTENCES["silent_audio"]) == 1
        assert "audio    skipped  silent_audio" in shown


def test_a_verdict_without_evidence_shows_no_number():
    shown = "\n".join(demo.summary(done(verdict={**VERDICT, "probability": None, "head": None, "coverage": 0.0})))
    assert "no probability" in shown


def test_a_rejected_clip_is_told_its_sentence():
    error = {"code": "truncated", "message": SENTENCES["truncated"]}
    shown = demo.summary({"state": "rejected", "error": error, "verdict": None, "branches": {}})
    assert shown[-1] == f"No verdict: the analysis is rejected. {SENTENCES['truncated']}"


@pytest.mark.parametrize("kind", ["missing", "folder", "empty"])
def test_a_clip_that_cannot_be_taken_costs_one_sentence_and_starts_nothing(kind, tmp_path, capsys):
    path = tmp_path / "a clip.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    assert clipwarden(["demo", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert str(path) in err


def test_the_log_shown_after_a_failure_is_that_of_the_process_it_names(tmp_path):
    for name in ("gateway", "visual", "postgres"):
        (tmp_path / f"{name}.log").write_text("x")
    named = demo._suspects(tmp_path, "not ready after 9 s: no answer from gateway, visual")
    assert {log.stem for log in named} == {"gateway", "visual"}
    assert len(demo._suspects(tmp_path, "no verdict")) == 1
    assert demo._suspects(tmp_path, "gateway failed; its log ends with:\nboom") == []


def test_termination_ends_the_demo_as_ctrl_c_does():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), demo._stoppable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
