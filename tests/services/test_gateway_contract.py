"""What the gateway answers is what its OpenAPI document says, for successes and for problems."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from clipwarden.api.openapi import REF
from clipwarden.shared.codes import RejectCode
from clipwarden.shared.contracts import Stage
from clipwarden.shared.settings import Settings
from clipwarden.shared.store import Granted, Store
from tests.services.conftest import Serve

Call = Callable[[httpx.Client, UUID], httpx.Response]

CALLS: list[tuple[str, str, Call, int]] = [
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", files={"file": ("a", b"x")}), 202),
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", files={"file": ("a", b"")}), 422),
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", content=b"x"), 415),
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", headers={"Host": "evil"}), 403),
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", files={"file": ("a", b"x" * 2_000_000)}), 413),
    ("/v1/analyses/{analysis_id}", "get", lambda c, i: c.get(f"/v1/analyses/{i}"), 200),
    ("/v1/analyses/{analysis_id}", "get", lambda c, _: c.get(f"/v1/analyses/{uuid4()}"), 404),
    ("/v1/detectors", "get", lambda c, _: c.get("/v1/detectors"), 200),
    ("/analyze", "post", lambda c, _: c.post("/analyze", files={"file": ("a", b"x")}), 202),
    ("/analyze", "post", lambda c, _: c.post("/analyze", files={"clip": ("a", b"x")}), 422),
    ("/status/{analysis_id}", "get", lambda c, i: c.get(f"/status/{i}"), 200),
    ("/status/{analysis_id}", "get", lambda c, _: c.get("/status/x"), 404),
    ("/", "get", lambda c, _: c.get("/"), 200),
    ("/livez", "get", lambda c, _: c.get("/livez"), 200),
    ("/readyz", "get", lambda c, _: c.get("/readyz"), 200),
]


def check(document: dict[str, Any], path: str, method: str, reply: httpx.Response) -> None:
    """The reply's status, media type and body must be documented for this operation."""
    documented = document["paths"][path][method]["responses"][str(reply.status_code)]["content"]
    media_type = reply.headers["Content-Type"].partition(";")[0]
    assert media_type in documented
    schema = documented[media_type]["schema"] | {"components": document["components"]}
    Draft202012Validator(schema).validate(reply.json())


def test_every_answer_is_a_documented_one(gateway: httpx.Client, store: Store, submitted: UUID) -> None:
    document = gateway.get("/openapi.json").json()

    for path, method, call, status in CALLS:
        reply = call(gateway, submitted)
        assert reply.status_code == status, (path, reply.text)
        check(document, path, method, reply)

    granted = store.claim(submitted, Stage.INGEST, 60, 3, "test")
    assert isinstance(granted, Granted)
    assert store.end_ingest(submitted, granted.token, RejectCode.TRUNCATED, "The file is cut off.")
    for path in ("/v1/analyses/{analysis_id}", "/status/{analysis_id}"):
        check(document, path, "get", gateway.get(path.format(analysis_id=submitted)))


def test_an_unready_gateway_answers_as_documented(serve: Serve, settings: Settings) -> None:
    with serve(settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
        document = client.get("/openapi.json").json()
        check(document, "/v1/detectors", "get", client.get("/v1/detectors"))
        check(document, "/v1/analyses", "post", client.post("/v1/analyses", files={"file": ("a", b"x")}))


def test_the_document_is_whole(gateway: httpx.Client) -> None:
    document = gateway.get("/openapi.json").json()
    schemas = document["components"]["schemas"]

    assert set(document["paths"]) == {path for path, *_ in CALLS}
    assert _references(document) <= {REF + name for name in schemas}
    assert "HTTPValidationError" not in schemas
    for schema in schemas.values():
        validator_for(schema, Draft202012Validator).check_schema(schema)


def test_every_documented_example_fits_its_schema(gateway: httpx.Client) -> None:
    document = gateway.get("/openapi.json").json()
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]

    for response in (response for operation in operations for response in operation["responses"].values()):
        (content,) = response["content"].values()
        schema = content["schema"] | {"components": document["components"]}
        Draft202012Validator(schema).validate(content["example"])


@pytest.mark.parametrize("path", ["/v1/analyses", "/analyze"])
def test_the_upload_form_is_documented(gateway: httpx.Client, path: str, clip_file: Path) -> None:
    body = gateway.get("/openapi.json").json()["paths"][path]["post"]["requestBody"]

    form = body["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]
    fields = dict.fromkeys(form["properties"].keys() - {"file"}, "{}")
    assert gateway.post(path, data=fields, files={"file": ("a", clip_file.read_bytes())}).is_success


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(_references, value.values()))
    return set().union(*map(_references, value)) if isinstance(value, list) else set()
