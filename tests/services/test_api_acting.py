"""What a tenant does to an analysis: cancel, run again, delete, judge it, ask another policy."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from redis import Redis
from sqlalchemy import create_engine, text

from clipwarden.api.access import Caller
from clipwarden.api.gateway import Gateway
from clipwarden.shared.blobs import BUNDLES, EVIDENCE, UPLOADS, LocalBlobs
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import Alternative, Analysis, Branch, Label, Stage
from clipwarden.shared.errors import Unavailable
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Doomed, Settled, Store
from clipwarden.shared.tables import DEFAULT_TENANT
from tests.analyses import FACE, PROBE, assess, claim, finish, found, ingest, verdict
from tests.services.conftest import MANIFEST, PIPELINE, Serve

HOOK = "https://hooks.example.com/x"


def refused(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


def kept(blobs: LocalBlobs, folder: str) -> list[str]:
    return [key for key in blobs.keys() if key.startswith(folder)]


def test_a_cancelled_analysis_ends_and_what_workers_still_do_is_dropped(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    ingest(store, submitted, (Branch.VISUAL, Branch.AUDIO))
    assess(store, blobs, submitted)
    token = claim(store, submitted, Stage.AUDIO)
    with blobs.create(f"{BUNDLES}/{submitted}/manifest.json") as writer:
        writer.write(b"{}")
        writer.commit()

    body = gateway.post(f"/v1/analyses/{submitted}/cancel").raise_for_status().json()

    assert (body["state"], body["stage"], body["error"]) == ("cancelled", None, None)
    assert body["finished_at"]
    assert (body["branches"]["visual"]["status"], body["branches"]["audio"]["status"]) == ("ok", "skipped")
    assert "cancelled" in body["branches"]["audio"]["message"]
    assert not store.extend(submitted, Stage.AUDIO, token, 60)
    assert not store.finish_branch(submitted, token, found(Branch.AUDIO))
    assert not store.fuse(submitted, lambda *_: verdict())
    assert isinstance(store.claim(submitted, Stage.AUDIO, 60, 3, "w"), Settled)
    assert store.due(everything=True) == []
    assert kept(blobs, BUNDLES) == []
    assert len(kept(blobs, UPLOADS)) == 1
    assert gateway.get(f"/status/{submitted}").json()["error"] == "The analysis was cancelled."


def test_a_cancelled_analysis_is_told_of_at_once(
    gateway: httpx.Client, gateway_settings: Settings, store: Store, clip_file: Path
) -> None:
    asked = {"callback_url": HOOK}
    files = {"file": ("a.mp4", clip_file.read_bytes())}
    analysis_id = gateway.post("/v1/analyses", data=asked, files=files).raise_for_status().json()["id"]

    gateway.post(f"/v1/analyses/{analysis_id}/cancel").raise_for_status()

    with Redis.from_url(gateway_settings.redis_url) as redis:
        assert redis.blpop(["notify"], timeout=20), "only the sweeper would have told"


def test_what_has_ended_cannot_be_cancelled(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    finish(store, blobs, submitted)
    assert refused(gateway.post(f"/v1/analyses/{submitted}/cancel")) == (409, "conflict")
    assert gateway.get(f"/v1/analyses/{submitted}").json()["state"] == "done"


def test_a_rerun_is_a_new_analysis_of_the_same_file_with_the_current_pipeline(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    finish(store, blobs, submitted)
    manifest = store.manifest(PIPELINE)
    assert manifest
    store.publish("sha256:newer", manifest)

    reply = gateway.post(f"/v1/analyses/{submitted}/rerun")

    body = reply.json()
    assert reply.status_code == 202
    assert reply.headers["Location"] == body["links"]["self"]
    assert (body["state"], body["rerun_of"], body["pipeline"]) == ("queued", str(submitted), "sha256:newer")
    assert body["id"] != str(submitted)
    assert len(kept(blobs, UPLOADS)) == 1
    finish(store, blobs, UUID(body["id"]))
    assert gateway.get(f"/v1/analyses/{submitted}").json()["verdict"]["label"] == "fake"


def column(settings: Settings, name: str, analysis_id: str) -> Any:
    """What no answer tells of an analysis."""
    engine = create_engine(settings.database_url)
    with engine.connect() as c:
        found = c.scalar(text(f"SELECT {name} FROM analyses WHERE id = :id"), {"id": analysis_id})
    engine.dispose()
    return found


def test_a_rerun_is_asked_as_the_analysis_was(
    gateway: httpx.Client, gateway_settings: Settings, store: Store, blobs: LocalBlobs, clip_file: Path
) -> None:
    asked = {"lane": "bulk", "policy": "strict", "detectors": "forensic_mlp", "tag": "t", "callback_url": HOOK}
    files = {"file": ("a.mp4", clip_file.read_bytes())}
    first = gateway.post("/v1/analyses", data=asked, files=files).raise_for_status().json()["id"]
    finish(store, blobs, UUID(first))

    again = gateway.post(f"/v1/analyses/{first}/rerun").raise_for_status().json()["id"]

    new, old = store.analysis(UUID(again)), store.analysis(UUID(first))
    assert new
    assert old
    for name in ("lane", "policy", "detectors", "tag", "callback_url"):
        assert getattr(new, name) == getattr(old, name) is not None
    allowed_s = column(gateway_settings, "extract(epoch FROM deadline_at - created_at)", again)
    assert abs(float(allowed_s) - gateway_settings.bulk_deadline_s) < 60


@pytest.mark.parametrize("asked", [{"policy": "strict"}, {"detectors": "forensic_mlp"}, {"callback_url": HOOK}])
def test_a_rerun_of_what_could_not_be_asked_for_today_is_refused(
    serve: Serve,
    gateway: httpx.Client,
    gateway_settings: Settings,
    store: Store,
    blobs: LocalBlobs,
    clip_file: Path,
    asked: dict[str, str],
) -> None:
    files = {"file": ("a.mp4", clip_file.read_bytes())}
    first = gateway.post("/v1/analyses", data=asked, files=files).raise_for_status().json()["id"]
    finish(store, blobs, UUID(first))
    store.publish("sha256:newer", MANIFEST.model_copy(update={"policies": ("balanced",), "detectors": ()}))
    closed = gateway_settings.model_copy(update={"outbound_ports": (8443,)})

    with serve(closed) as url, httpx.Client(base_url=url, trust_env=False) as client:
        answer = refused(client.post(f"/v1/analyses/{first}/rerun"))

    assert answer == (422, "invalid")
    assert [each["id"] for each in gateway.get("/v1/analyses").json()["analyses"]] == [first]


def test_nothing_is_run_again_before_it_has_ended_or_without_its_file(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    early = gateway.post(f"/v1/analyses/{submitted}/rerun")
    token = claim(store, submitted, Stage.INGEST)
    store.end_ingest(submitted, token, RejectCode.NOT_MEDIA, "no")
    (key,) = kept(blobs, UPLOADS)
    blobs.delete(key)
    gone = gateway.post(f"/v1/analyses/{submitted}/rerun")
    store.forget_upload(submitted)
    forgotten = gateway.post(f"/v1/analyses/{submitted}/rerun")

    assert [refused(reply) for reply in (early, gone, forgotten)] == [(409, "conflict")] * 3
    assert "no longer kept" in gone.json()["detail"]


def test_a_rerun_that_is_taken_and_not_read_back_is_told_as_taken(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(store, blobs, submitted)
    real = Gateway.analysis

    def away(self: Gateway, caller: Caller, analysis_id: UUID) -> Analysis:
        if analysis_id != submitted:
            raise Unavailable("Postgres is away")
        return real(self, caller, analysis_id)

    monkeypatch.setattr(Gateway, "analysis", away)
    reply = gateway.post(f"/v1/analyses/{submitted}/rerun")

    assert (reply.status_code, reply.json()["rerun_of"]) == (202, str(submitted))
    assert store.analysis(UUID(reply.json()["id"]))


def test_an_upload_is_kept_while_a_rerun_wants_it(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    finish(store, blobs, submitted)
    again = UUID(gateway.post(f"/v1/analyses/{submitted}/rerun").raise_for_status().json()["id"])
    assert store.expired_uploads(0) == []
    finish(store, blobs, again)
    assert {analysis_id for analysis_id, _ in store.expired_uploads(0)} == {submitted, again}


def personal(gateway: httpx.Client, settings: Settings, analysis_id: UUID) -> str:
    """All that the database still holds of an analysis, as text."""
    engine = create_engine(settings.database_url)
    with engine.connect() as c:
        rows = [
            str(c.execute(text(f"SELECT to_jsonb(t) FROM {table} t WHERE {key} = :id"), {"id": analysis_id}).all())
            for table, key in (("analyses", "id"), *((t, "analysis_id") for t in ("stages", "verdicts", "feedback")))
        ]
    engine.dispose()
    return "\n".join(rows) + gateway.get(f"/v1/analyses/{analysis_id}").text


@pytest.mark.parametrize("ended", [True, False])
def test_of_a_deleted_analysis_stays_that_it_was_deleted_and_when(
    gateway: httpx.Client, gateway_settings: Settings, store: Store, blobs: LocalBlobs, clip_file: Path, ended: bool
) -> None:
    form = {"tag": "MARK-tag", "metadata": '{"who": "MARK-who"}'}
    files = {"file": ("MARK-name.mp4", clip_file.read_bytes())}
    analysis_id = UUID(gateway.post("/v1/analyses", data=form, files=files).raise_for_status().json()["id"])
    opinion = {"label": "real", "category": "other", "comment": "MARK-comment"}
    gateway.post(f"/v1/analyses/{analysis_id}/feedback", json=opinion).raise_for_status()
    ingest(store, analysis_id)
    assess(store, blobs, analysis_id)
    if ended:
        assert store.fuse(analysis_id, lambda *_: verdict())

    body = gateway.delete(f"/v1/analyses/{analysis_id}").raise_for_status().json()

    assert (body["state"], body["branches"], body["verdict"]) == ("deleted", {}, None)
    assert body["deleted_at"] >= body["finished_at"] >= body["created_at"]
    assert "media" not in body["links"]
    assert list(blobs.keys()) == []
    assert "MARK" not in personal(gateway, gateway_settings, analysis_id)
    again = gateway.delete(f"/v1/analyses/{analysis_id}").raise_for_status().json()
    assert again["deleted_at"] == body["deleted_at"]
    assert gateway.get("/v1/analyses").json()["analyses"] == []
    (tombstone,) = gateway.get("/v1/analyses?state=deleted").json()["analyses"]
    assert tombstone["id"] == str(analysis_id)
    assert gateway.get(f"/status/{analysis_id}").json()["error"] == "The analysis was deleted."
    for act in ("rerun", "cancel", "feedback"):
        assert refused(gateway.post(f"/v1/analyses/{analysis_id}/{act}", json=opinion)) == (409, "conflict")


@pytest.mark.parametrize("source_first", [True, False])
def test_files_that_another_analysis_names_stay_until_it_is_deleted_too(
    gateway: httpx.Client,
    store: Store,
    blobs: LocalBlobs,
    submitted: UUID,
    clip_file: Path,
    source_first: bool,
) -> None:
    finish(store, blobs, submitted)
    files = {"file": ("b.mp4", clip_file.read_bytes())}
    taken_over = gateway.post("/v1/analyses", files=files).raise_for_status().json()
    assert (taken_over["from_cache"], taken_over["state"]) == (True, "done")
    copy = UUID(taken_over["id"])
    with blobs.create(f"{EVIDENCE}/{submitted}/audio/{uuid4().hex}/cqcc/unnamed.png") as writer:
        writer.write(b"of a lost lease")
        writer.commit()
    first, last = (submitted, copy) if source_first else (copy, submitted)

    gateway.delete(f"/v1/analyses/{first}").raise_for_status()

    body = gateway.get(f"/v1/analyses/{last}").json()
    shown = body["branches"]["visual"]["detectors"][0]["evidence"]
    assert gateway.get(next(e["href"] for e in shown if e["kind"] == "face")).content == FACE
    assert gateway.get(body["links"]["media"]).content == clip_file.read_bytes()
    gateway.delete(f"/v1/analyses/{last}").raise_for_status()
    assert list(blobs.keys()) == []


def test_a_deletion_that_fails_can_be_done_again(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    finish(store, blobs, submitted)

    def fail(_: Doomed) -> None:
        raise Unavailable("the bucket is away")

    with pytest.raises(Unavailable):
        store.delete(submitted, DEFAULT_TENANT, fail)
    assert gateway.get(f"/v1/analyses/{submitted}").json()["state"] == "done"
    assert gateway.delete(f"/v1/analyses/{submitted}").json()["state"] == "deleted"
    assert list(blobs.keys()) == []


def test_feedback_is_kept_and_listed(gateway: httpx.Client, submitted: UUID) -> None:
    url = f"/v1/analyses/{submitted}/feedback"
    sent = [
        {"label": "real", "category": "false_positive", "comment": "ein Schäferhund"},
        {"label": "unknown", "category": "other", "comment": None},
    ]
    replies = [gateway.post(url, json=each) for each in sent]

    assert [reply.status_code for reply in replies] == [201, 201]
    listed = gateway.get(url).json()["feedback"]
    assert listed == [reply.json() for reply in replies]
    assert [{name: f[name] for name in ("label", "category", "comment")} for f in listed] == sent


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"label": "maybe", "category": "other"}',
        b'{"label": "real"}',
        b'{"label": "real", "category": "other", "verdict": "real"}',
        b'{"label": "real", "category": "other", "comment": "a\\u0000b"}',
        b'{"label": "real", "category": "other", "comment": "\\ud800"}',
        b'{"label": "real", "category": "other", "comment": "' + "ü".encode() * 1025 + b'"}',
    ],
)
def test_feedback_that_makes_no_sense_is_refused(gateway: httpx.Client, submitted: UUID, body: bytes) -> None:
    url = f"/v1/analyses/{submitted}/feedback"
    reply = gateway.post(url, content=body, headers={"Content-Type": "application/json"})

    assert refused(reply) == (422, "invalid")
    assert gateway.get(url).json() == {"feedback": []}


def test_another_policy_is_asked_without_judging_again(
    gateway: httpx.Client, store: Store, blobs: LocalBlobs, submitted: UUID
) -> None:
    careful = Alternative(policy="careful", label=Label.INCONCLUSIVE, probability=0.7, head="tiny")
    none_yet = gateway.get(f"/v1/analyses/{submitted}/verdict")
    finish(store, blobs, submitted, verdict().model_copy(update={"alternatives": (careful,)}))

    def asked(**query: str) -> dict[str, Any]:
        body: dict[str, Any] = gateway.get(f"/v1/analyses/{submitted}/verdict", params=query).raise_for_status().json()
        return body

    assert refused(none_yet) == (409, "conflict")
    assert asked(policy="careful") == careful.model_dump(mode="json")
    assert asked() == asked(policy="balanced")
    assert (asked()["label"], asked()["head"]) == ("fake", "visual")
    unknown = gateway.get(f"/v1/analyses/{submitted}/verdict?policy=bold")
    assert refused(unknown) == (422, "invalid")
    assert "balanced, careful" in unknown.json()["detail"]


ACTS: list[Callable[[httpx.Client, UUID], httpx.Response]] = [
    lambda c, i: c.post(f"/v1/analyses/{i}/cancel"),
    lambda c, i: c.post(f"/v1/analyses/{i}/rerun"),
    lambda c, i: c.delete(f"/v1/analyses/{i}"),
    lambda c, i: c.post(f"/v1/analyses/{i}/feedback", json={"label": "real", "category": "other"}),
    lambda c, i: c.get(f"/v1/analyses/{i}/feedback"),
    lambda c, i: c.get(f"/v1/analyses/{i}/verdict"),
    lambda c, i: c.get(f"/v1/analyses/{i}/events"),
    lambda c, i: c.get(f"/v1/analyses/{i}/media"),
    lambda c, i: c.get(f"/v1/analyses/{i}/evidence/visual/forensic_mlp/face-0.jpg"),
]


@pytest.mark.parametrize("act", ACTS)
def test_another_tenants_analysis_is_not_found_and_stays_as_it_is(
    gateway: httpx.Client,
    gateway_settings: Settings,
    store: Store,
    blobs: LocalBlobs,
    submitted: UUID,
    act: Callable[[httpx.Client, UUID], httpx.Response],
) -> None:
    finish(store, blobs, submitted)
    engine = create_engine(gateway_settings.database_url)
    with engine.begin() as c:
        other = uuid4()
        c.execute(text("INSERT INTO tenants (id, name) VALUES (:id, 'other')"), {"id": other})
        c.execute(text("UPDATE analyses SET tenant_id = :id"), {"id": other})
    engine.dispose()

    assert refused(act(gateway, submitted)) == (404, "not_found")
    assert refused(act(gateway, uuid4())) == (404, "not_found")
    kept_as_it_is = store.analysis(submitted)
    assert kept_as_it_is
    assert (kept_as_it_is.state, kept_as_it_is.probe) == ("done", PROBE)
    assert store.feedback(submitted) == []
