"""An upload becomes a verdict through the live gateway, Redis, worker processes and Postgres."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import System

ONCE_EACH = "SELECT count(*) AS n FROM verdicts WHERE analysis_id = :id"


def test_a_clip_with_face_and_speech_gets_a_fused_verdict(system: System, talking_head: Path) -> None:
    done = system.analyse(talking_head)
    assert (done["state"], done["percent"], done["error"]) == ("done", 100, None)
    assert {b: v["status"] for b, v in done["branches"].items()} == {
        "visual": "ok",
        "audio": "ok",
        "lipsync": "ok",
        "clip": "skipped",
    }
    assert done["branches"]["clip"]["code"] == "no_weights"
    verdict = done["verdict"]
    assert (verdict["coverage"], verdict["degraded"]) == (1.0, False)
    logit = verdict["baseline_logit"] + sum(c["log_odds"] for c in verdict["contributions"])
    assert math.log(verdict["probability"] / (1 - verdict["probability"])) == pytest.approx(logit, abs=1e-9)
    assert {c["branch"] for c in verdict["contributions"]} == {"visual", "audio"}


def test_the_work_was_done_by_separate_worker_processes(system: System, talking_head: Path) -> None:
    analysis_id = system.submit(talking_head)
    system.wait(analysis_id)
    workers = {
        r.stage: r.worker
        for r in system.rows(
            "SELECT stage, worker FROM stages WHERE analysis_id = :id AND worker IS NOT NULL", id=analysis_id
        )
    }
    assert workers.keys() == {"ingest", "visual", "audio", "lipsync"}
    assert len(set(workers.values())) == 4


def test_the_seeds_routes_tell_the_same_story(system: System, talking_head: Path) -> None:
    with httpx.Client(base_url=system.stack.api_url) as http, talking_head.open("rb") as stream:
        first = http.post("/analyze", files={"file": ("a.mp4", stream, "video/mp4")})
        assert first.status_code == 202
        assert first.json() == {
            "analysisId": first.json()["analysisId"],
            "status": "processing",
            "percent": 0,
            "stageName": "Queued",
        }
        done = system.wait(first.json()["analysisId"])
        status = http.get(f"/status/{first.json()['analysisId']}").json()
    p = done["verdict"]["probability"]
    assert status["status"] == "done"
    assert status["result"]["verdict"] == ("Deepfake" if p >= 0.5 else "Authentic")
    assert status["result"]["confidence"] == pytest.approx(100 * max(p, 1 - p), abs=0.1)


@pytest.mark.parametrize(
    ("clip", "statuses"),
    [
        ("mute_clip", {"visual": ("ok", None), "audio": ("skipped", "no_audio")}),
        ("silent_clip", {"visual": ("ok", None), "audio": ("skipped", "silent_audio")}),
        ("faceless_clip", {"visual": ("skipped", "no_face"), "audio": ("ok", None)}),
        ("still", {"visual": ("ok", None), "audio": ("skipped", "no_audio")}),
        ("wav", {"visual": ("skipped", "not_applicable"), "audio": ("ok", None)}),
    ],
)
def test_branches_that_cannot_apply_are_skipped_and_the_rest_is_judged(
    system: System, request: pytest.FixtureRequest, clip: str, statuses: dict[str, tuple[str, str | None]]
) -> None:
    done = system.analyse(request.getfixturevalue(clip))
    assert done["state"] == "done"
    assert {b: (done["branches"][b]["status"], done["branches"][b]["code"]) for b in statuses} == statuses
    assert done["verdict"]["probability"] is not None
    assert done["verdict"]["degraded"] is False


def test_twenty_uploads_at_once_each_end_exactly_once(
    system: System, talking_head: Path, brief_clip: Path, at_once: Callable[[list[Callable[[], Any]]], list[Any]]
) -> None:
    ids = at_once([lambda: system.submit(talking_head)] * 4 + [lambda: system.submit(brief_clip)] * 16)
    assert len(set(ids)) == 20
    for analysis_id in ids:
        assert system.wait(analysis_id, 240)["state"] == "done"
        assert system.rows(ONCE_EACH, id=analysis_id)[0].n == 1


def test_the_bundle_is_gone_when_the_analysis_is_done_and_what_it_shows_stays(
    system: System, talking_head: Path
) -> None:
    analysis_id = system.submit(talking_head)
    branches = system.wait(analysis_id)["branches"]
    kept = sorted(key.split("/", 4) for key in system.blobs.keys() if analysis_id in key)
    assert {folder for folder, *_ in kept} == {"evidence"}
    told = [
        (branch, f"{detector['name']}/{one['name']}")
        for branch, found in branches.items()
        for detector in found["detectors"]
        for one in detector["evidence"]
    ]
    assert sorted((branch, name) for _, _, branch, _, name in kept) == sorted(told)
    assert {"visual", "audio"} <= {branch for branch, _ in told}


def test_hostile_files_are_rejected_with_a_code_and_leave_nothing_behind(
    system: System, hostile: dict[str, Path], talking_head: Path
) -> None:
    before = set(system.blobs.keys())
    processes = system.stack.processes
    ids = {name: system.submit(path) for name, path in hostile.items() if name != "empty"}
    for name, analysis_id in ids.items():
        ended = system.wait(analysis_id)
        assert ended["state"] == "rejected", (name, ended)
        assert ended["error"]["code"], name
        assert len(ended["error"]["message"]) > 20, name
    system.until(
        "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM analyses WHERE state = 'rejected' AND upload_key IS NOT NULL)"
    )
    assert set(system.blobs.keys()) == before
    assert system.stack.processes == processes
    assert system.analyse(talking_head)["state"] == "done"
