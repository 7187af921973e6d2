"""Options: what a form says is what JSON says, and nothing passes that the database could not hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipwarden.api.fields import METADATA_BYTES, METADATA_DEPTH, checked_metadata, read_json
from clipwarden.api.idempotency import KEY, fingerprint
from clipwarden.api.options import Options, check_choice, from_form, from_json
from clipwarden.api.preferences import WAIT
from clipwarden.api.uploads import SHA256_MEMBER
from clipwarden.shared.contracts import Manifest
from clipwarden.shared.errors import ProblemError

URL = {"url": "https://a.example/"}
WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS, lambda inner: st.lists(inner, max_size=3), max_leaves=8
)


@given(tag=WORDS, metadata=st.dictionaries(WORDS, VALUES, max_size=4), bulk=st.booleans(), reuse=st.booleans())
def test_a_form_and_json_ask_for_the_same(tag: str, metadata: dict[str, object], bulk: bool, reuse: bool) -> None:
    asked = {"metadata": metadata, "lane": "bulk" if bulk else "realtime", "reuse": reuse}
    asked |= {"tag": tag} if tag else {}
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in asked.items()}

    told = from_json(json.loads(json.dumps(asked | URL))).options

    assert from_form({name: text.encode() for name, text in form.items()}) == told
    assert told.metadata == metadata
    assert type(told) is Options


def test_detectors_in_any_order_are_the_same_choice() -> None:
    named = from_json(URL | {"detectors": ["b", "a", "b"]})

    assert named.detectors == from_form({"detectors": b"a,b"}).detectors == ("a", "b")


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_an_error_of_the_value(raw: bytes) -> None:
    try:
        value = read_json(raw)
    except ValueError:
        return
    assert json.loads(raw.decode()) == value


@pytest.mark.parametrize(
    "raw", [b'{"a": 1, "a": 2}', b'{"b": {"a": 1, "a": 1}}', b"[NaN]", b"-Infinity", b"[" * 100_000, b"\xff", b"{}x"]
)
def test_what_is_not_quite_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_json(raw)


def nested(levels: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_metadata_has_bounds_in_depth_and_size() -> None:
    assert checked_metadata(nested(METADATA_DEPTH))
    full = {"a": "ü" * ((METADATA_BYTES - len('{"a":""}')) // 2)}
    assert checked_metadata(full) is full
    for value in (nested(METADATA_DEPTH + 1), {"a": full}, {"a": float("inf")}, {"a": "\0"}, {"a": "\ud800"}):
        with pytest.raises(ValueError, match=r"."):
            checked_metadata(value)


@pytest.mark.parametrize("name", ["tag", "policy", "lane", "callback_url", "detectors", "reuse"])
def test_a_field_of_a_form_that_is_no_text_is_named(name: str) -> None:
    with pytest.raises(ProblemError, match=name):
        from_form({name: b"\xff"})


def test_fingerprints_differ_where_requests_do() -> None:
    bodies = [("analysis", None, "a", {"tag": None}), ("analysis", "a", None, {"tag": None}), ("batch", "a")]

    assert len({fingerprint(*body) for body in bodies}) == 3
    assert fingerprint("a", {"x": 1, "y": 2}) == fingerprint("a", {"y": 2, "x": 1})


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=5", "5"),
        ("respond-async, wait=10", "10"),
        ('return=minimal; foo, Wait = "7"', "7"),
        ("await=5", None),
        ("wait=5s", None),
        ("wait", None),
    ],
)
def test_a_wait_is_read_from_a_preference(header: str, seconds: str | None) -> None:
    found = WAIT.search(header)

    assert (found and found[1]) == seconds


@pytest.mark.parametrize("key", ['"a b"', "a-b", '"' + "k" * 255 + '"'])
def test_a_key_is_a_string_quoted_or_not(key: str) -> None:
    assert KEY.fullmatch(key)


@pytest.mark.parametrize(
    ("header", "found"),
    [("sha-256=:AA==:", "AA=="), ("md5=:x:, sha-256=:AA==:;q=1", "AA=="), ("xsha-256=:AA==:", None)],
)
def test_a_digest_is_found_among_others(header: str, found: str | None) -> None:
    match = SHA256_MEMBER.search(header)

    assert (match and match[1]) == found


def test_a_choice_that_cannot_be_had_is_told_where_to_find_one_that_can() -> None:
    manifest = Manifest(detectors=(), faces="mtcnn", fusion=f"sha256:{'0' * 64}", policies=("balanced",))

    with pytest.raises(ProblemError, match="'policy' names bold, not among the policies that GET /v1/detectors lists"):
        check_choice(from_json(URL | {"policy": "bold"}), manifest)
    with pytest.raises(ProblemError, match="'detectors' names lipfd, not among what GET /v1/detectors lists as ready"):
        check_choice(from_json(URL | {"detectors": ["lipfd"]}), manifest)
