"""JSON logs and Prometheus metrics. Labels are route templates and status classes: their number is bounded."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from ssl_core.redaction import redacted

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
_moves = Counter("groundwork_job_moves", "Steps of jobs", ["type", "source", "target"], registry=registry)
_ended = Counter("groundwork_attempts", "Attempts that ended here", ["type", "outcome"], registry=registry)
_lasted = Histogram(
    "groundwork_job_seconds",
    "From the first start of a job to its end",
    ["type", "status"],
    buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
    registry=registry,
)
_written = Counter("groundwork_stored_bytes", "Bytes put into the store", registry=registry)


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


def moved(kind: str, source: str, target: str, outcome: str | None = None) -> None:
    """Count a committed step of a job, and the end of its attempt where that is one."""
    _moves.labels(kind, source, target).inc()
    if outcome is not None:
        _ended.labels(kind, outcome).inc()


def lasted(kind: str, status: str, seconds: float) -> None:
    """Count how long a job took that has ended."""
    _lasted.labels(kind, status).observe(seconds)


def stored(size: int) -> None:
    """Count the bytes of a finished write."""
    _written.inc(size)


class _Found:
    """Families counted for one scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(families: Iterable[Metric] = ()) -> bytes:
    """The process's own metrics and `families` in Prometheus' text format."""
    counted = CollectorRegistry(auto_describe=False)
    counted.register(_Found(families))
    return generate_latest(registry) + generate_latest(counted)


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
