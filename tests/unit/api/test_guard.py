"""What the guard lets through, before any route and without any service behind it."""

import asyncio

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from clipwarden.api import guard
from clipwarden.api.app import create_app
from clipwarden.shared.settings import Settings


class Offline:
    """The app as clients see it; its services were never opened."""

    def __init__(self) -> None:
        self.transport = httpx.ASGITransport(create_app(Settings(allowed_hosts=("localhost", "127.0.0.1", "[::1]"))))

    def request(self, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.transport, base_url="http://localhost") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(send())


@pytest.fixture(scope="module")
def app() -> Offline:
    return Offline()


def forbidden(reply: httpx.Response) -> bool:
    return (reply.status_code, reply.json().get("code")) == (403, "forbidden")


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io:8000", "", "[::2]"])
@pytest.mark.parametrize("path", ["/livez", "/v1/detectors", "/openapi.json", "/nowhere"])
def test_a_foreign_host_is_refused_on_every_route(app: Offline, path: str, host: str) -> None:
    assert forbidden(app.request("GET", path, {"Host": host}))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
def test_the_port_of_an_allowed_host_is_ignored(app: Offline, host: str) -> None:
    assert app.request("GET", "/livez", {"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:3000", "", "http://[", "ftp://localhost:8000"]
)
def test_a_page_of_another_origin_is_refused(app: Offline, origin: str) -> None:
    assert forbidden(app.request("POST", "/v1/analyses", {"Host": "localhost:8000", "Origin": origin}))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("localhost", "https://localhost:443"),
        ("localhost:80", "http://localhost"),
    ],
)
def test_a_page_of_our_own_origin_is_served(app: Offline, host: str, origin: str) -> None:
    assert app.request("GET", "/livez", {"Host": host, "Origin": origin}).status_code == 200


@pytest.mark.parametrize("length", ["-1", "1e3", "+1", "x"])
def test_a_length_that_is_no_number_is_a_bad_request(app: Offline, length: str) -> None:
    reply = app.request("GET", "/livez", {"Content-Length": length})

    assert (reply.status_code, reply.json()["code"]) == (400, "bad_request")


def test_every_answer_carries_an_id_and_forbids_sniffing_and_framing(app: Offline) -> None:
    for path, host in (("/livez", "localhost"), ("/nowhere", "localhost"), ("/livez", "evil.example")):
        headers = app.request("GET", path, {"Host": host}).headers
        assert headers["X-Request-ID"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_a_request_id_is_kept_unless_it_could_forge_a_log_line(app: Offline) -> None:
    assert app.request("GET", "/livez", {"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
    for forged in ("a b", "", "x" * 65, '{"a"}'):
        assert app.request("GET", "/livez", {"X-Request-ID": forged}).headers["X-Request-ID"] != forged


def test_a_request_that_breaks_off_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(guard, "count_request", lambda _scope, status, _elapsed_s: counted.append(status))

    async def broken(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half of it was sent")

    async def ignored(_: Message) -> None:
        pass

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/livez", "headers": [(b"host", b"localhost")]}
    with pytest.raises(RuntimeError, match="half"):
        asyncio.run(guard.Guard(broken, Settings())(scope, nothing, ignored))

    assert counted == [200]
