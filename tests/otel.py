"""A collector of OpenTelemetry's protocol, as a thread of the test: what the processes told, as they told it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """One span of one service."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    facts: dict[str, str]
    events: tuple[str, ...]


class Collector:
    """Listens on a free port until `stop`."""

    def __init__(self) -> None:
        found: list[Span] = []
        self.spans = found

        class Door(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                found.extend(_read(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def environment(self) -> dict[str, str]:
        """What makes a process tell it, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def named(self, name: str) -> Span | None:
        """The first span of that name."""
        return next((span for span in self.spans if span.name == name), None)

    def stop(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


def _read(body: bytes) -> list[Span]:
    spans = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
        for span in (each for scope in resource.scope_spans for each in scope.spans):
            facts = {a.key: a.value.string_value or str(a.value.int_value) for a in span.attributes}
            ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
            spans.append(Span(service, span.name, *ids, facts, tuple(event.name for event in span.events)))
    return spans
