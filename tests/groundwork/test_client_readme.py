"""The README's lines of Python, as they are, against a whole server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.groundwork.serving import ROOT, Served, clean_environment

SECTION = re.compile(r"^## Python client\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.pages
def test_the_clients_lines_in_the_readme_run(tmp_path: Path) -> None:
    found = SECTION.search((ROOT / "README.md").read_text())
    assert found is not None
    code = found.group(1)
    shorter = code.replace('{"minutes": 10}', '{"steps": 3}, backbone="text-tiny"')
    assert shorter != code
    lines = [json.dumps({"text": f"line {n} of a small pool with a few more words"}) for n in range(60)]
    (tmp_path / "pool.jsonl").write_text("\n".join(lines))
    served = Served(tmp_path / "data").ready()
    try:
        key = re.findall(r"\bgw_\w+", served.printed())[0]
        environment = clean_environment(url=served.state()["url"], api_key=key) | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", shorter], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=400
        )
    finally:
        served.process.terminate()
        served.process.wait(30)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert told[-2].startswith("succeeded Progress(") and told[-1].endswith(" model.zip"), done.stdout
    assert int(told[-1].split()[0]) > 8 and os.listdir(tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert {"config.json", "model.safetensors"} <= {name.rpartition("/")[2] for name in archive.namelist()}
