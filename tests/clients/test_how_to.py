"""docs/how-to/openai-client.md does what it says: its blocks are run, in order, in one program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.clients.served import Served, start_served

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "openai-client.md"
EXTRA = {"langchain_openai", "llama_index"}


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from start_served(sqlite_template, tmp_path_factory.mktemp("how_to"))


@pytest.mark.pages
def test_every_block_of_the_page_runs(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"{served.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", served.key)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        absent = {package for package in EXTRA if package in block and find_spec(package) is None}
        if not absent:
            exec(compile(block.replace("mdl_01jd3w9qz2", served.models["text"]), str(PAGE), "exec"), names)
    served.opened.append(names["client"])
    assert len(blocks) >= 8 and len(names["vectors"]) == 2
    assert names["batch"].status == "completed" and set(names["answers"]) == {"row-0", "row-1"}
    assert names["client"].files.content(names["done"].file.id).read() == b"".join(names["parts"])
    assert len([each for each in names["client"].files.list(purpose="batch") if each.filename == "more.jsonl"]) == 1
    told = capsys.readouterr().out
    assert "empty_input input[1] req_" in told and served.models["text"] in told
