"""Interchange over real HTTP, with a real worker: a public zip in, a broken one refused, a transformers zip out."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import httpx2
import pytest
import torch

pytest.importorskip("transformers")

from tests.groundwork.interchange import ended, sent
from tests.ssl_core.interop.folders import bert_folder, rewritten, zipped

pytestmark = pytest.mark.slow


def test_a_public_model_comes_in_serves_and_goes_out_again(client: httpx2.Client, tmp_path: Path) -> None:
    job = sent(client, zipped(bert_folder(tmp_path / "bert"), tmp_path / "bert.zip"))
    assert job["status"] == "succeeded", job["error"]
    assert job["result"]["metrics"]["import/matched"] == 23
    model = job["result"]["model"]
    tensors = client.get(f"/v1/models/{model}").json()["card"]["imported"]["tensors"]
    assert "position.weight" in tensors["reshaped"] and not tensors["missing"]
    vector = client.post("/v1/embeddings", json={"model": model, "input": "word1 word2"}).json()["data"][0]["embedding"]
    assert len(vector) == 32
    early = client.get(f"/v1/models/{model}/download", params={"format": "hf"})
    assert (early.status_code, early.json()["error"]["code"]) == (409, "not_exported")
    made = ended(client, client.post("/v1/jobs", json={"type": "export", "model": model, "format": "hf"}).json())
    assert made["status"] == "succeeded", made["error"]
    assert made["result"]["metrics"]["export/max_abs_difference"] <= 1e-4
    whole = client.get(f"/v1/models/{model}/download", params={"format": "hf"})
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert json.loads(archive.read("config.json"))["architectures"] == ["BertModel"]


def test_a_broken_import_fails_with_the_list(client: httpx2.Client, tmp_path: Path) -> None:
    kept = ("bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.bias")
    few = rewritten(bert_folder(tmp_path / "few"), lambda t: {n: t[n] for n in kept} | {"bert.x": torch.zeros(30_000)})
    job = sent(client, zipped(few, tmp_path / "few.zip"))
    assert (job["status"], job["error"]["code"]) == ("failed", "import_mismatch")
    assert "2 of the encoder's 28 tensors match" in job["error"]["message"]
    codes = {event["code"] for event in client.get(f"/v1/jobs/{job['id']}/events?limit=100").json()["data"]}
    assert {"tensor_missing", "tensor_unknown"} <= codes


@pytest.mark.parametrize(
    ("name", "value", "code", "told"),
    [
        ("bert.embeddings.word_embeddings.weight", torch.zeros(120, 31), "import_mismatch", "[120, 31] instead of"),
        ("bert.encoder.layer.1.output.dense.bias", torch.full((32,), torch.nan), "import_not_finite", "dense.bias"),
    ],
)
def test_a_tensor_of_a_wrong_shape_or_without_numbers_is_named(
    client: httpx2.Client, tmp_path: Path, name: str, value: torch.Tensor, code: str, told: str
) -> None:
    folder = rewritten(bert_folder(tmp_path / "bert"), lambda tensors: tensors | {name: value})
    job = sent(client, zipped(folder, tmp_path / "bert.zip"))
    assert (job["status"], job["error"]["code"]) == ("failed", code) and told in job["error"]["message"]


def test_a_pickle_is_refused_by_its_name(client: httpx2.Client, tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "bert")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    job = sent(client, zipped(folder, tmp_path / "bert.zip"))
    assert job["error"]["code"] == "pickle_refused" and job["error"]["param"] == "pytorch_model.bin"


def test_a_hub_is_refused_where_the_operator_has_not_allowed_it(client: httpx2.Client) -> None:
    reply = client.post("/v1/models", json={"hub": "some/model"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "hub_not_allowed")


def test_an_unknown_field_of_the_form_is_named(client: httpx2.Client) -> None:
    reply = client.post("/v1/models", files={"file": ("a.zip", b"x")}, data={"colour": "red"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (422, "colour")
