"""The OpenAPI document: what the framework cannot infer from the routes' types is said here."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from clipwarden.api.examples import EXAMPLES
from clipwarden.api.guard import is_public
from clipwarden.api.options import Batch, Named, Options
from clipwarden.api.problems import MEDIA_TYPE, STATUS, Problem
from clipwarden.shared.codes import SENTENCES, FailCode, ProblemCode

REF = "#/components/schemas/"

UNSEEN: tuple[type[BaseModel], ...] = (Problem, Named, Batch)
"""What the framework does not know of, because routes read or write it by themselves."""


def _form() -> dict[str, Any]:
    """The form of an upload: the file, and each option as a field."""
    fields: dict[str, Any] = Options.model_json_schema(ref_template=REF + "{model}")["properties"]
    listed = f"{fields['detectors']['description']}; separated by commas"
    named = {"type": "string", "description": listed, "examples": ["forensic_mlp"]}
    file = {"type": "string", "format": "binary", "description": "The media file, with a file name"}
    return {"type": "object", "required": ["file"], "properties": {"file": file, **fields, "detectors": named}}


def _body(**content: dict[str, Any]) -> dict[str, Any]:
    named = {name.replace("_", "/", 1).replace("_", "-"): {"schema": schema} for name, schema in content.items()}
    return {"requestBody": {"required": True, "content": named}}


def _header(name: str, description: str, example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


KEY = _header(
    "Idempotency-Key",
    "Sent again with the same request, within CLIPWARDEN_IDEMPOTENCY_S (a day by default), it is answered with what"
    " the first one opened",
    '"019f2b1c-order-7"',
)
PREFER = _header("Prefer", "`wait=N`: the answer may come once it ended, within N seconds and half a minute", "wait=10")
FORM_ONLY = _body(multipart_form_data=_form()) | {"parameters": [KEY]}
FILE: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
    "parameters": [KEY],
}
SUBMISSION = _body(multipart_form_data=_form(), application_json={"$ref": f"{REF}Named"}) | {
    "parameters": [KEY, PREFER]
}

BATCH = _body(application_json={"$ref": f"{REF}Batch"}) | {"parameters": [KEY]}

EVERYWHERE = (ProblemCode.BAD_REQUEST, ProblemCode.FORBIDDEN, ProblemCode.TOO_LARGE)
KEYED = (ProblemCode.UNAUTHORIZED, ProblemCode.RATE_LIMITED, ProblemCode.UNAVAILABLE)
"""What else a route may answer that is not public."""
UPLOADING = (
    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
    ProblemCode.INVALID,
    ProblemCode.UNAVAILABLE,
    ProblemCode.OVERLOADED,
    ProblemCode.STORAGE_FULL,
)

OPENING = (*UPLOADING, ProblemCode.IDEMPOTENCY_IN_PROGRESS, ProblemCode.IDEMPOTENCY_MISMATCH)

HEADERS = "The headers are too large; send fewer."
SECURITY: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key in the header Authorization"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "A key in a header of its own"},
}
"""Either carries the key; while the installation has no keys, neither is needed."""

Responses = dict[int | str, dict[str, Any]]


def errors(*codes: ProblemCode, public: bool = False) -> Responses:
    """The documented problem responses of a route: these codes and those that every route may answer.

    `public` is a route that needs no key.
    """
    documented: Responses = {431: {"description": HEADERS, "content": _problem(ProblemCode.BAD_REQUEST, HEADERS, 431)}}
    for code in dict.fromkeys((*EVERYWHERE, *(() if public else KEYED), *codes)):
        status = STATUS[code]
        if status in documented:
            documented[status]["description"] += f" {SENTENCES[code]}"
        else:
            documented[status] = {"description": SENTENCES[code], "content": _problem(code, SENTENCES[code])}
    documented[500] = {
        "description": "A fault of the gateway.",
        "content": _problem(FailCode.INTERNAL, "A fault of the gateway."),
    }
    return documented


def finer(status: int, sentence: str) -> Responses:
    """The documented answer under a status that has no code of its own."""
    return {status: {"description": sentence, "content": _problem(ProblemCode.BAD_REQUEST, sentence, status)}}


def _problem(code: str, detail: str, status: int = 0) -> dict[str, Any]:
    example = Problem(
        type=f"urn:clipwarden:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=status or STATUS[code],
        detail=detail,
        instance="/v1/analyses",
        code=code,
        request_id="019f2b1c4a007c3e9d2a0f6c1b7e5a10",
    )
    return {MEDIA_TYPE: {"schema": {"$ref": f"{REF}Problem"}, "example": example.model_dump()}}


def headers(**said: str) -> dict[str, Any]:
    """The documentation of a response's headers; underscores stand for hyphens."""
    return {
        "headers": {
            name.replace("_", "-"): {"description": text, "schema": {"type": "string"}} for name, text in said.items()
        }
    }


def document(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The generator that replaces the framework's own: with our problem schema, without its validation errors."""

    def generate() -> dict[str, Any]:
        if not app.openapi_schema:
            made = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
            )
            schemas = made["components"]["schemas"]
            made["components"]["securitySchemes"] = SECURITY
            made["security"] = [*({name: []} for name in SECURITY), {}]
            for model in UNSEEN:
                schema = model.model_json_schema(ref_template=REF + "{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            for path, methods in made["paths"].items():
                for method, operation in methods.items():
                    operation.update({"security": []} if is_public(path) else {})
                    _drop_inferred_422(operation["responses"])
                    _add_example(operation["responses"], EXAMPLES.get((path, method), {}))
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            app.openapi_schema = made
        return app.openapi_schema

    return generate


def _drop_inferred_422(responses: dict[str, Any]) -> None:
    """The framework adds a 422 of its own shape to every route with a parameter; ours answers none of them so."""
    if "application/json" in responses.get("422", {}).get("content", {}):
        del responses["422"]


def _add_example(responses: dict[str, Any], example: dict[str, Any]) -> None:
    """Examples are added last, because the framework drops every null from what it is given."""
    for status, response in responses.items():
        if status.startswith("2") and "application/json" in response.get("content", {}):
            response["content"]["application/json"]["example"] = example
