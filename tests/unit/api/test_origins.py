"""Pages of other origins: refused, unless the operator named theirs."""

import asyncio

import httpx
import pytest

from clipwarden.api.app import create_app
from clipwarden.shared.errors import ConfigError
from clipwarden.shared.settings import Settings, load_settings

DESK = "https://desk.example.org"


def ask(method: str, path: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(create_app(Settings(cors_origins=(DESK, "http://localhost:3000"))))

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            return await client.request(
                method, path, headers={name.replace("_", "-"): value for name, value in headers.items()}
            )

    return asyncio.run(send())


def test_a_named_origin_may_read_answers_and_errors() -> None:
    for path, status in (("/livez", 200), ("/v1/detectors", 503)):
        reply = ask("GET", path, Origin=DESK)
        assert reply.status_code == status
        assert reply.headers["Access-Control-Allow-Origin"] == DESK
        assert "Origin" in reply.headers["Vary"]
        exposed = reply.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"Preference-Applied", "RateLimit", "Retry-After"} <= set(exposed)
        assert "Access-Control-Allow-Credentials" not in reply.headers


def test_a_preflight_of_a_named_origin_is_answered_before_any_key() -> None:
    reply = ask("OPTIONS", "/v1/analyses", Origin=DESK, Access_Control_Request_Method="POST")

    assert (reply.status_code, reply.content) == (204, b"")
    assert reply.headers["Access-Control-Allow-Origin"] == DESK
    assert "POST" in reply.headers["Access-Control-Allow-Methods"]
    asked = {"Authorization", "Content-Digest", "Prefer", "Repr-Digest", "X-API-Key"}
    assert asked <= set(reply.headers["Access-Control-Allow-Headers"].split(", "))


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://desk.example.org", f"{DESK}:444", f"{DESK}.evil.example", "null", DESK.upper()],
)
def test_any_other_origin_is_told_nothing(origin: str) -> None:
    for method, more in (("GET", {}), ("POST", {}), ("OPTIONS", {"Access_Control_Request_Method": "POST"})):
        reply = ask(method, "/v1/analyses", Origin=origin, **more)
        assert reply.status_code == 403
        assert "Access-Control-Allow-Origin" not in reply.headers


def test_our_own_pages_need_no_permission() -> None:
    reply = ask("GET", "/livez", Origin="http://localhost:8000")

    assert reply.status_code == 200
    assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize("origin", ["*", "https://desk.example.org/", "desk.example.org", "null", "https://*.org"])
def test_an_origin_that_is_none_is_refused_as_a_setting(origin: str) -> None:
    with pytest.raises(ConfigError, match="CORS_ORIGINS"):
        load_settings(cors_origins=origin)
