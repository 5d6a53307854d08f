"""Tasks over real HTTP: what a job leaves, what its model says here and elsewhere, and what stops it."""

from __future__ import annotations

import base64
import io
import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import onnxruntime
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from ssl_core import inference
from tests.groundwork.interchange import dataset, ended

pytestmark = pytest.mark.slow
SMALL = {"budget": {"steps": 6}, "batch_size": 8}
WORDS = [
    "bread", "oven", "salt", "flour", "butter", "sugar", "wind", "harbour", "mast", "rope", "tide", "anchor", "rose",
    "soil", "spade", "seed", "hedge",
]  # fmt: skip


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def said(seed: int, count: int = 12) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=count))


def run(client: httpx2.Client, **body: Any) -> dict[str, Any]:
    reply = client.post("/v1/jobs", json=body)
    assert reply.status_code == 201, reply.text
    return ended(client, reply.json())


def downloaded(client: httpx2.Client, model: str, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(client.get(f"/v1/models/{model}/download").content)) as archive:
        archive.extractall(folder)
    return folder


def labelled(first: int, count: int) -> list[dict[str, Any]]:
    return [{"text": said(seed), "label": "ab"[seed % 2]} for seed in range(first, first + count)]


def test_a_translation_is_trained_answers_and_says_the_same_after_download(
    client: httpx2.Client, tmp_path: Path
) -> None:
    rows = [{"source": said(seed), "target": said(seed).upper()} for seed in range(60)]
    task = {"name": "translation", "max_tokens": 20, "beams": 2}
    job = run(client, type="finetune", dataset=dataset(client, "pairs.jsonl", lines(rows)), task=task, **SMALL)
    assert job["status"] == "succeeded", job["error"]
    assert {"final/bleu", "final/chrf"} <= set(job["result"]["metrics"])
    names = {each["name"] for each in client.get(f"/v1/jobs/{job['id']}/samples").json()["data"]}
    assert "translations" in names
    model, asked = job["result"]["model"], [said(900), said(901)]
    told = client.post("/v1/predictions", json={"model": model, "input": asked}).json()["data"]
    elsewhere = inference.load(downloaded(client, model, tmp_path / "model")).predict(asked)
    assert [each["translation"] for each in told] == [each["translation"] for each in elsewhere]


def test_several_labels_are_learned_answered_and_said_the_same_in_a_fresh_process(
    client: httpx2.Client, tmp_path: Path
) -> None:
    rows = [{"text": said(seed), "labels": [name for name in WORDS[:3] if name in said(seed)]} for seed in range(60)]
    task = {"name": "multilabel"}
    job = run(client, type="finetune", dataset=dataset(client, "rows.jsonl", lines(rows)), task=task, **SMALL)
    assert job["status"] == "succeeded", job["error"]
    # Of the training rows: too few share a rarest label for any to be held out.
    names = {name.split("/")[1] for name in job["result"]["metrics"]}
    assert {"mean_average_precision", "macro_f1"} <= names
    model, asked = job["result"]["model"], [said(900), said(901), said(902)]
    told = client.post("/v1/predictions", json={"model": model, "input": asked}).json()["data"]
    folder = downloaded(client, model, tmp_path / "model")
    code = (
        "import json, sys; from ssl_core import inference; "
        "print(json.dumps(inference.load(__import__('pathlib').Path(sys.argv[1])).predict(json.loads(sys.argv[2]))))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder), json.dumps(asked)], capture_output=True, text=True)
    elsewhere = json.loads(done.stdout)
    for here, there in zip(told, elsewhere, strict=True):
        assert here["labels"] == there["labels"]
        assert set(here["probabilities"]) == set(WORDS[:3])
        assert here["probabilities"] == pytest.approx(there["probabilities"], abs=1e-5)


def test_adapters_are_trained_on_a_model_and_refused_without_one(client: httpx2.Client, tmp_path: Path) -> None:
    rows = dataset(client, "few.jsonl", lines(labelled(0, 40)))
    objective = {"name": "span_contrast"}
    base = run(client, type="pretrain", dataset=rows, objective=objective, backbone="text-tiny", **SMALL)["result"]
    tune = {"type": "finetune", "dataset": rows, **SMALL}
    job = run(client, **tune, model=base["model"], task={"name": "classification", "mode": "lora", "rank": 4})
    assert job["status"] == "succeeded", job["error"]
    model, asked = job["result"]["model"], [said(900), said(901)]
    told = client.post("/v1/predictions", json={"model": model, "input": asked}).json()["data"]
    elsewhere = inference.load(downloaded(client, model, tmp_path / "model")).predict(asked)
    assert [each["label"] for each in told] == [each["label"] for each in elsewhere]
    made = run(client, type="export", model=model, format="onnx")
    assert made["status"] == "succeeded", made["error"]
    assert made["result"]["metrics"]["export/max_abs_difference"] <= 1e-4
    for task, param in (({"mode": "lora"}, "model"), ({"mode": "lora", "rank": 0}, "task.classification.rank")):
        reply = client.post("/v1/jobs", json={**tune, "task": {"name": "classification", **task}})
        assert reply.status_code == 422, reply.text
        assert reply.json()["error"]["param"].endswith(param.rsplit(".", 1)[-1])


def test_every_row_is_answered_and_embedded_by_jobs(client: httpx2.Client) -> None:
    tune = {"type": "finetune", "task": {"name": "classification"}, **SMALL}
    model = run(client, dataset=dataset(client, "rows.jsonl", lines(labelled(0, 40))), **tune)["result"]["model"]
    texts = [said(seed) for seed in range(500, 530)]
    pool = dataset(client, "pool.txt", "\n".join(texts).encode())
    answers = run(client, type="predict", model=model, dataset=pool)
    assert answers["result"]["files"] == ["predictions.jsonl"] and answers["progress"]["percent"] == 100
    body = client.get(f"/v1/jobs/{answers['id']}/files/predictions.jsonl")
    found = [json.loads(line) for line in body.text.splitlines()]
    assert [each["row"] for each in found] == list(range(30)) and found[7]["source"] == "pool.txt:8"
    told = client.post("/v1/predictions", json={"model": model, "input": texts}).json()["data"]
    assert [each["label"] for each in found] == [each["label"] for each in told]
    vectors = run(client, type="embed", model=model, dataset=pool)
    body = client.get(f"/v1/jobs/{vectors['id']}/files/embeddings.parquet")
    assert parquet.read_table(io.BytesIO(body.content)).num_rows == 30


def test_test_rows_among_the_training_rows_end_the_job_and_are_listed(client: httpx2.Client) -> None:
    train, test = labelled(0, 60), labelled(1000, 20)
    planted = {4: 10, 9: 33}  # of the test, of the training rows
    for at, known in planted.items():
        test[at] = {**test[at], "text": train[known]["text"]}
    named = {
        "dataset": dataset(client, "train.jsonl", lines(train)),
        "test_dataset": dataset(client, "test.jsonl", lines(test)),
    }
    tune = {"type": "finetune", "task": {"name": "classification"}, **named, **SMALL}
    job = run(client, **tune)
    assert (job["status"], job["error"]["code"], job["error"]["param"]) == ("failed", "leakage", "test_dataset")
    assert "2 of 20 rows" in job["error"]["message"] and "test.jsonl:5" in job["error"]["message"]
    samples = client.get(f"/v1/jobs/{job['id']}/samples").json()["data"]
    (listed,) = [each for each in samples if each["name"] == "leakage_test_dataset"]
    told = client.get(listed["content_url"]).text
    assert all(f"test.jsonl:{at + 1}" in told and f"train.jsonl:{known + 1}" in told for at, known in planted.items())
    allowed = run(client, **tune, allow_leakage=True)
    assert allowed["status"] == "succeeded", allowed["error"]
    events = client.get(f"/v1/jobs/{allowed['id']}/events").text
    assert "leakage" in events


def test_a_probe_learns_from_the_pool_its_model_was_pretrained_on_and_says_what_came_of_it(
    client: httpx2.Client,
) -> None:
    pool = dataset(client, "pool.jsonl", lines([{"text": each["text"]} for each in labelled(0, 120)]))
    rows = dataset(client, "rows.jsonl", lines(labelled(1000, 24)))
    base = run(client, type="pretrain", dataset=pool, objective={"name": "span_contrast"}, **SMALL)["result"]["model"]
    task = {"name": "classification", "mode": "linear_probe", "self_training": True}
    job = run(client, type="finetune", dataset=rows, model=base, task=task)
    assert job["status"] == "succeeded", job["error"]
    assert job["resolved_spec"]["pool"] == pool
    events = client.get(f"/v1/jobs/{job['id']}/events", headers={"Accept": "application/json"}).json()["data"]
    (told,) = [each["message"] for each in events if "unlabelled rows" in each["message"]]
    assert "120 unlabelled rows" in told
    refused = client.post("/v1/jobs", json={"type": "finetune", "dataset": rows, "task": task})
    assert (refused.status_code, refused.json()["error"]["code"], refused.json()["error"]["param"]) == (
        422, "no_pool", "pool",
    )  # fmt: skip


def cells(count: int, first: int = 0) -> tuple[bytes, list[bytes]]:
    """A zip of pictures with COCO's list, one bright square in each, and the files of the pictures."""
    files, told = [], {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    for seed in range(first, first + count):
        random = np.random.default_rng(seed)
        pixels = random.integers(0, 80, (48, 64, 3), dtype=np.uint8)
        x, y = (int(each) for each in random.integers(0, 30, 2))
        pixels[y : y + 16, x : x + 20] = 220
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "PNG")
        files.append(out.getvalue())
        told["images"].append({"id": seed, "file_name": f"{seed}.png", "width": 64, "height": 48})
        told["annotations"].append({"id": seed, "image_id": seed, "category_id": 1, "bbox": [x, y, 20, 16]})
    told["annotations"] += [
        {"id": 9001, "image_id": first, "category_id": 1, "bbox": [70, 0, 5, 5]},
        {"id": 9002, "image_id": first, "category_id": 1, "bbox": [1, 1, 0, 5]},
        {"id": 9003, "image_id": 777, "category_id": 1, "bbox": [1, 1, 5, 5]},
    ]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("annotations.json", json.dumps(told))
        for seed, data in enumerate(files, first):
            archive.writestr(f"images/{seed}.png", data)
    return made.getvalue(), files


def test_objects_are_found_over_http_as_after_download_and_bad_boxes_are_named(
    client: httpx2.Client, tmp_path: Path
) -> None:
    data, files = cells(24)
    rows = dataset(client, "cells.zip", data)
    found = client.get(f"/v1/datasets/{rows}").json()
    assert found["rows"] == 24 and found["bad_rows"] == 3
    errors = client.get(f"/v1/datasets/{rows}/errors").json()["data"]
    assert [(each["file"], each["row"]) for each in errors] == [("annotations.json", at) for at in (27, 25, 26)]
    pool = run(client, type="pretrain", dataset=rows, objective={"name": "simclr"}, **SMALL)["result"]["model"]
    task = {"name": "detection", "size": 64, "head_width": 32, "least_score": 0.0, "most_boxes": 5}
    job = run(client, type="finetune", dataset=rows, model=pool, task=task, budget={"steps": 30}, batch_size=8)
    assert job["status"] == "succeeded", job["error"]
    assert {"final/ap", "final/ap50", "final/ap75"} <= set(job["result"]["metrics"])
    names = {each["name"] for each in client.get(f"/v1/jobs/{job['id']}/samples").json()["data"]}
    assert "boxes_1" in names
    model = job["result"]["model"]
    asked = [{"image": "data:image/png;base64," + base64.b64encode(file).decode()} for file in files[:3]]
    told = client.post("/v1/predictions", json={"model": model, "input": asked}).json()["data"]
    elsewhere = inference.load(downloaded(client, model, tmp_path / "model")).predict(files[:3])
    assert [each["boxes"] for each in told] == [each["boxes"] for each in elsewhere]
    assert all(1 <= len(each["boxes"]) <= 5 for each in told)
    x, y, wide, high = told[0]["boxes"][0]["box"]
    assert 0 <= x < x + wide <= 64.01 and 0 <= y < y + high <= 48.01
    scored = run(client, type="evaluate", model=model, dataset=dataset(client, "other.zip", cells(6, 100)[0]))
    assert scored["status"] == "succeeded", scored["error"]
    assert 0 <= scored["result"]["metrics"]["test/ap50"] <= 1
    (row,) = client.get(f"/v1/jobs/{scored['id']}/files/evaluation.json").json()["classes"]
    assert (row["class"], row["objects"]) == ("cell", 6) and row["ap50"] == scored["result"]["metrics"]["test/ap50"]
    predicted = run(client, type="predict", model=model, dataset=rows)
    assert predicted["status"] == "succeeded", predicted["error"]
    refused = client.post("/v1/jobs", json={
        "type": "finetune", "dataset": rows, "task": {**task, "size": 72}, "backbone": "vit-base"})  # fmt: skip
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "size_mismatch"), refused.text


def test_objects_are_found_on_a_vit_and_by_onnxruntime(client: httpx2.Client, tmp_path: Path) -> None:
    data, files = cells(16)
    rows = dataset(client, "few_cells.zip", data)
    pool = run(client, type="pretrain", dataset=rows, objective={"name": "mae"}, backbone="vit-tiny", **SMALL)["result"]
    task = {"name": "detection", "size": 64, "head_width": 16, "least_score": 0.0, "most_boxes": 5}
    job = run(client, type="finetune", dataset=rows, model=pool["model"], task=task, **SMALL)
    assert job["status"] == "succeeded", job["error"]
    model = job["result"]["model"]
    asked = [{"image": "data:image/png;base64," + base64.b64encode(file).decode()} for file in files[:2]]
    told = client.post("/v1/predictions", json={"model": model, "input": asked}).json()["data"]
    elsewhere = inference.load(downloaded(client, model, tmp_path / "model")).predict(files[:2])
    assert [each["boxes"] for each in told] == [each["boxes"] for each in elsewhere]
    made = run(client, type="export", model=model, format="onnx")
    assert made["status"] == "succeeded", made["error"]
    assert made["result"]["metrics"]["export/max_abs_difference"] <= 1e-4
    whole = client.get(f"/v1/models/{model}/download", params={"format": "onnx"})
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        session = onnxruntime.InferenceSession(archive.read("model.onnx"), providers=["CPUExecutionProvider"])
    pixels = np.zeros((3, 3, 64, 64), dtype=np.float32)
    boxes, scores = session.run(None, {"pixel_values": pixels})
    assert boxes.shape == (3, 16 * 16 + 8 * 8 + 4 * 4, 4) and scores.shape == (3, 16 * 16 + 8 * 8 + 4 * 4, 1)
    assert 0 <= boxes.min() <= boxes.max() <= 1 and 0 <= scores.min() <= scores.max() <= 1
