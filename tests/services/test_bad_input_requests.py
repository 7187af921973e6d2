"""Requests that mean harm on any route: wrong lengths, SQL in every field, and pages of other origins."""

import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import create_engine, inspect, text

from clipwarden.api.listing import Filters
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Store

SQL = "'; DROP TABLE stages CASCADE; --\" OR 1=1 \\ %s :tag $1"
FORM = "Content-Type: multipart/form-data; boundary=b"
WRONG_LENGTHS = [
    "Content-Length: -1",
    "Content-Length: +5",
    "Content-Length: 5, 5",
    "Content-Length: 0x5",
    "Content-Length: 5\r\nContent-Length: 6",
    "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "Content-Length: 99999999999999999999999999",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello",
]


def status_of(url: str, head: str) -> int:
    """The status of the answer to a request that is written by hand."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), 10) as connection:
        connection.sendall(f"POST /v1/analyses HTTP/1.1\r\nHost: localhost\r\n{FORM}\r\n{head}\r\n\r\nhello".encode())
        return int(connection.recv(65536).split()[1])


@pytest.mark.parametrize("head", WRONG_LENGTHS)
def test_a_length_that_cannot_be_true_is_refused(gateway_url: str, store: Store, head: str) -> None:
    assert 400 <= status_of(gateway_url, head) < 500
    assert store.due(everything=True) == []


@pytest.fixture
def tables(gateway_settings: Settings) -> Iterator[set[str]]:
    """The tables, which the test must leave as they are."""
    engine = create_engine(gateway_settings.database_url)
    before = set(inspect(engine).get_table_names())
    yield before
    assert set(inspect(engine).get_table_names()) == before
    with engine.connect() as c:
        assert c.scalar(text("SELECT count(*) FROM analyses")) == c.scalar(text("SELECT count(*) FROM stages"))
    engine.dispose()


@pytest.mark.usefixtures("tables")
def test_sql_in_a_field_is_a_text_like_any_other(gateway: httpx.Client) -> None:
    said = {"tag": SQL, "metadata": {SQL: SQL}}
    named = gateway.post("/v1/analyses", json={"url": f"https://a.example/{quote(SQL)}", **said}).json()
    sent = gateway.put(f"/v1/uploads/{quote(SQL, safe='')}", content=b"x").json()
    batch = gateway.post("/v1/batches", json={"items": [{"upload": sent["id"]} | said], "tag": SQL}).json()
    opinion = {"label": "real", "category": "other", "comment": SQL}
    kept = gateway.post(f"/v1/analyses/{named['id']}/feedback", json=opinion, headers={"Idempotency-Key": '"\'; --"'})

    assert (named["tag"], named["metadata"]) == (SQL, {SQL: SQL})
    assert batch["tag"] == SQL
    assert kept.json()["comment"] == SQL
    found = gateway.get("/v1/analyses", params={"tag": SQL}).json()["analyses"]
    assert {each["id"] for each in found} == {named["id"], batch["items"][0]["id"]}


@pytest.mark.usefixtures("tables")
def test_sql_where_no_text_is_wanted_is_refused(gateway: httpx.Client) -> None:
    filters = [name for name in Filters.model_fields if name != "tag"]
    options = [{name: SQL} for name in ("detectors", "policy", "lane", "callback_url", "reuse", "upload")]
    refused = [gateway.get("/v1/analyses", params={name: SQL}) for name in filters]
    refused += [gateway.post("/v1/analyses", json={"url": "https://a.example/", **each}) for each in options]
    refused += [gateway.post("/v1/analyses", json={"url": SQL}), gateway.post("/v1/batches", json={"items": SQL})]
    assert [reply.status_code for reply in refused] == [422] * len(refused)

    paths = [path for path in gateway.get("/openapi.json").json()["paths"] if "{" in path and "filename" not in path]
    for path in paths:
        wrong = path.replace("{", f"{quote(SQL, safe='')}{{").format_map(_Nothing())
        for method in ("GET", "POST", "DELETE"):
            assert gateway.request(method, wrong, json={}).status_code in {404, 405, 422}, (method, path)


class _Nothing(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return ""


CROSS_SITE: list[dict[str, str]] = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Host": "evil.example"},
]


@pytest.mark.parametrize("headers", CROSS_SITE, ids=lambda h: "-".join(h.values()))
def test_a_page_of_another_origin_can_do_nothing_here(
    gateway: httpx.Client, store: Store, submitted: UUID, headers: dict[str, str]
) -> None:
    paths: dict[str, Any] = gateway.get("/openapi.json").json()["paths"]
    acting = [(path, method) for path, methods in paths.items() for method in methods if method != "get"]
    assert len(acting) > 10
    for path, method in acting:
        named = path.replace("{analysis_id}", str(submitted)).replace("{filename}", "a.mp4")
        named = named.replace("{", "").replace("}", str(uuid4()))
        files = {"file": ("a.mp4", b"x")} if path in {"/v1/analyses", "/analyze"} else None
        reply = gateway.request(method, named, files=files, headers=headers)
        assert (reply.status_code, reply.json()["code"]) == (403, "forbidden"), (path, method)
        assert "Access-Control-Allow-Origin" not in reply.headers
    assert [due.analysis_id for due in store.due(everything=True)] == [submitted]
