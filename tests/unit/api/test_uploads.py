"""The form reader, whatever the pieces in which a body arrives."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipwarden.api.receiving import FormReader
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError

BOUNDARY = b"frontier"


def body(content: bytes, filename: str = "a.mp4") -> bytes:
    head = f'Content-Disposition: form-data; name="file"; filename="{filename}"'.encode()
    tag = b'Content-Disposition: form-data; name="tag"\r\n\r\nmine'
    return b"".join(
        (b"--frontier\r\n", head, b"\r\n\r\n", content, b"\r\n--frontier\r\n", tag, b"\r\n--frontier--\r\n")
    )


@given(content=st.binary(min_size=1, max_size=300), cuts=st.lists(st.integers(0, 500), max_size=8))
def test_the_files_bytes_survive_any_cutting(content: bytes, cuts: list[int]) -> None:
    whole = body(content)
    reader = FormReader(BOUNDARY, 1000)
    bounds = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]

    taken = b""
    for start, end in itertools.pairwise(bounds):
        reader.feed(whole[start:end])
        taken += b"".join(reader.take())
    reader.finish()

    assert taken == content
    assert reader.values == {"tag": b"mine"}


@pytest.mark.parametrize("lookalike", [b"\r\n--frontie", b"\r\n--frontierx", b"--frontier--", b"\r\r\n--f"])
def test_bytes_that_look_like_a_boundary_stay_in_the_file(lookalike: bytes) -> None:
    content = b"a" + lookalike + b"b"
    reader = FormReader(BOUNDARY, 1000)
    for byte in body(content):
        reader.feed(bytes([byte]))
    reader.finish()

    assert b"".join(reader.take()) == content


def test_the_files_bytes_are_not_copied() -> None:
    sent = body(b"x" * 100)
    reader = FormReader(BOUNDARY, 1000)
    reader.feed(sent)

    assert all(piece.obj is sent for piece in reader.take())


def test_the_limit_is_the_files_own_size() -> None:
    exact = FormReader(BOUNDARY, 10)
    exact.feed(body(b"x" * 10))
    exact.finish()

    with pytest.raises(ProblemError) as refused:
        FormReader(BOUNDARY, 10).feed(body(b"x" * 11))
    assert refused.value.code == ProblemCode.TOO_LARGE
