"""JSON logs and Prometheus metrics. Labels are route templates and status classes: their number is bounded."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from app.redaction import redacted

_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
registry = CollectorRegistry()
for collector in (ProcessCollector, PlatformCollector, GCCollector):
    collector(registry=registry)
_requests = Counter(
    "groundwork_http_requests", "Requests answered", ["method", "route", "status"], registry=registry
)
_seconds = Histogram(
    "groundwork_http_request_seconds",
    "Time from the first header to the last byte",
    ["method", "route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
    registry=registry,
)


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request; status 0 means that the caller left before a reply began."""
    method = method if method in _METHODS else "other"
    _requests.labels(method, route, f"{status // 100}xx" if status else "gone").inc()
    _seconds.labels(method, route).observe(seconds)


def route_template(scope: Mapping[str, Any]) -> str:
    """The route's template, so that neither ids nor a stranger's paths become metric labels."""
    context = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(context, "path", None) or getattr(scope.get("route"), "path", None)
    return str(path) if path else "unmatched"


def exposition() -> bytes:
    """The metrics in Prometheus' text format."""
    return generate_latest(registry)


def configure_logging(level: str) -> None:
    """One JSON object a line on stderr, with the request's id; the libraries' own lines too, from warnings on."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
            lambda _logger, _method, line: redacted(str(line)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Looked up at each line: whoever redirects stderr later gets the lines too.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
