"""Traces, one per analysis, where the standard variables name a place to send them to (OTEL_EXPORTER_OTLP_ENDPOINT).

The id of an analysis is the id of its trace. So nothing has to travel with a message, one that is sent again continues
the trace, and an id from a log or a client finds it. Without an endpoint nothing is imported and nothing happens.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from clipwarden.shared.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
HALF: Final = (1 << 64) - 1
ROOT: Final = "analysis"

_provider: "TracerProvider | None" = None
_chosen: ContextVar[UUID | None] = ContextVar("chosen", default=None)
"""The analysis whose root span is being made, which then gets ids of ours."""


def start_tracing(service: str) -> None:
    """Send spans from here on, if there is where to. Raises ConfigError if the packages for it are missing."""
    global _provider  # noqa: PLW0603 - one per process, like the log's configuration
    if _provider is not None or not any(os.environ.get(name) for name in ENDPOINTS):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    except ModuleNotFoundError as error:
        raise ConfigError(f"{ENDPOINTS[0]} is set, traces need packages: pip install 'clipwarden[trace]'") from error

    class Ids(RandomIdGenerator):
        def generate_trace_id(self) -> int:
            chosen = _chosen.get()
            return chosen.int if chosen else super().generate_trace_id()

        def generate_span_id(self) -> int:
            chosen = _chosen.get()
            return chosen.int & HALF if chosen else super().generate_span_id()

    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": f"clipwarden-{service}"}
    _provider = TracerProvider(resource=Resource.create(named), id_generator=Ids())
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))


def stop_tracing() -> None:
    """Send what was not sent yet."""
    if _provider is not None:
        _provider.shutdown()


@contextmanager
def span(name: str, analysis_id: UUID | None, **attributes: Any) -> Iterator[None]:
    """A part of an analysis, from here to the end of the context. What is raised inside is noted."""
    if _provider is None or analysis_id is None:
        yield
        return
    tracer = _provider.get_tracer(__name__)
    with tracer.start_as_current_span(name, context=_within(_provider, analysis_id), attributes=attributes):
        yield


def record(name: str, analysis_id: UUID, started_ns: int, ended_ns: int, **attributes: Any) -> None:
    """A part of an analysis that is over, by the clock's nanoseconds."""
    if _provider is not None:
        tracer, within = _provider.get_tracer(__name__), _within(_provider, analysis_id)
        tracer.start_span(name, within, attributes=attributes, start_time=started_ns).end(ended_ns)


def record_root(analysis_id: UUID, started_at: datetime, ended_at: datetime, **attributes: Any) -> None:
    """The span above all others of an analysis, when it has ended."""
    if _provider is None:
        return
    from opentelemetry.context import Context

    token = _chosen.set(analysis_id)
    try:
        root = _provider.get_tracer(__name__).start_span(
            ROOT, Context(), attributes=attributes, start_time=_nanoseconds(started_at)
        )
    finally:
        _chosen.reset(token)
    root.end(_nanoseconds(ended_at))


def _within(provider: "TracerProvider", analysis_id: UUID) -> "Context":
    """The context below the root span, whether or not that exists yet; sampled as every process would say."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace.sampling import Decision

    sampled = provider.sampler.should_sample(None, analysis_id.int, ROOT).decision is Decision.RECORD_AND_SAMPLE
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else trace.TraceFlags.DEFAULT)
    above = trace.SpanContext(analysis_id.int, analysis_id.int & HALF, is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(trace.NonRecordingSpan(above))


def _nanoseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000) * 1000
