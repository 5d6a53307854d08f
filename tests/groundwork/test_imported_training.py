"""An imported public model over real HTTP: pretraining goes on from it, it is fine-tuned, and goes out again."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytest.importorskip("transformers")

from tests.groundwork.interchange import dataset, ended, sent
from tests.ssl_core.interop.folders import bert_folder, zipped

pytestmark = pytest.mark.slow
SMALL = {"budget": {"steps": 2}, "batch_size": 8}


ROWS = [{"text": f"word{at} word{at + 30} word{at % 7}", "label": "ab"[at % 2]} for at in range(40)]


def test_an_imported_model_is_pretrained_on_fine_tuned_and_exported(client: httpx2.Client, tmp_path: Path) -> None:
    def finished(**body: Any) -> dict[str, Any]:
        job = ended(client, client.post("/v1/jobs", json=body).json())
        assert job["status"] == "succeeded", job["error"]
        result: dict[str, Any] = job["result"]
        return result

    brought = sent(client, zipped(bert_folder(tmp_path / "public"), tmp_path / "public.zip"))
    assert brought["status"] == "succeeded", brought["error"]
    rows = dataset(client, "rows.jsonl", "\n".join(map(json.dumps, ROWS)).encode())
    started = {"dataset": rows, "model": brought["result"]["model"], **SMALL}
    further = finished(type="pretrain", objective={"name": "mlm"}, **started)
    assert client.get(f"/v1/models/{further['model']}").json()["lineage"]["base_model"] == brought["result"]["model"]
    tuned = finished(type="finetune", dataset=rows, model=further["model"], task={"name": "classification"}, **SMALL)
    assert 0 <= tuned["metrics"]["final/accuracy"] <= 1
    made = finished(type="export", model=tuned["model"], format="onnx")
    assert made["metrics"]["export/max_abs_difference"] <= 1e-4
    whole = client.get(f"/v1/models/{tuned['model']}/download", params={"format": "onnx"})
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert {"model.onnx", "classes.txt", "README.md"} <= set(archive.namelist())
