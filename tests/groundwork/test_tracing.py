"""One trace from the request over the job and its attempt to the engine; nothing of it where nobody asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.groundwork.serving import ROOT, Served, clean_environment, eventually, run
from tests.groundwork.test_serve import key_of
from tests.otel import Collector, Span

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    yield made
    made.stop()


@pytest.mark.slow
def test_a_request_its_job_the_attempt_and_the_engine_are_one_trace(collector: Collector, tmp_path: Path) -> None:
    served = Served(tmp_path / "data").ready()
    try:
        headers = {"Authorization": f"Bearer {key_of(served)}", "traceparent": f"00-{TRACE}-{CALLER}-01"}
        files = {"file": ("pool.txt", b"a line\nanother line\n" * 20)}
        made = httpx2.post(f"{served.state()['url']}/v1/datasets", files=files, headers=headers, timeout=30)
        assert made.status_code == 201, made.text
        eventually(lambda: collector.named("POST /internal/v1/jobs/{job_id}/complete"), 60)
        eventually(lambda: collector.named("ingest attempt"), 30)
    finally:
        served.stop()

    def span(name: str) -> Span:
        found = collector.named(name)
        assert found is not None, [each.name for each in collector.spans]
        return found

    request, created, attempt = span("POST /v1/datasets"), span("ingest create"), span("ingest attempt")
    assert (request.trace, request.parent, request.service) == (TRACE, CALLER, "groundwork-api")
    assert request.facts["http.response.status_code"] == "201"
    assert created.parent == request.id and attempt.parent == created.id
    assert attempt.service == "groundwork-worker" and attempt.facts["groundwork.job_id"].startswith("job_")
    engine, result = span("engine"), span("result")
    assert {span("inputs").parent, engine.parent, result.parent} == {attempt.id} and "ingesting" in engine.events
    assert span("POST /internal/v1/jobs/{job_id}/complete").parent == result.id
    assert not [each.name for each in collector.spans if "heartbeat" in each.name or "claim" in each.name]
    assert {each.trace for each in (created, attempt, engine, result)} == {TRACE}


@pytest.mark.parametrize("role", ["worker.main", "app.main"])
def test_where_nobody_asked_for_traces_nothing_that_makes_them_is_imported(role: str) -> None:
    # FastAPI and redis have uses of their own for its interface; the machinery behind it is ours to load, or not.
    code = (
        f"import sys, {role}; from ssl_core import tracing\n"
        "tracing.configure('api')\n"
        "with tracing.span('a') as span: assert span is None and tracing.headers() == {}\n"
        "tracing.event('b'); tracing.flush()\n"
        "found = [n for n in sys.modules if n.startswith(('opentelemetry.sdk.trace', 'opentelemetry.exporter'))]\n"
        "assert not found, found"
    )
    environment = {name: value for name, value in clean_environment().items() if not name.startswith("OTEL_")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("variables", "exporters"),
    [
        ({}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318"}, ["otlp"]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318", "OTEL_SDK_DISABLED": "true"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4318", "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp"]),
    ],
)
def test_the_standard_variables_switch_it_on(
    variables: dict[str, str], exporters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssl_core import tracing

    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing.wanted() == exporters


@pytest.mark.parametrize("role", ["api", "worker"])
def test_an_exporter_that_is_not_there_is_one_line(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"secret_key": "s" * 32, "worker_token": "t" * 32}
    assert run("migrate", data_dir=str(tmp_path), **secrets).returncode == 0
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
    done = run(role, data_dir=str(tmp_path), port="0", **secrets)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "carrier-pigeon" in done.stderr
