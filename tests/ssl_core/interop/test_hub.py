"""Imports from a hub, which here is a server on this machine that speaks as much of its HTTP as is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssl_core.context import MemoryContext
from ssl_core.errors import EngineError
from ssl_core.inference import load
from ssl_core.interop import folder as folders
from ssl_core.interop import importer
from ssl_core.spec import HubModel, ImportSpec, RunOrder

pytest.importorskip("transformers")

from tests.ssl_core.interop.folders import bert_folder
from tests.ssl_core.interop.hub import hub_of


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = bert_folder(tmp_path_factory.mktemp("hub") / "bert")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    (folder / "modeling_own.py").write_text("raise SystemExit('their code ran')")
    with hub_of(folder) as server:
        yield server


@pytest.fixture
def allowed(hub: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv(folders.ALLOW_HUB, "1")
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_operator")
    hub.asked.clear()
    return hub


def taken(workdir: Path, repository: str, revision: str | None = None) -> dict[str, Any]:
    workdir.mkdir(exist_ok=True)
    spec = ImportSpec(hub=HubModel(repository=repository, revision=revision))
    return importer.run(RunOrder(spec=spec, cache=str(workdir / "cache")), spec, MemoryContext(workdir))


def test_a_repository_is_fetched_through_a_redirect_and_becomes_a_model(allowed: Any, tmp_path: Path) -> None:
    verdict = taken(tmp_path / "run", "some/model")
    assert verdict["summary"]["imported"]["missing"] == 0
    assert load(tmp_path / "run" / "artifact").embed(["word1 word2"]).shape == (1, 32)
    assert ("GET", "/store/model.safetensors", None) in allowed.asked


def test_nothing_but_weights_json_and_vocabularies_is_asked_for_and_no_token_is_sent(
    allowed: Any, tmp_path: Path
) -> None:
    taken(tmp_path / "run", "some/model")
    names = {path.rsplit("/", 1)[-1] for _, path, _ in allowed.asked if "/resolve/" in path}
    assert "model.safetensors" in names and not names & {"pytorch_model.bin", "modeling_own.py"}
    assert {token for _, _, token in allowed.asked} == {None}


@pytest.mark.parametrize(("repository", "revision"), [("no/such", None), ("some/model", "no-such-branch")])
def test_what_the_hub_does_not_have_is_named(
    allowed: Any, tmp_path: Path, repository: str, revision: str | None
) -> None:
    with pytest.raises(EngineError) as caught:
        taken(tmp_path / "run", repository, revision)
    assert (caught.value.code, caught.value.param) == ("hub_not_found", "hub")
    assert repository in caught.value.message and (revision or "") in caught.value.message
    assert not (tmp_path / "run" / "import").exists()


def test_a_hub_that_does_not_answer_is_a_failure_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(folders.ALLOW_HUB, "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EngineError) as caught:
        taken(tmp_path / "run", "some/model")
    assert caught.value.code == "hub_failed" and "some/model" in caught.value.message


def test_without_the_operator_s_leave_no_hub_is_asked(
    allowed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(folders.ALLOW_HUB)
    with pytest.raises(EngineError) as caught:
        taken(tmp_path / "run", "some/model")
    assert caught.value.code == "hub_not_allowed" and allowed.asked == []
