"""One trace for each analysis, its id the analysis's, whoever adds to it; and nothing at all where nobody asked."""

import os
import subprocess
import sys
from uuid import UUID

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.listeners import Listener, listening

ANALYSIS = UUID("019f2b1c-4a00-7c3e-9d2a-0f6c1b7e5a10")
SCRIPT = f"""
from datetime import UTC, datetime
from uuid import UUID
from clipwarden.shared.tracing import record, record_root, span, start_tracing, stop_tracing
analysis = UUID("{ANALYSIS}")
start_tracing("tester")
record("submit", analysis, 1_000, 2_000, bytes=9)
try:
    with span("visual", analysis, attempt=2):
        raise ValueError("no")
except ValueError:
    pass
with span("nobody's", None):
    pass
record_root(analysis, datetime(2026, 11, 21, 10, tzinfo=UTC), datetime(2026, 11, 21, 11, tzinfo=UTC), state="done")
stop_tracing()
"""
QUIET = """
import sys
from uuid import uuid4
from clipwarden.shared.tracing import span, start_tracing
start_tracing("tester")
with span("visual", uuid4()):
    pass
print("opentelemetry" in sys.modules)
"""


def run(script: str, **changes: str) -> str:
    plain = {name: text for name, text in os.environ.items() if not name.startswith("OTEL_")}
    shown = subprocess.run(
        [sys.executable, "-c", script],
        env={**plain, **changes},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


def spans(receiver: Listener) -> dict:
    """What arrived, by name, and under "service" who sent it."""
    found = {}
    for received in receiver.received:
        assert received.path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(received.body).resource_spans:
            found["service"] = next(
                a.value.string_value for a in resource.resource.attributes if a.key == "service.name"
            )
            found |= {span.name: span for scope in resource.scope_spans for span in scope.spans}
    return found


@pytest.fixture(scope="module")
def sent() -> dict:
    with listening() as receiver:
        run(SCRIPT, OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_COMPRESSION="none")
        return spans(receiver)


def test_every_span_is_in_the_trace_of_its_analysis(sent):
    assert set(sent) == {"service", "analysis", "submit", "visual"}
    assert {sent[name].trace_id for name in ("analysis", "submit", "visual")} == {ANALYSIS.bytes}
    assert sent["service"] == "clipwarden-tester"


def test_the_root_lies_above_spans_that_were_made_before_it(sent):
    root = sent["analysis"]
    assert root.parent_span_id == b""
    assert {sent[name].parent_span_id for name in ("submit", "visual")} == {root.span_id}
    assert root.end_time_unix_nano - root.start_time_unix_nano == 3600 * 10**9


def test_what_goes_wrong_inside_is_noted(sent):
    assert [event.name for event in sent["visual"].events] == ["exception"]
    assert {a.key: a.value.int_value for a in sent["visual"].attributes} == {"attempt": 2}


def test_what_is_not_sampled_is_so_in_every_process():
    with listening() as receiver:
        run(
            SCRIPT,
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_TRACES_SAMPLER="parentbased_traceidratio",
            OTEL_TRACES_SAMPLER_ARG="0",
        )
        assert receiver.received == []


def test_without_an_endpoint_nothing_is_imported():
    assert run(QUIET).strip() == "False"
