"""Requests that nobody would write, made from the OpenAPI document: no answer is a fault, all are as documented.

Half of them keep to the document and half break it; they name things that exist, in the long run half of them do not.
`SEED` makes them the same in every run.
"""

import re
from collections import Counter
from contextlib import suppress
from typing import Final
from uuid import UUID

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import Case
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.generation import GenerationMode

from clipwarden.api.preferences import WAIT
from clipwarden.shared.blobs import LocalBlobs
from clipwarden.shared.store import Store
from tests import analyses

SEED: Final = 20261121
REQUESTS, REQUESTS_LONG = 2, 150
"""Of each kind, for each route."""
PARAMETERS = re.compile(r"{(\w+)}")

load_all_checks()
PROMISES = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


@pytest.fixture
def existing(gateway: httpx.Client, store: Store, blobs: LocalBlobs) -> dict[str, str]:
    """An analysis that is done, and the rest that paths may name."""
    kept = gateway.put("/v1/uploads/a.mp4", content=b"x").json()
    items = {"items": [{"upload": kept["id"], "callback_url": "https://a.example/"}, {}]}
    batch = gateway.post("/v1/batches", json=items).json()
    analysis = batch["items"][0]["id"]
    analyses.finish(store, blobs, UUID(analysis))
    delivery = gateway.get("/v1/webhooks/deliveries").json()["deliveries"][0]["id"]
    return {
        "analysis_id": analysis,
        "batch_id": batch["id"],
        "upload_id": kept["id"],
        "delivery_id": delivery,
        "branch": "visual",
        "detector": "forensic_mlp",
        "name": "face-0.jpg",
        "filename": "../ü %.mp4",
    }


def ask(cases: SearchStrategy[Case], url: str, requests: int) -> Counter[int]:
    """Make so many requests; how often each status came."""
    seen = Counter[int]()

    @seed(SEED)
    @settings(
        max_examples=requests,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    @given(cases)
    def once(case: Case) -> None:
        for name in [name for name in case.headers if WAIT.search(str(case.headers[name]))]:
            del case.headers[name]
        reply = case.call(base_url=url, timeout=30)
        seen[reply.status_code] += 1
        case.validate_response(reply, checks=PROMISES)

    once()
    return seen


def answers(gateway: httpx.Client, existing: dict[str, str], requests: int) -> Counter[int]:
    """How often each status came, all routes and all ways to ask taken together."""
    url, seen = str(gateway.base_url), Counter[int]()
    document = schemathesis.openapi.from_dict(gateway.get("/openapi.json").json())
    operations = [found.ok() for found in document.get_all_operations()]
    for operation in sorted(operations, key=lambda each: each.method == "delete"):
        known = {name: existing[name] for name in PARAMETERS.findall(operation.path) if name in existing}
        ways = [{"path_parameters": known}] if known else [{}]
        for named in (*ways, {}) if known and requests > REQUESTS else ways:
            seen += ask(operation.as_strategy(GenerationMode.POSITIVE, **named), url, requests)
            with suppress(Unsatisfiable):  # what takes nothing cannot be asked wrongly
                seen += ask(operation.as_strategy(GenerationMode.NEGATIVE, **named), url, requests)
    return seen


def test_no_request_gets_an_answer_that_is_not_documented(gateway: httpx.Client, existing: dict[str, str]) -> None:
    seen = answers(gateway, existing, REQUESTS)
    assert {200, 404, 422} <= set(seen)
    assert not [status for status in seen if status >= 500]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_nor_do_many_more(gateway: httpx.Client, existing: dict[str, str]) -> None:
    seen = answers(gateway, existing, REQUESTS_LONG)
    assert seen.total() > 5000
    assert not [status for status in seen if status >= 500]
