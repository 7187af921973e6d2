"""A body is refused for its size and its pace, whatever its headers say."""

import asyncio

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from clipwarden.api.guard import Body
from clipwarden.shared.codes import ProblemCode
from clipwarden.shared.errors import ProblemError


def body(chunks: list[bytes], pause_s: float = 0.0, limit: int = 100, stall_s: float = 5.0, **headers: str) -> Body:
    left = iter(chunks)

    async def receive() -> Message:
        await asyncio.sleep(pause_s)
        chunk = next(left, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    return Body(receive, Headers({name.replace("_", "-"): value for name, value in headers.items()}), limit, stall_s)


async def read(source: Body) -> bytes:
    found, more = b"", True
    while more:
        message = await source()
        found, more = found + message["body"], message["more_body"]
    return found


def test_a_body_within_its_bounds_is_handed_on() -> None:
    assert asyncio.run(read(body([b"a" * 60, b"b" * 40]))) == b"a" * 60 + b"b" * 40


def test_a_body_over_the_limit_is_refused_while_it_arrives() -> None:
    with pytest.raises(ProblemError) as refused:
        asyncio.run(read(body([b"a" * 60, b"b" * 41])))
    assert refused.value.code == ProblemCode.TOO_LARGE


def test_a_body_that_stalls_or_drips_is_refused() -> None:
    for slow in (body([b"a"], pause_s=1.0, stall_s=0.05), body([b"a"] * 100, pause_s=0.02, stall_s=0.1)):
        with pytest.raises(ProblemError, match="slowly") as refused:
            asyncio.run(read(slow))
        assert refused.value.code == ProblemCode.BAD_REQUEST


def test_waiting_for_a_client_to_leave_is_not_a_slow_body() -> None:
    async def wait() -> Message:
        source = body([], pause_s=0.1, stall_s=5.0)
        await source()
        source._stall_s = 0.01
        return await source()

    assert asyncio.run(wait())["type"] == "http.request"


@pytest.mark.parametrize(
    ("headers", "much"),
    [
        ({}, False),
        ({"content_length": "5"}, False),
        ({"content_length": "5000000"}, True),
        ({"transfer_encoding": "chunked"}, True),
        ({"content_length": "x"}, False),
    ],
)
def test_only_a_large_rest_is_worth_hanging_up_for(headers: dict[str, str], much: bool) -> None:
    source = body([], **headers)

    assert source.much_to_come is much
    asyncio.run(read(source))
    assert source.much_to_come is False
