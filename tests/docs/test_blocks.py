"""Every code block of every page does what the page says, or says why it cannot here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from docs._generate import objectives
from docs._generate.blocks import Block
from docs._generate.running import Runner
from ssl_core.objectives import OBJECTIVES
from ssl_core.spec import UserJobSpec
from tests.docs.pages import ROOT, blocks_of, names, run_by, runnable

SPEC: TypeAdapter[Any] = TypeAdapter(UserJobSpec)
LANGUAGES = {"sh", "python", "output", "json", "yaml", "text", ""}
"""`output` is what the block before it prints; `text` and no word at all are drawings."""


@pytest.mark.pages
@pytest.mark.timeout(900)  # a page is several trainings; machines are shared
@pytest.mark.parametrize("name", [name for name in names() if runnable(name)])
def test_the_blocks_of_a_page_run_in_their_order(name: str, runner: Callable[[str], Runner]) -> None:
    page, came, last = runner(name), "", None
    for block in blocks_of(name):
        if block.language in ("sh", "python") and block.reason is None:
            came, last = page.run(block), block
        elif block.language == "output" and last is not None:
            page.compare(last, block, came)


@pytest.mark.parametrize("name", names())
def test_a_block_is_of_a_language_that_is_tested_or_says_why_it_is_not_run(name: str) -> None:
    for block in blocks_of(name):
        assert block.language in LANGUAGES, f"{block}: no test knows what to do with {block.language!r}"
        assert block.reason is None or len(block.reason.split()) >= 2, f"{block}: say why it is not run"
        if block.language in ("", "text"):
            told = re.search(r"^\s*(groundwork|curl|make|pip|python|docker|kubectl) ", block.code, re.MULTILINE)
            assert told is None, f"{block}: a command in a block that nobody runs"


@pytest.mark.parametrize("name", [name for name in names() if run_by(name)])
def test_a_page_that_is_run_elsewhere_is(name: str) -> None:
    test = run_by(name)
    assert test is not None and Path(name).name in test.read_text(encoding="utf-8")


def test_output_stands_behind_what_printed_it() -> None:
    for name in names():
        found = blocks_of(name)
        for before, block in pairwise(found):
            if block.language == "output":
                assert before.language in ("sh", "python") and before.reason is None, str(block)
        assert found[0].language != "output", str(found[0])


def test_few_blocks_are_left_out_and_only_for_want_of_something() -> None:
    found = [block for name in names() for block in blocks_of(name)]
    left_out = [block for block in found if block.reason is not None]
    assert len(left_out) <= len(found) / 4, [f"{block}: {block.reason}" for block in left_out]


@pytest.mark.parametrize("name", names())
def test_data_in_a_block_is_well_formed_and_a_job_spec_is_one(name: str) -> None:
    for block in blocks_of(name):
        if block.language not in ("json", "yaml"):
            continue
        body = json.loads(block.code) if block.language == "json" else yaml.safe_load(block.code)
        if isinstance(body, dict) and "type" in body and "dataset" in body:
            check(block, body)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_example_on_an_objectives_page_is_a_job(name: str) -> None:
    made = objectives.page(OBJECTIVES[name], ROOT / "benchmarks" / "results")
    (body,) = re.findall(r"```json\n(.*?)\n```", made, re.DOTALL)
    SPEC.validate_json(body)


def check(block: Block, body: dict[str, Any]) -> None:
    """A job spec; the ids that a page leaves open are any."""
    closed = json.loads(json.dumps(body, ensure_ascii=False).replace("_…", "_01jd3w8m6k"))
    try:
        SPEC.validate_json(json.dumps(closed))
    except ValueError as error:
        raise AssertionError(f"{block}: {error}") from error
