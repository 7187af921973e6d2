"""What the gateway answers is what its OpenAPI document says, for successes and for problems."""

import json
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


def part_of(client: httpx.Client, analysis_id: UUID, span: str) -> httpx.Response:
    return client.get(f"/v1/analyses/{analysis_id}/media", headers={"Range": f"bytes={span}"})


ANNOUNCED = {"filename": "a.mp4", "bytes": 1, "sha256": "0" * 64}
COMPLETE = "/v1/uploads/{upload_id}/complete"
BATCH = "/v1/batches/{batch_id}"
DELIVERY = "/v1/webhooks/deliveries/{delivery_id}"
ONE = "/v1/analyses/{analysis_id}"
OPINION = {"label": "real", "category": "false_positive"}
SHOWN = "/v1/analyses/{analysis_id}/evidence/{branch}/{detector}/{name}"
SPOKEN = {"application/json", "application/problem+json"}
CALLS: list[tuple[str, str, Call, int]] = [
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", files={"file": ("a", b"x")}), 202),
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", files={"file": ("a", b"")}), 422),
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", content=b"x"), 415),
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", headers={"Host": "evil"}), 403),
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", files={"file": ("a", b"x" * 2_000_000)}), 413),
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", json={"url": "https://a.example/a.mp4"}), 202),
    ("/v1/analyses", "post", lambda c, _: c.post("/v1/analyses", json={"upload": str(uuid4())}), 422),
    ("/v1/analyses", "get", lambda c, _: c.get("/v1/analyses?state=queued&limit=1"), 200),
    ("/v1/analyses", "get", lambda c, _: c.get("/v1/analyses?limit=201"), 422),
    ("/v1/analyses/{analysis_id}", "get", lambda c, i: c.get(f"/v1/analyses/{i}"), 200),
    ("/v1/analyses/{analysis_id}", "get", lambda c, _: c.get(f"/v1/analyses/{uuid4()}"), 404),
    ("/v1/analyses/{analysis_id}/media", "get", lambda c, i: c.get(f"/v1/analyses/{i}/media"), 200),
    ("/v1/analyses/{analysis_id}/media", "get", lambda c, i: part_of(c, i, "0-9"), 206),
    ("/v1/analyses/{analysis_id}/media", "get", lambda c, i: part_of(c, i, "9999999-"), 416),
    (f"{ONE}/report", "get", lambda c, i: c.get(f"/v1/analyses/{i}/report"), 409),
    (f"{ONE}/report", "get", lambda c, _: c.get(f"/v1/analyses/{uuid4()}/report"), 404),
    (SHOWN, "get", lambda c, i: c.get(f"/v1/analyses/{i}/evidence/visual/forensic_mlp/face-0.jpg"), 404),
    ("/v1/analyses/{analysis_id}/events", "get", lambda c, _: c.get(f"/v1/analyses/{uuid4()}/events"), 404),
    ("/v1/webhooks/deliveries", "get", lambda c, _: c.get("/v1/webhooks/deliveries?status=open&limit=1"), 200),
    ("/v1/webhooks/deliveries", "get", lambda c, _: c.get("/v1/webhooks/deliveries?event=other"), 422),
    (DELIVERY, "get", lambda c, _: c.get(f"/v1/webhooks/deliveries/{uuid4()}"), 404),
    (f"{DELIVERY}/replay", "post", lambda c, _: c.post(f"/v1/webhooks/deliveries/{uuid4()}/replay"), 404),
    ("/v1/webhooks/test", "post", lambda c, _: c.post("/v1/webhooks/test", json={"url": "https://a.example"}), 202),
    ("/v1/webhooks/test", "post", lambda c, _: c.post("/v1/webhooks/test", json={"url": "http://10.0.0.1"}), 422),
    ("/v1/webhooks/secrets", "get", lambda c, _: c.get("/v1/webhooks/secrets"), 200),
    ("/v1/webhooks/secrets/rotate", "post", lambda c, _: c.post("/v1/webhooks/secrets/rotate"), 200),
    (f"{ONE}/verdict", "get", lambda c, i: c.get(f"/v1/analyses/{i}/verdict"), 409),
    (f"{ONE}/feedback", "get", lambda c, i: c.get(f"/v1/analyses/{i}/feedback"), 200),
    (f"{ONE}/feedback", "post", lambda c, i: c.post(f"/v1/analyses/{i}/feedback", json=OPINION), 201),
    (f"{ONE}/feedback", "post", lambda c, i: c.post(f"/v1/analyses/{i}/feedback", json={}), 422),
    (f"{ONE}/rerun", "post", lambda c, i: c.post(f"/v1/analyses/{i}/rerun"), 409),
    (f"{ONE}/cancel", "post", lambda c, _: c.post(f"/v1/analyses/{uuid4()}/cancel"), 404),
    (ONE, "delete", lambda c, _: c.delete(f"/v1/analyses/{uuid4()}"), 404),
    (f"{ONE}/views/siglip-lstm", "get", lambda c, i: c.get(f"/v1/analyses/{i}/views/siglip-lstm"), 404),
    (f"{ONE}/views/lipfd", "get", lambda c, i: c.get(f"/v1/analyses/{i}/views/lipfd"), 404),
    (f"{ONE}/views/lipfd-fixed", "get", lambda c, i: c.get(f"/v1/analyses/{i}/views/lipfd-fixed"), 404),
    ("/v1/uploads/{filename}", "put", lambda c, _: c.put("/v1/uploads/a.mp4", content=b"x"), 201),
    ("/v1/uploads/{filename}", "put", lambda c, _: c.put("/v1/uploads/a.mp4"), 422),
    (
        "/v1/batches",
        "post",
        lambda c, _: c.post("/v1/batches", json={"items": [{"url": "https://a.example/"}, 7]}),
        202,
    ),
    ("/v1/uploads", "post", lambda c, _: c.post("/v1/uploads", json=ANNOUNCED), 409),
    ("/v1/uploads", "post", lambda c, _: c.post("/v1/uploads", json=ANNOUNCED | {"bytes": 0}), 422),
    (COMPLETE, "post", lambda c, _: c.post(f"/v1/uploads/{uuid4()}/complete"), 404),
    ("/v1/batches", "post", lambda c, _: c.post("/v1/batches", json={"items": []}), 422),
    ("/v1/batches", "post", lambda c, _: c.post("/v1/batches", content=b"x"), 415),
    (BATCH, "get", lambda c, _: c.get(f"/v1/batches/{uuid4()}"), 404),
    (BATCH, "get", lambda c, _: c.get(f"/v1/batches/{uuid4()}?limit=0"), 422),
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
    documented = document["paths"][path][method]["responses"][str(reply.status_code)].get("content", {})
    media_type = reply.headers.get("Content-Type", "").partition(";")[0]
    if not documented:
        assert reply.content == b""
        return
    assert media_type in documented or "*/*" in documented
    if media_type not in SPOKEN:
        return
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
        for media_type, content in response.get("content", {}).items():
            if media_type in SPOKEN:
                schema = content["schema"] | {"components": document["components"]}
                Draft202012Validator(schema).validate(content["example"])


@pytest.mark.parametrize("path", ["/v1/analyses", "/analyze"])
def test_the_upload_form_is_documented(gateway: httpx.Client, path: str, clip_file: Path) -> None:
    body = gateway.get("/openapi.json").json()["paths"][path]["post"]["requestBody"]

    form = body["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]
    examples = {name: said["examples"][0] for name, said in form["properties"].items() if name != "file"}
    fields = {name: value if isinstance(value, str) else json.dumps(value) for name, value in examples.items()}
    assert len(fields) == 7
    assert gateway.post(path, data=fields, files={"file": ("a", clip_file.read_bytes())}).is_success


def test_the_documented_json_is_taken(gateway: httpx.Client) -> None:
    schema = gateway.get("/openapi.json").json()["components"]["schemas"]["Named"]["properties"]

    body = {name: said["examples"][0] for name, said in schema.items() if name != "upload"}
    assert len(body) == 8
    assert gateway.post("/v1/analyses", json=body).status_code == 202


def _references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(_references, value.values()))
    return set().union(*map(_references, value)) if isinstance(value, list) else set()
