"""What the worker and inference write to stderr."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.app.conftest import ROOT

KEY = f"gw_{'a' * 26}_{'b' * 52}"
TOKEN = f"gwa_{'c' * 43}"
CODE = f"""
import logging
import structlog
from worker.logs import configure

configure("INFO")
structlog.contextvars.bind_contextvars(job_id="job_1")
structlog.get_logger("worker").info("claimed", url="http://api/?key={KEY}", header="Bearer {TOKEN}")
logging.getLogger("library").warning("refused %s", "{TOKEN}")
try:
    raise RuntimeError("no answer to {KEY}")
except RuntimeError:
    structlog.get_logger("worker").exception("failed")
"""


def test_every_line_is_json_with_the_jobs_id_and_without_keys_or_tokens() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["claimed", "refused gwa_…", "failed"]
    assert all(line["job_id"] == "job_1" for line in lines)
    assert "b" * 52 not in done.stderr and "c" * 43 not in done.stderr
    assert "no answer to gw_…" in lines[2]["exception"]
