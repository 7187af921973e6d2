"""What the clients repeat, how long they wait for it, and that nothing is opened twice by it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from clipwarden.api.client import AsyncClient, Client
from clipwarden.api.examples import ANALYSIS, LISTED
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ClipwardenError, ConfigError, ProblemError, Unavailable
from clipwarden.shared.store import Store, Wanted
from clipwarden.shared.tables import DEFAULT_TENANT
from tests.listeners import Answer, Listener, answer, listening

Ask = Callable[..., Any]


def ask(url: str, method: str, *arguments: Any) -> Any:
    with Client(url) as client:
        return getattr(client, method)(*arguments)


def ask_later(url: str, method: str, *arguments: Any) -> Any:
    async def asked() -> Any:
        async with AsyncClient(url) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(asked())


@pytest.fixture(params=[ask, ask_later])
def either(request: pytest.FixtureRequest) -> Any:
    """Calls a method of a client of one kind or the other."""
    return request.param


@pytest.fixture
def listener() -> Iterator[Listener]:
    with listening() as found:
        yield found


def refusal(status: int, code: str, **headers: str) -> Answer:
    body = httpx.Response(status, json={"code": code, "detail": "Not now."}).content
    return answer(status, body, **headers)


def told(document: Any) -> Answer:
    return answer(200, httpx.Response(200, json=document).content)


def test_what_is_put_off_is_asked_again_when_the_gateway_says(listener: Listener, either: Ask) -> None:
    for status, code in ((429, "rate_limited"), (503, "overloaded"), (409, "idempotency_in_progress")):
        listener.answers = [refusal(status, code, Retry_After="1"), told(ANALYSIS)]
        started = time.monotonic()

        assert str(either(listener.url, "rerun", ANALYSIS["id"]).id) == ANALYSIS["id"]

        assert time.monotonic() - started >= 1
        first, second = (each.headers["idempotency-key"] for each in listener.received[-2:])
        assert first == second


def test_what_will_not_pass_is_told_at_once(listener: Listener, either: Ask) -> None:
    for status, code in ((409, "conflict"), (422, "invalid"), (507, "storage_full"), (429, "rate_limited")):
        listener.received.clear()
        listener.answers = [refusal(status, code, **({"Retry_After": "3600"} if status in {429, 507} else {}))]

        with pytest.raises(ProblemError, match="Not now") as refused:
            either(listener.url, "cancel", ANALYSIS["id"])

        assert (refused.value.code, len(listener.received)) == (code, 1)


def test_a_gateway_that_fails_for_good_is_given_up(
    listener: Listener, either: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipwarden.api.client.answers.PAUSES_S", (0.01, 0.01))
    listener.answers = [answer(502, b"<html>")]

    with pytest.raises(Unavailable, match="answered 502"):
        either(listener.url, "detectors")

    assert len(listener.received) == 3


def test_a_file_whose_answer_was_lost_is_sent_again_and_examined_once(
    gateway_url: str, store: Store, clip_file: Path, listener: Listener, either: Ask
) -> None:
    def forward(handler: BaseHTTPRequestHandler, deaf: bool) -> None:
        sent = listener.received[-1]
        headers = {name: sent.headers[name] for name in ("content-type", "idempotency-key")}
        reply = httpx.post(gateway_url + sent.path, content=sent.body, headers=headers, trust_env=False)
        if deaf:
            handler.close_connection = True
        else:
            answer(reply.status_code, reply.content)(handler)

    listener.answers = [lambda h: forward(h, deaf=True), lambda h: forward(h, deaf=False)]

    view = either(listener.url, "submit", clip_file)

    (opened,) = store.listed(Wanted(DEFAULT_TENANT, 10))
    assert (opened.id, opened.filename, view.input.bytes) == (view.id, "clip.mp4", clip_file.stat().st_size)


def test_a_gateway_that_is_not_there_is_named(either: Ask) -> None:
    with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9 does not answer"):
        either("http://127.0.0.1:9", "detectors")


def test_an_answer_of_something_else_is_no_answer(listener: Listener, either: Ask) -> None:
    for other in (answer(200, b"<html>"), answer(302, Location="/login"), told(LISTED)):
        listener.answers = [other]
        with pytest.raises(Unavailable, match="not as a Clipwarden gateway"):
            either(listener.url, "get", uuid4())
        with pytest.raises(Unavailable, match="not as a Clipwarden gateway"):
            either(listener.url, "report", uuid4())


def test_a_file_that_cannot_be_read_is_the_callers_to_mend(listener: Listener, either: Ask, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.mp4 cannot be read: No such file"):
        either(listener.url, "submit", tmp_path / "none.mp4")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        either(listener.url, "submit", tmp_path)
    with pytest.raises(ConfigError, match="not an analysis id"):
        either(listener.url, "get", "../detectors")


def test_an_address_that_names_no_gateway_is_refused() -> None:
    for kind in (Client, AsyncClient):
        for url in ("ftp://here", "here:8000", "http://", "http://[::1"):
            with pytest.raises(ConfigError, match="not the address of a gateway"):
                kind(url)


def test_a_limit_is_the_callers_error_not_the_gateways(gateway_url: str, either: Ask) -> None:
    with pytest.raises(ClipwardenError, match="1 to 1000 files, not 0"):
        either(gateway_url, "submit_batch", [])
    with pytest.raises(ProblemError) as unknown:
        either(gateway_url, "batch", uuid4())
    assert unknown.value.code == ProblemCode.NOT_FOUND
