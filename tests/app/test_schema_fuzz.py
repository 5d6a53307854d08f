"""Requests made from the API's own document: no 5xx, no status, type or body that the document does not know.

`make fuzz` makes more of them (FUZZ_EXAMPLES, and the phase that covers every boundary of every field).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.conftest import LiveApi, _live, make_settings

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2"))
PHASES = "examples,fuzzing,stateful" if EXAMPLES < 10 else "examples,coverage,fuzzing,stateful"


@pytest.fixture
def unlimited(sqlite_url: str, tmp_path: Path) -> Iterator[LiveApi]:
    yield from _live(make_settings(sqlite_url, tmp_path, outbound=True, requests_per_minute=0), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_request_that_the_document_allows_surprises_it(unlimited: LiveApi, tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{unlimited.url}/openapi.json",
        "-H", f"Authorization: Bearer {unlimited.key}", "--include-path-regex", "^/v1/", "--phases", PHASES,
        "--max-examples", str(EXAMPLES), "--checks", CHECKS, "--seed", "1", "--request-timeout", "30",
        "--generation-database", ":memory:",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=850)
    told = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert done.returncode == 0 and told is not None, done.stdout[-6000:] + done.stderr[-2000:]
    assert told[1] == told[2] and int(told[1]) > 100
