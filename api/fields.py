"""What callers send in words of their own, checked to be what JSON and the database can hold."""

import json
from typing import Any, NoReturn

from pydantic_core import ErrorDetails

TAG_BYTES = 256
METADATA_BYTES = 4096
METADATA_DEPTH = 16
SHOWN_NAME = 64


def read_json(raw: bytes) -> Any:
    """The value, objects naming each field once. ValueError for anything else, numbers that are none among them."""
    try:
        return json.loads(raw.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field {twice[:SHOWN_NAME]!r} comes twice")
    return made


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def checked_text(text: str) -> str:
    """ValueError for what Postgres does not store."""
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


def checked_tag(tag: str) -> str:
    if len(tag.encode("utf-8", "surrogatepass")) > TAG_BYTES:
        raise ValueError(f"is over {TAG_BYTES} bytes")
    return checked_text(tag)


def checked_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """ValueError for what JSONB cannot hold, NUL, infinities and lone surrogates, and for what is too much."""
    if _nested_deeper(value, METADATA_DEPTH):
        raise ValueError(f"must be a JSON object, at most {METADATA_DEPTH} levels deep")
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        size = len(text.encode("utf-8"))
    except ValueError as error:
        raise ValueError("is not valid JSON") from error
    if size > METADATA_BYTES:
        raise ValueError(f"is over {METADATA_BYTES} bytes")
    if "\\u0000" in text.replace("\\\\", ""):
        raise ValueError("holds a NUL character")
    return value


def _nested_deeper(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_nested_deeper(v, levels - 1) for v in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_nested_deeper(v, levels - 1) for v in value)
    return False


def sentences(errors: list[ErrorDetails]) -> str:
    """What is wrong with the fields, each named."""
    return " ".join(map(_sentence, errors[:3]))


def _sentence(error: ErrorDetails) -> str:
    name = ".".join(map(str, error["loc"]))[:SHOWN_NAME]
    if error["type"] == "extra_forbidden":
        return f"The field {name!r} is not known."
    if error["type"] == "value_error":
        said = str(error["ctx"]["error"])
        return f"The field {name!r} {said}." if name else said
    return f"The field {name!r}: {error['msg']}." if name else f"{error['msg']}."
