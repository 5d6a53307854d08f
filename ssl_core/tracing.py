"""Traces by OpenTelemetry: request, job, attempt, engine, inference, in one tree across the processes.

Off, and then not even imported, unless the extra `otel` is installed and the standard variables name an exporter
(`OTEL_EXPORTER_OTLP_ENDPOINT`, or `OTEL_TRACES_EXPORTER=console`). Context travels as a W3C `traceparent`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Literal

Kind = Literal["internal", "server", "client", "producer", "consumer"]
HEADER = "traceparent"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PACKAGES = {"otlp": "otlp_proto_http"}
_tracers: list[Any] = []
"""One, once `configure` found that there is somebody to tell; none before, and none where traces are off."""
_providers: list[Any] = []


class TracingError(ValueError):
    """The variables ask for what cannot be had; the message is one line."""


def wanted() -> list[str]:
    """The exporters that the environment names."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return []
    usual = "otlp" if any(os.environ.get(name) for name in _ENDPOINTS) else "none"
    names = os.environ.get("OTEL_TRACES_EXPORTER") or usual
    return [name for each in names.split(",") if (name := each.strip()) not in ("", "none")]


@lru_cache
def configure(role: str) -> None:
    """Start telling, as `groundwork-<role>` unless `OTEL_SERVICE_NAME` says otherwise; nothing where traces are off.

    Raises:
        TracingError: the extra is missing, or an exporter is unknown.
    """
    if not wanted():
        return
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingError("OTEL_ variables ask for traces; they need: pip install 'groundwork[otel]'") from error
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": f"groundwork-{role}"}
    provider = TracerProvider(resource=Resource.create(named))
    for name in wanted():
        found = list(entry_points(group="opentelemetry_traces_exporter", name=_PACKAGES.get(name, name)))
        if not found:
            raise TracingError(f"OTEL_TRACES_EXPORTER: no exporter {name!r} is installed")
        provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    _tracers[:] = [provider.get_tracer("groundwork")]
    _providers[:] = [provider]


def flush() -> None:
    """Send what is waiting: for a process that leaves without Python's own end."""
    for provider in _providers:
        provider.shutdown()


@contextmanager
def span(name: str, kind: Kind = "internal", parent: str | None = None, **facts: Any) -> Iterator[Any]:
    """What happens inside, as a span below `parent` (a traceparent), else below the span we are in. None where off."""
    if not _tracers:
        yield None
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({HEADER: parent}) if parent else None
    facts = {f"groundwork.{fact}": value for fact, value in facts.items() if value is not None}
    with _tracers[0].start_as_current_span(name, context, SpanKind[kind.upper()], facts) as made:
        yield made


def event(name: str, **facts: Any) -> None:
    """A moment within the span we are in."""
    if _tracers:
        from opentelemetry.trace import get_current_span

        get_current_span().add_event(name, {f"groundwork.{fact}": value for fact, value in facts.items()})


def traceparent() -> str | None:
    """The span we are in, for whoever goes on elsewhere; None where there is none."""
    if not _tracers:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(HEADER)


def headers() -> dict[str, str]:
    """The same as request headers."""
    found = traceparent()
    return {} if found is None else {HEADER: found}
