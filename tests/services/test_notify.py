"""Callbacks to a real receiver on loopback, which checks signatures with the reference library."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from redis import Redis
from sqlalchemy import create_engine, text
from standardwebhooks import Webhook, WebhookVerificationError

from clipwarden.shared.addresses import Rules
from clipwarden.shared.codes import RejectCode, SkipCode
from clipwarden.shared.contracts import Branch, Label, Manifest, MediaKind, MediaProbe, Stage, StageStatus, Verdict
from clipwarden.shared.outbound import Outbound
from clipwarden.shared.queue import SENTINEL_KEY
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Delivery, Granted, NewAnalysis, Store, WantedDeliveries
from clipwarden.shared.tables import DEFAULT_TENANT
from clipwarden.shared.telling import tell
from clipwarden.workers.notify import NOTING_S, PAUSES_S, Notifier, retry_after_s
from clipwarden.workers.sweep import Sweeper
from tests.listeners import Listener, Received, answer, listening, raw

TAG = "ü" * 128
PROBE = MediaProbe(
    kind=MediaKind.IMAGE,
    container="png",
    duration_s=0,
    width=64,
    height=64,
    fps=0,
    frames=1,
    has_video=True,
    has_audio=False,
    size_bytes=9,
)
VERDICT = Verdict(
    label=Label.FAKE, probability=0.83, policy="balanced", head="h", coverage=1, degraded=False, baseline_logit=0
)


@pytest.fixture
def receiver() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def notifier(settings: Settings, store: Store, receiver: Listener) -> Notifier:
    allowed = {"outbound_private": ("127.0.0.1/32",), "outbound_ports": (receiver.port,), "webhook_timeout_s": 0.5}
    opened = settings.model_copy(update=allowed)
    return Notifier(opened, store, Outbound(Rules.of(opened)))


def submit(store: Store, callback_url: str | None) -> UUID:
    store.publish("sha256:p", Manifest(detectors=(), faces="f", fusion=f"sha256:{'f' * 64}"))
    return store.submit(
        NewAnalysis("a.mp4", 9, "ab", "uploads/x", "sha256:p", 60, tag=TAG, callback_url=callback_url)
    ).id


def rejected(store: Store, callback_url: str | None) -> UUID:
    """An analysis that ended."""
    analysis_id = submit(store, callback_url)
    granted = store.claim(analysis_id, Stage.INGEST, 60, 3, "test")
    assert isinstance(granted, Granted)
    assert store.end_ingest(analysis_id, granted.token, RejectCode.TRUNCATED, "The file is cut off.")
    return analysis_id


def deliveries(store: Store) -> list[Delivery]:
    return store.listed_deliveries(WantedDeliveries(DEFAULT_TENANT, 100))


def owed(store: Store, url: str) -> UUID:
    """The delivery of an analysis that ended."""
    analysis_id = rejected(store, url)
    (delivery,) = [d for d in deliveries(store) if d.analysis_id == analysis_id]
    return delivery.id


def read(store: Store, delivery_id: UUID) -> Delivery:
    found = store.delivery(delivery_id, DEFAULT_TENANT)
    assert found is not None
    return found


def execute(settings: Settings, statement: str) -> None:
    engine = create_engine(settings.database_url)
    with engine.begin() as c:
        c.execute(text(statement))
    engine.dispose()


def make_due(notifier: Notifier) -> None:
    execute(notifier.settings, "UPDATE deliveries SET not_before = clock_timestamp() - interval '1 second'")


def verified(received: Received, secret: str) -> object:
    return Webhook(secret).verify(received.body, dict(received.headers))


def test_an_analysis_that_ended_is_told_signed_and_thin(notifier: Notifier, store: Store, receiver: Listener) -> None:
    analysis_id = rejected(store, f"{receiver.url}/hook?x=1")
    (delivery,) = deliveries(store)
    notifier.deliver(delivery.id)

    (received,) = receiver.received
    (secret,) = store.signing_secrets(DEFAULT_TENANT)
    assert (received.method, received.path) == ("POST", "/hook?x=1")
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == str(delivery.id)
    assert verified(received, secret.secret) == {
        "type": "analysis.rejected",
        "timestamp": delivery.created_at.astimezone(UTC).isoformat(),
        "data": {
            "id": str(analysis_id),
            "state": "rejected",
            "label": None,
            "probability": None,
            "tag": TAG,
            "links": {"self": f"/v1/analyses/{analysis_id}"},
        },
    }
    assert len(received.body) < 20_000
    told = read(store, delivery.id)
    assert (told.status, told.attempts, [(a.status, a.error) for a in told.log]) == (StageStatus.OK, 1, [(200, None)])


def test_a_changed_body_or_another_secret_does_not_verify(notifier: Notifier, store: Store, receiver: Listener) -> None:
    notifier.deliver(owed(store, receiver.url))
    (received,) = receiver.received
    (secret,) = store.signing_secrets(DEFAULT_TENANT)
    with pytest.raises(WebhookVerificationError):
        verified(replace(received, body=received.body.replace(b"rejected", b"done")), secret.secret)
    with pytest.raises(WebhookVerificationError):
        verified(received, store.rotate_secret(DEFAULT_TENANT, 60)[0].secret)


def test_a_verdict_is_told_with_its_label(notifier: Notifier, store: Store, receiver: Listener) -> None:
    analysis_id = submit(store, receiver.url)
    granted = store.claim(analysis_id, Stage.INGEST, 60, 3, "test")
    assert isinstance(granted, Granted)
    assert store.finish_ingest(analysis_id, granted.token, PROBE, [], dict.fromkeys(Branch, SkipCode.NO_WEIGHTS))
    assert store.fuse(analysis_id, lambda *_: VERDICT)
    assert not store.fuse(analysis_id, lambda *_: VERDICT)
    (delivery,) = deliveries(store)
    notifier.deliver(delivery.id)
    told = json.loads(receiver.received[0].body)
    assert told["type"] == "analysis.done"
    assert (told["data"]["state"], told["data"]["label"], told["data"]["probability"]) == ("done", "fake", 0.83)


def test_the_signature_s_time_is_not_that_of_a_worker_with_a_wrong_clock(
    notifier: Notifier, store: Store, receiver: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = SimpleNamespace(time=lambda: time.time() + 3600, monotonic=time.monotonic)
    monkeypatch.setattr("clipwarden.workers.notify.time", wrong)
    notifier.deliver(owed(store, receiver.url))
    (secret,) = store.signing_secrets(DEFAULT_TENANT)
    assert verified(receiver.received[0], secret.secret)


def test_nothing_is_owed_where_no_callback_was_asked_for(store: Store) -> None:
    rejected(store, None)
    assert deliveries(store) == []


def test_while_secrets_rotate_both_verify(notifier: Notifier, store: Store, receiver: Listener) -> None:
    (old,) = store.signing_secrets(DEFAULT_TENANT)
    new, still = store.rotate_secret(DEFAULT_TENANT, 60)
    assert (still.secret, new.expires_at) == (old.secret, None)
    notifier.deliver(owed(store, receiver.url))
    (received,) = receiver.received
    assert len(received.headers["webhook-signature"].split()) == 2
    assert verified(received, old.secret) == verified(received, new.secret)

    execute(notifier.settings, "UPDATE webhook_secrets SET expires_at = clock_timestamp() WHERE expires_at IS NOT NULL")
    notifier.deliver(owed(store, receiver.url))
    with pytest.raises(WebhookVerificationError):
        verified(receiver.received[1], old.secret)
    assert verified(receiver.received[1], new.secret)


def test_a_secret_has_the_form_the_standard_asks_for(store: Store) -> None:
    (secret,) = store.signing_secrets(DEFAULT_TENANT)
    assert secret.secret.startswith("whsec_")
    assert store.signing_secrets(DEFAULT_TENANT) == [secret]


def test_secrets_are_read_while_a_row_that_names_the_tenant_is_written(settings: Settings, store: Store) -> None:
    engine = create_engine(settings.database_url)
    with ThreadPoolExecutor(1) as thread:
        for lock in ("KEY SHARE", "UPDATE"):  # before the first secret is made, and once it is there
            with engine.begin() as c:
                c.execute(text(f"SELECT 1 FROM tenants FOR {lock}"))
                assert len(thread.submit(store.signing_secrets, DEFAULT_TENANT).result(10)) == 1
    engine.dispose()


def test_several_who_ask_first_get_one_secret(store: Store) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: store.signing_secrets(DEFAULT_TENANT), range(4)))
    assert found == [found[0]] * 4


def test_a_failing_receiver_is_told_again_with_growing_patience_until_the_last(
    notifier: Notifier, store: Store, receiver: Listener
) -> None:
    receiver.answers = [answer(500)]
    delivery_id = owed(store, receiver.url)
    for pause_s in PAUSES_S:
        notifier.deliver(delivery_id)
        told = read(store, delivery_id)
        assert told.status is StageStatus.OPEN
        assert pause_s - 2 <= until(told) <= 1.2 * pause_s + 2
        notifier.deliver(delivery_id)  # a second message comes too early and does nothing
        assert read(store, delivery_id).attempts == told.attempts
        make_due(notifier)
    notifier.deliver(delivery_id)
    told = read(store, delivery_id)
    assert (told.status, told.attempts) == (StageStatus.FAILED, 10)
    assert [a.status for a in told.log] == [500] * 10
    assert len({r.body for r in receiver.received}) == 1
    assert len({r.headers["webhook-id"] for r in receiver.received}) == 1


def until(delivery: Delivery) -> float:
    return (delivery.not_before - datetime.now(UTC)).total_seconds()


def test_a_receiver_that_recovers_is_told(notifier: Notifier, store: Store, receiver: Listener) -> None:
    receiver.answers = [answer(500), raw(b"nonsense"), answer(204)]
    delivery_id = owed(store, receiver.url)
    for _ in range(3):
        notifier.deliver(delivery_id)
        make_due(notifier)
    told = read(store, delivery_id)
    assert (told.status, [a.status for a in told.log]) == (StageStatus.OK, [500, None, 204])


def test_a_busy_receiver_says_when_to_come_back(notifier: Notifier, store: Store, receiver: Listener) -> None:
    for status in (429, 503):
        receiver.answers = [answer(status, Retry_After="120")]
        delivery_id = owed(store, receiver.url)
        notifier.deliver(delivery_id)
        assert 115 <= until(read(store, delivery_id)) <= 121


def test_retry_after_is_read_in_both_forms_and_bounded() -> None:
    now = datetime.now(UTC)
    assert retry_after_s(format_datetime(now + timedelta(seconds=90), usegmt=True), now) == pytest.approx(90, abs=1)
    assert retry_after_s("99999999", now) == 86_400
    assert [retry_after_s(odd, now) for odd in (None, "", "-5", "soon", "²", "Mon, 99 Foo")] == [0] * 6


def test_a_receiver_that_is_gone_is_told_nothing_more(notifier: Notifier, store: Store, receiver: Listener) -> None:
    receiver.answers = [answer(410)]
    waiting, delivery_id = owed(store, receiver.url), owed(store, receiver.url)
    notifier.deliver(delivery_id)
    assert read(store, delivery_id).status is StageStatus.FAILED
    assert read(store, waiting).status is StageStatus.SKIPPED
    assert read(store, owed(store, receiver.url)).status is StageStatus.SKIPPED
    assert read(store, owed(store, f"{receiver.url}/other")).status is StageStatus.OPEN

    receiver.answers = [answer(200)]
    assert store.replay(delivery_id, DEFAULT_TENANT) is not None
    notifier.deliver(delivery_id)
    assert read(store, delivery_id).status is StageStatus.OK
    assert read(store, owed(store, receiver.url)).status is StageStatus.OPEN


def test_another_tenants_delivery_is_not_there(store: Store) -> None:
    delivery_id = owed(store, "http://127.0.0.1/")
    assert store.delivery(delivery_id, uuid4()) is None
    assert store.replay(delivery_id, uuid4()) is None
    assert store.listed_deliveries(WantedDeliveries(uuid4(), 10)) == []


def test_a_receiver_that_hangs_or_drips_costs_no_more_than_the_time(
    notifier: Notifier, store: Store, receiver: Listener
) -> None:
    stop = threading.Event()
    sent: list[bool] = []
    receiver.answers = [raw(*[b"H"] * 200, pause=lambda: sent.append(stop.wait(0.05)))]
    delivery_id = owed(store, receiver.url)
    notifier.deliver(delivery_id)
    assert len(sent) < 200
    stop.set()
    (attempt,) = read(store, delivery_id).log
    assert (attempt.status, attempt.error) == (None, "the time is over")


def test_redirects_are_not_followed(notifier: Notifier, store: Store, receiver: Listener) -> None:
    receiver.answers = [answer(307, Location=f"{receiver.url}/elsewhere")]
    delivery_id = owed(store, f"{receiver.url}/hook")
    notifier.deliver(delivery_id)
    assert [r.path for r in receiver.received] == ["/hook"]
    assert read(store, delivery_id).status is StageStatus.OPEN


def test_a_private_address_is_not_told_and_not_tried_again(
    notifier: Notifier, store: Store, receiver: Listener
) -> None:
    shut = replace(notifier, outbound=Outbound(Rules(frozenset({receiver.port}))))
    delivery_id = owed(store, receiver.url)
    shut.deliver(delivery_id)
    told = read(store, delivery_id)
    assert (told.status, told.log[0].status) == (StageStatus.FAILED, None)
    assert "not a public address" in (told.log[0].error or "")
    assert receiver.received == []


def test_who_lost_the_lease_notes_nothing_and_the_next_one_tells(
    notifier: Notifier, store: Store, receiver: Listener
) -> None:
    delivery_id = owed(store, receiver.url)
    lost = store.claim_delivery(delivery_id, 60)
    assert lost is not None
    notifier.deliver(delivery_id)  # a live lease is left alone
    assert receiver.received == []
    execute(notifier.settings, "UPDATE deliveries SET lease_until = clock_timestamp() - interval '1 second'")
    assert list(store.due_deliveries()) == [delivery_id]
    notifier.deliver(delivery_id)
    assert len(receiver.received) == 1
    assert not store.settle_delivery(delivery_id, lost[1], StageStatus.FAILED, read(store, delivery_id).log[0])
    assert read(store, delivery_id).status is StageStatus.OK


@pytest.mark.parametrize(("lease_s", "held_s"), [(60, 60), (1, 0.5 + NOTING_S)])
def test_an_attempt_is_held_for_a_lease_and_as_long_as_the_receiver_may_take(
    notifier: Notifier, store: Store, receiver: Listener, lease_s: float, held_s: float
) -> None:
    left: list[float] = []

    def look(handler: BaseHTTPRequestHandler) -> None:
        engine = create_engine(notifier.settings.database_url)
        with engine.connect() as c:
            held = "SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM deliveries"
            left.append(float(c.scalar(text(held))))
        engine.dispose()
        answer(204)(handler)

    receiver.answers = [look]
    patient = replace(notifier, settings=notifier.settings.model_copy(update={"lease_s": lease_s}))
    patient.deliver(owed(store, receiver.url))
    assert held_s - 1 < left[0] <= held_s


def test_a_deleted_analysis_is_not_told_of(notifier: Notifier, store: Store, receiver: Listener) -> None:
    delivery_id = owed(store, receiver.url)
    execute(notifier.settings, "UPDATE analyses SET state = 'deleted'")
    notifier.deliver(delivery_id)
    assert read(store, delivery_id).status is StageStatus.SKIPPED
    assert receiver.received == []


def test_a_callback_is_sent_when_its_analysis_ends_and_again_by_the_sweeper(
    notifier: Notifier, store: Store, receiver: Listener, redis_url: str
) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.set(SENTINEL_KEY, "present")
        tell(notifier.settings, store, rejected(store, receiver.url))
        assert redis.llen("notify") == 1
        sweeper = Sweeper(notifier.settings)
        assert sweeper.sweep()["callbacks_sent"] == 0
        redis.delete("notify")
        assert sweeper.sweep()["callbacks_sent"] == 1
        assert redis.llen("notify") == 1
        notifier.deliver(deliveries(store)[0].id)
        redis.delete("notify")
        assert sweeper.sweep()["callbacks_sent"] == 0


def test_an_analysis_past_its_deadline_is_told_of(notifier: Notifier, store: Store, receiver: Listener) -> None:
    submit(store, receiver.url)
    execute(notifier.settings, "UPDATE analyses SET deadline_at = clock_timestamp() - interval '1 second'")
    Sweeper(notifier.settings).sweep()
    assert [d.event for d in deliveries(store)] == ["analysis.failed"]


def test_an_analysis_that_nobody_fused_is_told_of(notifier: Notifier, store: Store, receiver: Listener) -> None:
    submit(store, receiver.url)
    execute(notifier.settings, "UPDATE stages SET status = 'ok'")
    execute(notifier.settings, "UPDATE analyses SET deadline_at = clock_timestamp() - interval '1 day'")
    Sweeper(notifier.settings).sweep()
    assert [d.event for d in deliveries(store)] == ["analysis.failed"]
