"""The callback routes on a real gateway, a worker process that makes the callbacks, and a receiver on loopback."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx
import pytest
from standardwebhooks import Webhook

from clipwarden.api import webhook_commands
from clipwarden.api.access import Caller, digest_of
from clipwarden.api.keys import new_secret
from clipwarden.api.targets import callback_of, source_of
from clipwarden.shared.errors import ConfigError, ProblemError
from clipwarden.shared.ids import new_id
from clipwarden.shared.settings import Settings, load_settings
from clipwarden.shared.store import NewKey, Store
from clipwarden.shared.tables import DEFAULT_TENANT
from tests.listeners import Listener, answer, listening
from tests.services.conftest import Serve

WORKER = [sys.executable, "-c", "import sys; from clipwarden.shared.cli import main; sys.exit(main())", "worker"]

ODD_FILTERS = (
    "status=done",
    "event=x",
    "event=%00",
    "limit=0",
    "limit=201",
    "cursor=x",
    "analysis_id=x",
    "state=open",
)
FORBIDDEN = (
    "http://169.254.169.254/latest/meta-data",
    "http://[::ffff:10.0.0.1]/",
    "http://0x7f000002/",
    "file:///etc/passwd",
    "https://user:pass@example.com/",
    "https://example.com:22/",
    "not a url",
    "https://example.com/\0",
    "",
)


@pytest.fixture
def receiver() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def gateway_settings(gateway_settings: Settings, receiver: Listener) -> Settings:
    """A gateway that lets the loopback receiver be told."""
    allowed = {"outbound_private": ("127.0.0.1/32",), "outbound_ports": (443, receiver.port)}
    return gateway_settings.model_copy(update=allowed)


@contextmanager
def notifying(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A worker process of the queue `notify`."""
    environment = {
        **os.environ,
        "CLIPWARDEN_DATABASE_URL": settings.database_url,
        "CLIPWARDEN_REDIS_URL": settings.redis_url,
        "CLIPWARDEN_OUTBOUND_PRIVATE": ",".join(settings.outbound_private),
        "CLIPWARDEN_OUTBOUND_PORTS": ",".join(map(str, settings.outbound_ports)),
        "CLIPWARDEN_SOFT_SHUTDOWN_S": "1",
    }
    with subprocess.Popen([*WORKER, "notify"], env=environment, cwd="/", stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def until(done: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
    return done()


def test_a_test_message_is_signed_logged_and_made_again(
    gateway: httpx.Client, gateway_settings: Settings, receiver: Listener, store: Store
) -> None:
    receiver.answers = [answer(410), answer(204)]
    with notifying(gateway_settings):
        made = gateway.post("/v1/webhooks/test", json={"url": f"{receiver.url}/hook#part"})
        assert (made.status_code, made.json()["url"]) == (202, f"{receiver.url}/hook")
        path = f"/v1/webhooks/deliveries/{made.json()['id']}"
        assert until(lambda: gateway.get(path).json()["status"] == "failed")
        assert gateway.post(f"{path}/replay").status_code == 202
        assert until(lambda: gateway.get(path).json()["status"] == "ok")

    shown = gateway.get(path).json()
    assert ([a["status"] for a in shown["log"]], shown["attempts"], shown["next_attempt_at"]) == ([410, 204], 1, None)
    secret = gateway.get("/v1/webhooks/secrets").json()["secrets"][0]["secret"]
    for received in receiver.received:
        told = Webhook(secret).verify(received.body, dict(received.headers))
        assert (told["type"], told["data"]) == ("webhook.ping", {})
        assert received.headers["webhook-id"] == shown["id"]


def test_callbacks_are_listed_by_what_they_are_page_by_page(
    gateway: httpx.Client, receiver: Listener, store: Store
) -> None:
    made = [gateway.post("/v1/webhooks/test", json={"url": receiver.url}).json()["id"] for _ in range(5)]
    store.silence(DEFAULT_TENANT, receiver.url)
    made.append(gateway.post("/v1/webhooks/test", json={"url": f"{receiver.url}/b"}).json()["id"])

    def listed(**filters: str | int) -> list[str]:
        reply = gateway.get("/v1/webhooks/deliveries", params=filters)
        return [d["id"] for d in reply.raise_for_status().json()["deliveries"]]

    assert listed() == made[::-1]
    assert listed(status="open") == made[5:]
    assert listed(status="skipped", event="webhook.ping") == made[4::-1]
    assert listed(event="analysis.done") == listed(analysis_id=str(uuid4())) == []

    seen: list[str] = []
    cursor: dict[str, str] | None = {}
    while cursor is not None:
        page = gateway.get("/v1/webhooks/deliveries", params={"limit": 2, **cursor}).json()
        seen += [d["id"] for d in page["deliveries"]]
        cursor = page["next"] and {"cursor": page["next"]}
    assert seen == made[::-1]


def test_odd_filters_are_invalid(gateway: httpx.Client) -> None:
    for query in ODD_FILTERS:
        assert gateway.get(f"/v1/webhooks/deliveries?{query}").status_code == 422, query


def test_no_callback_is_taken_for_an_address_that_may_not_be_told(gateway: httpx.Client) -> None:
    for url in FORBIDDEN:
        reply = gateway.post("/v1/webhooks/test", json={"url": url})
        assert (reply.status_code, reply.json()["code"]) == (422, "invalid"), url
    assert gateway.get("/v1/webhooks/deliveries").json()["deliveries"] == []


def test_a_file_may_be_named_by_a_public_address_only() -> None:
    assert source_of(load_settings(), "https://example.com/a.mp4#t=1") == "https://example.com/a.mp4"
    with pytest.raises(ProblemError, match="Nothing can be fetched from there"):
        source_of(load_settings(), "http://127.0.0.1/a.mp4")


def test_a_key_may_be_told_at_its_hosts_only() -> None:
    keyed = Caller(key_id=new_id(), callback_hosts=frozenset({"hooks.example.com"}))
    assert callback_of(load_settings(), keyed, "https://hooks.example.com/x")
    for caller in (keyed, Caller(key_id=new_id())):
        with pytest.raises(ProblemError, match="key"):
            callback_of(load_settings(), caller, "https://example.com/x")


def test_tenants_see_their_own_callbacks_and_secrets_and_only_with_the_scope(
    gateway_settings: Settings, store: Store, serve: Serve, receiver: Listener
) -> None:
    def key(tenant: str, *scopes: str) -> dict[str, str]:
        secret = new_secret()
        store.create_key(NewKey(tenant, "k", digest_of(secret), list(scopes), callback_hosts=["127.0.0.1"]))
        return {"Authorization": f"Bearer {secret}"}

    acme, other, reader = key("acme", "admin"), key("other", "admin"), key("acme", "submit", "read")
    with serve(gateway_settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
        made = client.post("/v1/webhooks/test", json={"url": receiver.url}, headers=acme)
        path = f"/v1/webhooks/deliveries/{made.raise_for_status().json()['id']}"
        assert client.get(path, headers=acme).status_code == 200
        assert client.get(path, headers=other).status_code == 404
        assert client.post(f"{path}/replay", headers=other).status_code == 404
        assert client.get("/v1/webhooks/deliveries", headers=other).json() == {"deliveries": [], "next": None}
        secrets = [client.get("/v1/webhooks/secrets", headers=who).json()["secrets"] for who in (acme, other)]
        assert secrets[0][0]["secret"] != secrets[1][0]["secret"]
        for method, place in [
            ("GET", "/v1/webhooks/deliveries"),
            ("GET", path),
            ("POST", f"{path}/replay"),
            ("POST", "/v1/webhooks/test"),
            ("GET", "/v1/webhooks/secrets"),
            ("POST", "/v1/webhooks/secrets/rotate"),
        ]:
            body = {"url": receiver.url} if place.endswith("test") else None
            assert client.request(method, place, json=body, headers=reader).status_code == 403


def test_a_secret_is_rotated_over_http_and_from_the_command_line(
    gateway: httpx.Client,
    gateway_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (first,) = gateway.get("/v1/webhooks/secrets").json()["secrets"]
    second, still = gateway.post("/v1/webhooks/secrets/rotate").json()["secrets"]
    assert (still["id"], still["expires_at"] is None, second["expires_at"]) == (first["id"], False, None)

    monkeypatch.setenv("CLIPWARDEN_DATABASE_URL", gateway_settings.database_url)
    assert webhook_commands.main(["secret", "rotate", "--overlap-hours", "0"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert webhook_commands.main(["secret", "show"]) == 0
    assert capsys.readouterr().out.splitlines() == [line]
    (third,) = gateway.get("/v1/webhooks/secrets").json()["secrets"]
    assert line == f"{third['secret']} current"
    with pytest.raises(ConfigError, match="no tenant 'nobody'"):
        webhook_commands.main(["secret", "show", "--tenant", "nobody"])


def test_the_document_names_every_event(gateway: httpx.Client) -> None:
    schemas = gateway.get("/openapi.json").json()["components"]["schemas"]
    assert set(schemas["Event"]["enum"]) == {
        "analysis.done",
        "analysis.rejected",
        "analysis.failed",
        "analysis.cancelled",
        "webhook.ping",
    }
