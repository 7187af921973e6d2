"""The gateway takes uploads over durably and tells how they fare, against real Postgres and Valkey."""

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis import Redis
from sqlalchemy import create_engine, text

from clipwarden.api.gateway import Gateway
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.codes import RejectCode, SkipCode
from clipwarden.shared.contracts import (
    Branch,
    BranchResult,
    Contribution,
    DetectorOutcome,
    Evidence,
    Label,
    MediaKind,
    MediaProbe,
    OutcomeStatus,
    Stage,
    Verdict,
)
from clipwarden.shared.errors import ConfigError, Unavailable
from clipwarden.shared.local.valkey import EmbeddedValkey
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, Store
from tests.services.conftest import PIPELINE, Serve

PROBE = MediaProbe(
    kind=MediaKind.VIDEO,
    container="mp4",
    duration_s=2.0,
    width=640,
    height=360,
    fps=25.0,
    frames=50,
    has_video=True,
    has_audio=False,
    size_bytes=256_000,
)
FOUND = BranchResult(
    branch=Branch.VISUAL,
    status=OutcomeStatus.OK,
    detectors=(
        DetectorOutcome(
            name="forensic_mlp",
            version="1",
            weights=f"sha256:{'1' * 64}",
            status=OutcomeStatus.OK,
            evidence=Evidence(score=0.75, features={"forensic_mlp.score": 0.75}),
            elapsed_ms=7,
        ),
    ),
    elapsed_ms=8,
)


def verdict(label: Label, log_odds: float) -> Verdict:
    contribution = Contribution(branch=Branch.VISUAL, detector="forensic_mlp", log_odds=log_odds)
    return Verdict(
        label=label,
        probability=1 / (1 + math.exp(-log_odds)),
        policy="balanced",
        head="visual",
        coverage=1.0,
        degraded=False,
        baseline_logit=0.0,
        contributions=(contribution,),
    )


NOTHING = Verdict(
    label=Label.INCONCLUSIVE,
    probability=None,
    policy="balanced",
    head=None,
    coverage=0.0,
    degraded=False,
    baseline_logit=None,
)


def claim(store: Store, analysis_id: UUID, stage: Stage) -> UUID:
    granted = store.claim(analysis_id, stage, 60, 3, "test")
    assert isinstance(granted, Granted)
    return granted.token


def ingest(store: Store, analysis_id: UUID) -> None:
    skipped = {Branch.AUDIO: SkipCode.NO_AUDIO, Branch.LIPSYNC: SkipCode.NO_WEIGHTS, Branch.CLIP: SkipCode.NO_WEIGHTS}
    assert store.finish_ingest(analysis_id, claim(store, analysis_id, Stage.INGEST), PROBE, [Branch.VISUAL], skipped)


def assess(store: Store, analysis_id: UUID) -> None:
    assert store.finish_branch(analysis_id, claim(store, analysis_id, Stage.VISUAL), FOUND)


def finish(store: Store, analysis_id: UUID, fused: Verdict) -> None:
    ingest(store, analysis_id)
    assess(store, analysis_id)
    assert store.fuse(analysis_id, lambda *_: fused)


def read(gateway: httpx.Client, analysis_id: UUID) -> dict[str, Any]:
    body: dict[str, Any] = gateway.get(f"/v1/analyses/{analysis_id}").raise_for_status().json()
    return body


def seed(gateway: httpx.Client, analysis_id: UUID) -> dict[str, Any]:
    body: dict[str, Any] = gateway.get(f"/status/{analysis_id}").raise_for_status().json()
    return body


def test_an_upload_is_stored_recorded_and_sent(
    gateway: httpx.Client, gateway_settings: Settings, store: Store, blobs: LocalBlobs, clip_file: Path
) -> None:
    content = clip_file.read_bytes()
    form = {"tag": "täg", "metadata": '{"case": [1, "ü"]}'}

    reply = gateway.post("/v1/analyses", data=form, files={"file": ("clip.mp4", content)})

    body = reply.json()
    assert reply.status_code == 202
    assert reply.headers["Location"] == body["links"]["self"] == f"/v1/analyses/{body['id']}"
    assert int(reply.headers["Retry-After"]) >= 1
    assert (body["state"], body["stage"], body["percent"], body["branches"]) == ("queued", None, 0, {})
    assert (body["tag"], body["metadata"], body["pipeline"]) == ("täg", {"case": [1, "ü"]}, PIPELINE)
    assert body["input"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert body["input"]["bytes"] == len(content)
    granted = store.claim(UUID(body["id"]), Stage.INGEST, 60, 3, "test")
    assert isinstance(granted, Granted)
    assert granted.upload_key is not None
    assert blobs.path(granted.upload_key).read_bytes() == content
    with Redis.from_url(gateway_settings.redis_url) as client:
        message = json.loads(client.lindex("ingest", 0))
    assert message["headers"]["task"] == "clipwarden.ingest"
    assert body["id"] in message["headers"]["argsrepr"]


def test_an_analysis_is_told_at_every_point_of_its_way(gateway: httpx.Client, store: Store, submitted: UUID) -> None:
    def both() -> tuple[Any, ...]:
        v1, seeds = read(gateway, submitted), seed(gateway, submitted)
        assert v1["percent"] == seeds["percent"]
        return v1["state"], v1["stage"], v1["percent"], seeds["status"], seeds["stageName"]

    assert both() == ("queued", None, 0, "processing", "Queued")
    token = claim(store, submitted, Stage.INGEST)
    assert both() == ("running", "ingest", 5, "processing", "Extracting frames")
    store.hand_back(submitted, Stage.INGEST, token)
    ingest(store, submitted)
    assert both() == ("running", "assess", 75, "processing", "Running models")
    assess(store, submitted)
    assert both() == ("running", "fuse", 95, "processing", "Final classification")
    assert store.fuse(submitted, lambda *_: verdict(Label.FAKE, 1.5))
    assert both() == ("done", None, 100, "done", "Final classification")


def test_a_finished_analysis_shows_what_each_branch_found(gateway: httpx.Client, store: Store, submitted: UUID) -> None:
    finish(store, submitted, verdict(Label.FAKE, 1.5))

    reply = gateway.get(f"/v1/analyses/{submitted}")

    body = reply.json()
    assert "Retry-After" not in reply.headers
    assert body["input"]["probe"]["container"] == "mp4"
    assert body["input"] | {"sha256": "", "probe": {}} == {
        "kind": "video",
        "filename": "clip.mp4",
        "bytes": 256_000,
        "sha256": "",
        "duration_s": 2.0,
        "width": 640,
        "height": 360,
        "fps": 25.0,
        "has_audio": False,
        "probe": {},
    }
    visual, audio = body["branches"]["visual"], body["branches"]["audio"]
    assert (visual["status"], visual["detectors"][0]["score"]) == ("ok", 0.75)
    assert (audio["status"], audio["code"]) == ("skipped", "no_audio")
    assert audio["message"].startswith("The file has no sound track")
    assert body["verdict"]["contributions"] == [{"branch": "visual", "detector": "forensic_mlp", "log_odds": 1.5}]
    p = body["verdict"]["probability"]
    assert math.log(p / (1 - p)) == pytest.approx(1.5)
    assert set(body["timings_ms"]) == {"queued", "ingest", "visual"}
    assert body["finished_at"] >= body["created_at"]


@pytest.mark.parametrize(
    ("fused", "expected"),
    [
        (verdict(Label.FAKE, 2.0), {"verdict": "Deepfake", "confidence": pytest.approx(88.0797, abs=1e-3)}),
        (verdict(Label.REAL, -2.0), {"verdict": "Authentic", "confidence": pytest.approx(88.0797, abs=1e-3)}),
        (verdict(Label.FAKE, 0.0), {"verdict": "Deepfake", "confidence": 50.0}),
    ],
)
def test_the_seeds_read_a_verdict_in_their_words(
    gateway: httpx.Client, store: Store, submitted: UUID, fused: Verdict, expected: dict[str, Any]
) -> None:
    finish(store, submitted, fused)

    assert seed(gateway, submitted) == {
        "analysisId": str(submitted),
        "status": "done",
        "percent": 100,
        "stageName": "Final classification",
        "result": expected,
    }


def test_the_seeds_are_told_when_a_verdict_is_inconclusive(
    gateway: httpx.Client, store: Store, submitted: UUID
) -> None:
    finish(store, submitted, verdict(Label.INCONCLUSIVE, 0.1))

    assert "inconclusive" in seed(gateway, submitted)["result"]["note"]


def test_no_evidence_is_an_error_to_the_seeds_and_a_verdict_to_us(
    gateway: httpx.Client, store: Store, submitted: UUID
) -> None:
    finish(store, submitted, NOTHING)

    told = seed(gateway, submitted)
    assert told["status"] == "error"
    assert "evidence" in told["error"]
    assert "result" not in told
    assert read(gateway, submitted)["verdict"]["probability"] is None


def test_a_rejected_file_is_told_with_its_sentence(gateway: httpx.Client, store: Store, submitted: UUID) -> None:
    sentence = "The file is not video, audio or a picture; send the media file itself."
    token = claim(store, submitted, Stage.INGEST)
    assert store.end_ingest(submitted, token, RejectCode.NOT_MEDIA, sentence)

    body = read(gateway, submitted)
    assert (body["state"], body["stage"], body["percent"]) == ("rejected", None, 5)
    assert body["error"] == {"code": "not_media", "message": sentence}
    assert seed(gateway, submitted) == {
        "analysisId": str(submitted),
        "status": "error",
        "percent": 5,
        "stageName": "Extracting frames",
        "error": sentence,
    }


def test_the_seeds_upload_answers_in_exactly_their_words(gateway: httpx.Client, clip_file: Path) -> None:
    reply = gateway.post("/analyze", files={"file": ("clip.mp4", clip_file.read_bytes())})

    assert reply.status_code == 202
    body = reply.json()
    assert body == {"analysisId": body["analysisId"], "status": "processing", "percent": 0, "stageName": "Queued"}
    assert read(gateway, body["analysisId"])["state"] == "queued"


def test_the_detectors_of_the_pipeline_are_listed(gateway: httpx.Client) -> None:
    body = gateway.get("/v1/detectors").json()

    assert body["pipeline"] == PIPELINE
    assert {d["name"]: d["state"] for d in body["detectors"]} == {"forensic_mlp": "ready", "lipfd": "no_weights"}


def test_an_upload_is_taken_while_redis_is_down(
    serve: Serve, gateway_settings: Settings, store: Store, clip_file: Path
) -> None:
    lonely = gateway_settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"})
    with serve(lonely) as url:
        reply = httpx.post(
            f"{url}/v1/analyses", files={"file": ("a.mp4", clip_file.read_bytes())}, timeout=30, trust_env=False
        )

    assert reply.status_code == 202
    unsent = store.due(everything=True)
    assert [(str(d.analysis_id), d.stage, d.sends) for d in unsent] == [(reply.json()["id"], Stage.INGEST, 0)]


@pytest.mark.parametrize("asked", [{}, {"tag": "t", "lane": "bulk", "metadata": '{"b": 1, "a": 2.5}'}])
def test_an_upload_is_told_as_it_is_recorded(gateway: httpx.Client, clip_file: Path, asked: dict[str, str]) -> None:
    reply = gateway.post("/v1/analyses", files={"file": ("a.mp4", clip_file.read_bytes())}, data=asked)

    assert reply.status_code == 202
    assert reply.json() == read(gateway, UUID(reply.json()["id"]))


def test_an_upload_that_was_taken_is_never_answered_with_an_error(
    gateway: httpx.Client, gateway_settings: Settings, clip_file: Path
) -> None:
    gateway.post("/v1/analyses", files={"file": ("a.mp4", clip_file.read_bytes())}, data={"reuse": "false"})
    engine = create_engine(gateway_settings.database_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE verdicts RENAME TO elsewhere"))

    reply = gateway.post("/v1/analyses", files={"file": ("a.mp4", clip_file.read_bytes())}, data={"tag": "t"})

    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO verdicts"))
    engine.dispose()
    assert reply.status_code == 202
    told, recorded = reply.json(), read(gateway, UUID(reply.json()["id"]))
    assert told == recorded | {"queue_position": None, "follows": told["follows"]}


def test_an_upload_is_taken_at_once_while_redis_is_silent(
    gateway: httpx.Client, valkey: EmbeddedValkey, store: Store, clip_file: Path
) -> None:
    content = clip_file.read_bytes()
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        replies = [gateway.post("/v1/analyses", files={"file": ("a.mp4", content)}) for _ in range(2)]
    finally:
        os.kill(valkey.pid, signal.SIGCONT)

    assert [reply.status_code for reply in replies] == [202, 202]
    deadline = time.monotonic() + 60
    while {due.sends for due in store.due(everything=True)} != {1} and time.monotonic() < deadline:
        time.sleep(0.1)
    assert {due.sends for due in store.due(everything=True)} == {1}


def test_readiness_names_what_is_down(serve: Serve, gateway_settings: Settings, blobs: LocalBlobs) -> None:
    lonely = gateway_settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"})
    with serve(lonely) as url, httpx.Client(base_url=url, trust_env=False) as client:
        no_redis = client.get("/readyz")
        blobs.set_up("another store")
        neither = client.get("/readyz")
        alive = client.get("/livez")

    assert (no_redis.status_code, no_redis.json()["code"]) == (503, "unavailable")
    assert "redis" in no_redis.json()["detail"]
    assert "blob_store" not in no_redis.json()["detail"]
    assert "blob_store" in neither.json()["detail"]
    assert alive.status_code == 200


def test_a_gateway_with_all_its_services_is_ready(gateway: httpx.Client) -> None:
    assert gateway.get("/readyz").json() == {
        "status": "ready",
        "checks": {"redis": "ok", "postgres": "ok", "blob_store": "ok"},
    }


def test_a_gateway_refuses_another_installations_blob_store(gateway_settings: Settings, blobs: LocalBlobs) -> None:
    blobs.set_up("another store")

    with pytest.raises(ConfigError, match="not the blob store of this database"):
        Gateway.open(gateway_settings)


def test_a_gateway_does_not_start_without_its_database(gateway_settings: Settings, tmp_path: Path) -> None:
    lost = gateway_settings.model_copy(update={"database_url": f"postgresql://u@/d?host={tmp_path}"})

    with pytest.raises(Unavailable):
        Gateway.open(lost)


def test_without_a_pipeline_nothing_is_taken(serve: Serve, settings: Settings, clip_file: Path) -> None:
    with serve(settings) as url:
        files = {"file": ("a.mp4", clip_file.read_bytes())}
        reply = httpx.post(f"{url}/v1/analyses", files=files, trust_env=False)

    assert (reply.status_code, reply.json()["code"]) == (503, "unavailable")
    assert "pipeline publish" in reply.json()["detail"]
    assert "Retry-After" in reply.headers
    assert list(LocalBlobs(settings.blobs).keys()) == []


@pytest.mark.parametrize("unknown", [str(UUID(int=7)), "not-an-id", "%00"])
@pytest.mark.parametrize("route", ["/v1/analyses", "/status"])
def test_an_unknown_id_is_not_found(gateway: httpx.Client, route: str, unknown: str) -> None:
    reply = gateway.get(f"{route}/{unknown}")

    assert (reply.status_code, reply.json()["code"]) == (404, "not_found")
    assert reply.headers["Content-Type"] == "application/problem+json"


def test_the_gateway_imports_no_maths() -> None:
    script = "import sys, clipwarden.api.app, clipwarden.api.commands; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in shown.stdout.split()}
    layers = {name for name in shown.stdout.split() if name.startswith(("clipwarden.models", "clipwarden.workers"))}

    assert "fastapi" in loaded
    assert loaded.isdisjoint({"numpy", "scipy", "torch", "cv2", "librosa", "transformers", "av"})
    assert not layers
