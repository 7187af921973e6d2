"""The OpenAPI document: what the framework cannot infer from the routes' types is said here."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from clipwarden.api.examples import EXAMPLES
from clipwarden.api.fields import METADATA_BYTES, TAG_BYTES
from clipwarden.api.problems import MEDIA_TYPE, STATUS, Problem
from clipwarden.shared.codes import SENTENCES, FailCode, ProblemCode

REF = "#/components/schemas/"

FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "The media file, with a file name"},
        "tag": {"type": "string", "description": f"Echoed back; at most {TAG_BYTES} bytes of UTF-8"},
        "metadata": {
            "type": "object",
            "description": f"Echoed back; a JSON object of at most {METADATA_BYTES} bytes",
            "additionalProperties": True,
        },
    },
}
UPLOAD: dict[str, Any] = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}}

EVERYWHERE = (ProblemCode.BAD_REQUEST, ProblemCode.FORBIDDEN, ProblemCode.TOO_LARGE)
UPLOADING = (
    ProblemCode.UNSUPPORTED_MEDIA_TYPE,
    ProblemCode.INVALID,
    ProblemCode.UNAVAILABLE,
    ProblemCode.STORAGE_FULL,
)

Responses = dict[int | str, dict[str, Any]]


def errors(*codes: ProblemCode) -> Responses:
    """The documented problem responses of a route: these codes and those that every route may answer."""
    documented: Responses = {}
    for code in (*EVERYWHERE, *codes):
        documented[STATUS[code]] = {"description": SENTENCES[code], "content": _problem(code, SENTENCES[code])}
    documented[500] = {
        "description": "A fault of the gateway.",
        "content": _problem(FailCode.INTERNAL, "A fault of the gateway."),
    }
    return documented


def _problem(code: str, detail: str) -> dict[str, Any]:
    example = Problem(
        type=f"urn:clipwarden:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=STATUS[code],
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
            schemas["Problem"] = Problem.model_json_schema(ref_template=REF + "{model}")
            for path, methods in made["paths"].items():
                for method, operation in methods.items():
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
        if status.startswith("2"):
            response["content"]["application/json"]["example"] = example
