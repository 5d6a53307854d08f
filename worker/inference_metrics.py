"""What Prometheus is told of inference. No label names a model or a tenant: their number is not ours to bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counters of one process.

    Args:
        gauges: by name (after `groundwork_inference_`), what each says of itself when asked.
    """

    def __init__(self, gauges: Mapping[str, Callable[[], float]]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "groundwork_inference_requests", "Requests answered", ["verb", "status"], registry=self._registry
        )
        self._tokens = Counter(
            "groundwork_inference_tokens", "Tokens of answered requests", ["verb"], registry=self._registry
        )
        self._seconds = Histogram(
            "groundwork_inference_seconds", "Time from the body to the answer", ["verb"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60), registry=self._registry,
        )  # fmt: skip
        self.loads = Counter("groundwork_inference_model_loads", "Models read into memory", registry=self._registry)
        for name, ask in gauges.items():
            words = name.replace("_", " ").capitalize()
            Gauge(f"groundwork_inference_{name}", words, registry=self._registry).set_function(ask)

    def answered(self, verb: str, status: int, seconds: float) -> None:
        """Count one request; status 0 means that the caller left."""
        self._requests.labels(verb, f"{status // 100}xx" if status else "gone").inc()
        self._seconds.labels(verb).observe(seconds)

    def computed(self, verb: str, tokens: int) -> None:
        """Count the tokens of one answer."""
        self._tokens.labels(verb).inc(tokens)

    def exposition(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self._registry)
