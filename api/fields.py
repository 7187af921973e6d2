"""The small fields a caller may send beside a file and gets back: a tag and a JSON object of metadata."""

import json
from typing import Any

from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError

TAG_BYTES = 256
METADATA_BYTES = 4096
METADATA_DEPTH = 16


def parse_tag(raw: bytes | None) -> str | None:
    """The tag as text. Raises ProblemError if it is not UTF-8 or holds NUL, which Postgres does not store."""
    if not raw:
        return None
    try:
        tag = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProblemError(ProblemCode.INVALID, "The field 'tag' is not UTF-8 text.") from error
    if "\0" in tag:
        raise ProblemError(ProblemCode.INVALID, "The field 'tag' holds a NUL character.")
    return tag


def _nested_deeper(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        return levels == 0 or any(_nested_deeper(v, levels - 1) for v in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_nested_deeper(v, levels - 1) for v in value)
    return False


def parse_metadata(raw: bytes | None) -> dict[str, Any]:
    """The metadata object. Raises ProblemError for what JSONB cannot hold: no object, NUL, NaN, lone surrogates."""
    if not raw:
        return {}
    try:
        value = json.loads(raw)
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise ProblemError(ProblemCode.INVALID, "The field 'metadata' is not valid JSON.") from error
    if not isinstance(value, dict) or _nested_deeper(value, METADATA_DEPTH):
        raise ProblemError(
            ProblemCode.INVALID, f"The field 'metadata' must be a JSON object, at most {METADATA_DEPTH} levels deep."
        )
    if "\\u0000" in text.replace("\\\\", ""):
        raise ProblemError(ProblemCode.INVALID, "The field 'metadata' holds a NUL character.")
    return value
