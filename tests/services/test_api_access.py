"""Keys: who is let in, to what, and what one tenant can learn of another. Against a real gateway and Postgres."""

import asyncio
import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy import create_engine, text
from starlette.datastructures import Headers

from clipwarden.api import access, keys
from clipwarden.api.access import NOBODY, Caller, Having, Keyring, Scope, digest_of
from clipwarden.api.app import create_app, is_loopback
from clipwarden.api.client import Client
from clipwarden.api.guard import LINKED_PATHS, is_public
from clipwarden.shared.errors import ConfigError, ProblemError, Unavailable
from clipwarden.shared.local.stack import command_line
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Key, NewKey, Store
from clipwarden.shared.tables import DEFAULT_TENANT
from tests.services.conftest import Serve

ALL = frozenset(Scope)
UNKNOWN = "cw_" + "x" * 43


@dataclass(frozen=True)
class Made:
    """A key with its secret."""

    key: Key
    secret: str

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}


MakeKey = Callable[..., Made]


@pytest.fixture
def make_key(store: Store) -> MakeKey:
    def make(tenant: str = "acme", scopes: frozenset[Scope] = ALL, **limits) -> Made:
        secret = keys.new_secret()
        new = NewKey(tenant=tenant, name="test", digest=digest_of(secret), scopes=sorted(scopes), **limits)
        return Made(store.create_key(new), secret)

    return make


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., str]:
    """What `clipwarden keys` prints."""
    monkeypatch.setenv("CLIPWARDEN_DATABASE_URL", settings.database_url)

    def run(*argv: str) -> str:
        assert keys.main(argv) == 0
        return capsys.readouterr().out

    return run


def told(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


def test_a_key_is_printed_once_and_kept_as_a_digest_only(command, store: Store, postgres_url: str) -> None:
    secret = command("create", "ci", "--tenant", "acme", "--scope", "read", "--requests-per-minute", "7").strip()

    assert re.fullmatch(r"cw_[A-Za-z0-9_-]{43}", secret)
    assert secret not in command("list") + command("list", "--json")
    known = store.live_key(hashlib.sha256(secret.encode()).hexdigest())
    assert known is not None
    assert (known.tenant, known.name, known.scopes, known.requests_per_minute) == ("acme", "ci", ("read",), 7)
    engine = create_engine(postgres_url)
    with engine.connect() as c:
        rows = str(c.execute(text("SELECT k.*, t.* FROM keys k, tenants t")).all())
    engine.dispose()
    assert secret not in rows
    assert secret[3:] not in rows


def test_secrets_are_all_different(command) -> None:
    assert len({command("create", "same") for _ in range(3)}) == 3


def test_keys_are_listed_with_their_state_and_revoked_for_good(command) -> None:
    made = json.loads(command("create", "a", "--days", "2", "--callback-host", "Hooks.Example.ORG", "--json"))
    assert (made["tenant"], made["scopes"]) == ("default", ["submit", "read"])
    assert UUID(made["tenant_id"]) == DEFAULT_TENANT
    assert made["callback_hosts"] == ["hooks.example.org"]
    assert made["id"] in command("list")

    command("revoke", made["id"])
    command("revoke", made["id"])

    (line,) = command("list", "--tenant", "default", "--json").splitlines()
    assert json.loads(line)["state"] == "revoked"
    assert command("list", "--tenant", "nobody", "--json") == ""
    for wrong in (str(uuid4()), "x"):
        with pytest.raises(ConfigError, match="no key"):
            keys.main(["revoke", wrong])


def test_keys_are_made_for_the_installation_that_up_runs(
    store: Store, postgres_url: str, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("CLIPWARDEN_STATE_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="CLIPWARDEN_DATABASE_URL"):
        keys.main(["list"])
    (tmp_path / "ready.json").write_text(json.dumps({"database": postgres_url}))

    assert keys.main(["create", "mine"]) == 0

    assert "first key" in capsys.readouterr().err
    assert [key.name for key in store.keys()] == ["mine"]


def test_without_keys_everybody_is_let_in_and_after_the_first_nobody_without_one(
    serve: Serve, gateway_settings: Settings, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "KEY_CACHE_S", 0.05)
    with serve(gateway_settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/v1/detectors").status_code == 200
        assert client.get("/v1/detectors", headers={"X-API-Key": UNKNOWN}).status_code == 200

        made = make_key()
        time.sleep(0.1)

        assert told(client.get("/v1/detectors")) == (401, "unauthorized")
        assert client.get("/v1/detectors", headers=made.bearer).status_code == 200
        assert client.get("/v1/detectors", headers={"X-API-Key": made.secret}).status_code == 200
        for path in ("/", "/livez", "/readyz", "/openapi.json"):
            assert client.get(path).status_code == 200


@pytest.fixture
def keyed(serve: Serve, gateway_settings: Settings, make_key: MakeKey) -> Iterator[httpx.Client]:
    """A gateway that wants a key, and one of tenant acme to ask it with; requests carry none by themselves."""
    make_key("first")
    with serve(gateway_settings) as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        yield client


def test_what_is_no_key_of_ours_is_unauthorized(keyed: httpx.Client, make_key: MakeKey) -> None:
    good = make_key().secret
    wrong = [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {good}"},
        {"Authorization": good},
        {"Authorization": f"Bearer {UNKNOWN}"},
        {"Authorization": f"Bearer {good}x"},
        {"Authorization": f"Bearer {good[:-1]}"},
        {"Authorization": f"Bearer {good.swapcase()}"},
        {"X-API-Key": "' OR 1=1 --"},
        {"X-API-Key": UNKNOWN, "Authorization": f"Bearer {good}"},
    ]
    for headers in wrong:
        reply = keyed.get("/v1/detectors", headers=headers)
        assert told(reply) == (401, "unauthorized"), headers
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")
        assert "Retry-After" not in reply.headers

    twice = [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {UNKNOWN}")]
    assert told(keyed.get("/v1/detectors", headers=twice)) == (401, "unauthorized")
    both = {"X-API-Key": good, "Authorization": f"bearer {good}"}
    assert keyed.get("/v1/detectors", headers=both).status_code == 200


def test_an_expired_key_is_unauthorized(keyed: httpx.Client, make_key: MakeKey) -> None:
    assert told(keyed.get("/v1/detectors", headers=make_key(expires_in_s=-1).bearer)) == (401, "unauthorized")
    assert keyed.get("/v1/detectors", headers=make_key(expires_in_s=60).bearer).status_code == 200


def test_a_revocation_counts_when_the_cache_has_run_out(
    store: Store, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "KEY_CACHE_S", 0.3)
    made, ring = make_key(requests_per_minute=5), Keyring(store, may_be_open=True)

    def ask() -> Caller:
        return asyncio.run(ring.caller(Headers(made.bearer)))

    caller = ask()
    assert (caller.tenant_id, caller.key_id, caller.requests_per_minute) == (made.key.tenant_id, made.key.id, 5)
    assert store.revoke_key(made.key.id)
    assert ask() is caller
    time.sleep(0.35)
    with pytest.raises(ProblemError):
        ask()


def test_a_ring_never_opens_on_other_addresses_nor_after_the_last_key_was_revoked(
    store: Store, make_key: MakeKey
) -> None:
    def without_a_key(*, may_be_open: bool) -> Caller:
        return asyncio.run(Keyring(store, may_be_open=may_be_open).caller(Headers()))

    assert without_a_key(may_be_open=False) is NOBODY
    assert without_a_key(may_be_open=True) == Caller()
    store.revoke_key(make_key().key.id)
    assert without_a_key(may_be_open=True) is NOBODY


def test_while_postgres_is_away_nobody_is_let_in() -> None:
    store = Store("postgresql://127.0.0.1:9/away")
    for headers in (Headers(), Headers({"X-API-Key": UNKNOWN})):
        with pytest.raises(Unavailable):
            asyncio.run(Keyring(store, may_be_open=True).caller(headers))
    store.close()


def test_guessed_keys_do_not_fill_the_memory(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_KNOWN", 5)
    ring = Keyring(store, may_be_open=False)

    for i in range(20):
        with pytest.raises(ProblemError):
            asyncio.run(ring.caller(Headers({"X-API-Key": f"cw_{i:043}"})))

    assert len(ring._known) <= 5


def all_routes(app: FastAPI) -> list[APIRoute]:
    def below(routes) -> Iterator[APIRoute]:
        for route in routes:
            if isinstance(route, APIRoute):
                yield route
            elif hasattr(route, "original_router"):
                yield from below(route.original_router.routes)

    return list(below(app.routes))


def scopes_of(dependant: Dependant) -> set[Scope]:
    own = {dependant.call.scope} if isinstance(dependant.call, Having) else set()
    return own.union(*map(scopes_of, dependant.dependencies))


ROUTES = [route for route in all_routes(create_app(Settings())) if not is_public(route.path)]


def needed(route: APIRoute) -> set[Scope]:
    return scopes_of(route.dependant) or ({Scope.READ} if LINKED_PATHS.fullmatch(route.path) else set())


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{min(route.methods)} {route.path}")
def test_every_route_names_the_scope_it_needs(route: APIRoute) -> None:
    assert len(needed(route)) == 1


def test_every_route_wants_a_key_with_its_scope(keyed: httpx.Client, make_key: MakeKey) -> None:
    document = keyed.get("/openapi.json").json()
    makers = {scope: (make_key(scopes=frozenset({scope})), make_key(scopes=ALL - {scope})) for scope in Scope}
    for route in ROUTES:
        (scope,) = needed(route)
        path = re.sub(r"\{[^}]+\}", str(uuid4()), route.path)
        having, lacking = makers[scope]
        for method in route.methods:
            without = keyed.request(method, path)
            refused = keyed.request(method, path, headers=lacking.bearer)
            allowed = keyed.request(method, path, headers=having.bearer)
            assert (without.status_code, refused.status_code) == (401, 403), (method, path)
            assert allowed.status_code not in {401, 403}, (method, path, allowed.text)
            operation = document["paths"].get(route.path, {}).get(method.lower(), {"responses": {"401", "403", "429"}})
            assert {"401", "403", "429"} <= set(operation["responses"]), (method, path)


def test_an_unknown_path_tells_nothing_without_a_key(keyed: httpx.Client, make_key: MakeKey) -> None:
    assert told(keyed.get("/v1/secret")) == (401, "unauthorized")
    assert told(keyed.get("/v1/secret", headers=make_key().bearer)) == (404, "not_found")


def test_a_tenant_sees_nothing_of_another(keyed: httpx.Client, make_key: MakeKey, clip_file) -> None:
    ours, theirs = make_key("ours"), make_key("theirs")
    content = clip_file.read_bytes()

    def submit(made: Made) -> dict:
        return keyed.post("/v1/analyses", headers=made.bearer, files={"file": ("a.mp4", content)}).json()

    first, second = submit(ours), submit(theirs)

    def told_of(body: dict) -> str:
        return re.sub(
            r"[?][^\"]+",
            "",
            json.dumps(body | dict.fromkeys(("created_at", "queue_position", "eta_s"))).replace(body["id"], "ID"),
        )

    assert first["id"] != second["id"]
    assert told_of(first) == told_of(second)  # but for the queue: that the other holds the file cannot be told
    for route in ("/v1/analyses/{}", "/status/{}"):
        foreign = keyed.get(route.format(first["id"]), headers=theirs.bearer)
        unknown = keyed.get(route.format(uuid4()), headers=theirs.bearer)
        assert told(foreign) == told(unknown) == (404, "not_found")
        assert foreign.json()["detail"] == unknown.json()["detail"]
        assert keyed.get(route.format(first["id"]), headers=ours.bearer).status_code == 200


def test_the_command_lines_client_sends_its_key(keyed: httpx.Client, make_key: MakeKey, clip_file) -> None:
    url, key = str(keyed.base_url), make_key()

    with Client(url, key.secret) as client:
        assert client.get(client.submit(clip_file).id).input.filename == clip_file.name
    with Client(url) as client, pytest.raises(ProblemError, match="key is needed"):
        client.submit(clip_file)


def test_two_keys_of_a_tenant_see_the_same(keyed: httpx.Client, make_key: MakeKey, clip_file) -> None:
    sender, reader = make_key(scopes=frozenset({Scope.SUBMIT})), make_key(scopes=frozenset({Scope.READ}))

    made = keyed.post("/v1/analyses", headers=sender.bearer, files={"file": ("a", clip_file.read_bytes())}).json()

    assert keyed.get(made["links"]["self"], headers=reader.bearer).status_code == 200


def test_other_addresses_are_refused_while_there_is_no_key(settings: Settings, make_key: MakeKey) -> None:
    given = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url, "BLOB_DIR": str(settings.blobs)}
    env = os.environ | {f"CLIPWARDEN_{name}": value for name, value in given.items()}

    run = subprocess.run(
        [*command_line(), "serve", "--host", "0.0.0.0"], env=env, capture_output=True, timeout=60, check=False
    )

    assert run.returncode == 2
    assert b"clipwarden keys create" in run.stderr


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
    ],
)
def test_only_loopback_addresses_are_this_machine(host: str, local: bool) -> None:
    assert is_loopback(host) is local
