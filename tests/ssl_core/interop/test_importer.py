"""Imports: a public zip becomes a model that serves and trains on; a broken one is refused with the list."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_core.errors import EngineError
from ssl_core.export import open_base
from ssl_core.inference import load

transformers = pytest.importorskip("transformers")

from tests.ssl_core.interop.folders import bert_folder, imported, rewritten, zipped  # noqa: E402


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("public") / "bert")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "bert"))


def refusal(archive: Path, tmp_path: Path, **fields: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        imported(archive, tmp_path / "run", **fields)
    assert not (tmp_path / "run" / "artifact").exists()
    assert not (tmp_path / "run" / "import").exists()
    return caught.value


def test_a_zipped_public_folder_becomes_a_model_that_embeds_as_the_public_one(folder: Path, tmp_path: Path) -> None:
    verdict, _ = imported(zipped(folder, tmp_path / "bert.zip", "bert-tiny/"), tmp_path / "run")
    counts = verdict["summary"]["imported"]
    assert (counts["matched"], counts["reshaped"], counts["missing"], counts["unknown"]) == (23, 5, 0, 0)
    model = load(tmp_path / "run" / "artifact")
    theirs = transformers.BertModel.from_pretrained(folder).eval()
    ids = torch.tensor([[2, 6, 7, 3]])
    with torch.no_grad():
        expected = theirs(ids).last_hidden_state.mean(1)
    assert torch.allclose(torch.from_numpy(model.embed(["word1 word2"])), expected, atol=1e-5)


def test_the_card_lists_every_tensor(folder: Path, tmp_path: Path) -> None:
    imported(zipped(folder, tmp_path / "bert.zip"), tmp_path / "run")
    tensors = json.loads((tmp_path / "run" / "artifact" / "card.json").read_text())["imported"]["tensors"]
    assert "token.weight" in tensors["matched"] and "position.weight" in tensors["reshaped"]
    assert tensors["ignored"]["cls.predictions.bias"] == "of a head on the trunk"


def test_an_imported_model_is_a_base_for_further_training(folder: Path, tmp_path: Path) -> None:
    imported(zipped(folder, tmp_path / "bert.zip"), tmp_path / "run")
    base = open_base(tmp_path / "run" / "artifact")
    assert base.modality.name == "text" and base.facts["mask_id"] == 4 and base.tokenizer is not None


def test_weights_in_several_files_are_read_by_their_index(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    verdict, _ = imported(zipped(folder, tmp_path / "bert.zip"), tmp_path / "run")
    assert verdict["summary"]["imported"]["missing"] == 0


def test_a_vocabulary_alone_is_made_a_tokenizer(folder: Path, tmp_path: Path) -> None:
    from tests.ssl_core.interop.folders import WORDS

    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    imported(zipped(folder, tmp_path / "bert.zip"), tmp_path / "run")
    assert load(tmp_path / "run" / "artifact").token_counts(["word1 word2"]) == [4]


def test_two_tensors_of_many_are_refused_with_counts_and_names(tmp_path: Path) -> None:
    def two(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        names = ("bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.bias")
        return {name: tensors[name] for name in names} | {f"other.{at}": torch.zeros(9) for at in range(3000)}

    folder = rewritten(bert_folder(tmp_path / "bert", layers=12), two)
    error = refusal(zipped(folder, tmp_path / "bert.zip"), tmp_path)
    assert error.code == "import_mismatch" and "2 of the encoder's" in error.message
    assert "token.weight" in error.message and "more" in error.message


def test_wrong_shapes_are_refused_with_both_shapes(folder: Path, tmp_path: Path) -> None:
    name = "bert.embeddings.word_embeddings.weight"
    rewritten(folder, lambda tensors: tensors | {name: torch.zeros(120, 31)})
    error = refusal(zipped(folder, tmp_path / "bert.zip"), tmp_path, least_share=0.5)
    assert (error.code, error.param) == ("import_mismatch", "token.weight")
    assert "[120, 31] instead of [120, 32]" in error.message


def test_weights_that_are_not_finite_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    name = "bert.encoder.layer.1.output.dense.weight"

    def broken(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors[name][3, 4] = float("nan")
        return tensors

    error = refusal(zipped(rewritten(folder, broken), tmp_path / "bert.zip"), tmp_path)
    assert (error.code, error.param) == ("import_not_finite", name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytorch_model.bin", b"whatever"),
        ("notes.txt", b"\x80\x04\x95\x00"),
        ("weights.dat", b"PK\x03\x04 archive/data.pkl"),
        ("model.safetensors", b"\x80\x02}q\x00."),
    ],
)
def test_a_pickle_by_name_or_by_its_first_bytes_is_refused(
    folder: Path, tmp_path: Path, name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)
    error = refusal(zipped(folder, tmp_path / "bert.zip"), tmp_path)
    assert (error.code, error.param) == ("pickle_refused", name)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_type": "t5000"}, "unknown_model_type"),
        ({"model_type": ["bert"]}, "unknown_model_type"),
        ({"hidden_size": "wide"}, "unsupported_config"),
        ({"hidden_size": 0}, "unsupported_config"),
        ({"num_hidden_layers": 10_000}, "unsupported_config"),
        ({"hidden_act": "mish"}, "unsupported_config"),
        ({"vocab_size": 900_000_000}, "import_mismatch"),
    ],
)
def test_a_config_that_is_no_model_of_ours_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], code: str
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert refusal(zipped(folder, tmp_path / "bert.zip"), tmp_path).code == code


@pytest.mark.parametrize(
    ("lost", "code"),
    [
        ("config.json", "config_missing"),
        ("model.safetensors", "weights_missing"),
        ("tokenizer.json", "tokenizer_missing"),
    ],
)
def test_a_folder_without_a_part_names_it(folder: Path, tmp_path: Path, lost: str, code: str) -> None:
    (folder / lost).unlink()
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    assert refusal(zipped(folder, tmp_path / "bert.zip"), tmp_path).code == code


def test_a_hostile_zip_is_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    archive = zipped(folder, tmp_path / "bert.zip")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("../../evil.json", "{}")
    assert refusal(archive, tmp_path).code == "unsafe_archive"


def test_a_safetensors_file_that_is_none_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 not a header")
    assert refusal(zipped(folder, tmp_path / "bert.zip"), tmp_path).code == "invalid_weights"


def test_a_missing_tensor_starts_fresh_only_where_the_user_lowers_the_share(folder: Path, tmp_path: Path) -> None:
    name = "bert.encoder.layer.0.output.LayerNorm.bias"
    rewritten(folder, lambda tensors: {key: value for key, value in tensors.items() if key != name})
    archive = zipped(folder, tmp_path / "bert.zip")
    assert refusal(archive, tmp_path).code == "import_mismatch"
    verdict, context = imported(archive, tmp_path / "again", least_share=0.9)
    assert verdict["summary"]["imported"]["missing"] == 1
    told = [event for event in context.events if event.get("code") == "tensor_missing"]
    assert "layers.0.feed_forward_norm.bias" in told[0]["message"]


def test_a_hub_is_asked_only_where_the_operator_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssl_core.interop import folder as folders
    from ssl_core.spec import HubModel

    monkeypatch.delenv(folders.ALLOW_HUB, raising=False)
    with pytest.raises(EngineError) as caught:
        folders.fetch(HubModel(repository="some/model"), tmp_path / "out")
    assert caught.value.code == "hub_not_allowed"
