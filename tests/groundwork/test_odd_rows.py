"""Rows that are bad, leaked or labelled with something new: each is named over HTTP, and nothing else is lost."""

from __future__ import annotations

import csv
import io
import random
from typing import Any

import httpx2
import pytest

from tests.groundwork.interchange import dataset, ended
from tests.groundwork.serving import eventually

pytestmark = pytest.mark.slow
WORDS = [
    "bread", "oven", "salt", "flour", "butter", "sugar", "wind", "harbour", "mast", "rope", "tide", "anchor", "rose",
    "soil", "spade", "seed", "hedge", "lantern", "copper", "meadow",
]  # fmt: skip
SMALL = {"budget": {"steps": 4}, "batch_size": 8, "backbone": "text-tiny"}


def said(seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=30))


def table(rows: list[tuple[str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([("text", "label"), *rows])
    return out.getvalue().encode()


def rows(first: int, count: int) -> list[tuple[str, str]]:
    return [(said(seed), "ab"[seed % 2]) for seed in range(first, first + count)]


def finetune(client: httpx2.Client, **body: Any) -> dict[str, Any]:
    task = {"name": "classification"}
    reply = client.post("/v1/jobs", json={"type": "finetune", "task": task, **SMALL, **body})
    assert reply.status_code == 201, reply.text
    return ended(client, reply.json())


def warned(client: httpx2.Client, job: str, code: str) -> list[str]:
    events = client.get(f"/v1/jobs/{job}/events", params={"limit": 100}).json()["data"]
    return [event["message"] for event in events if (event.get("data") or {}).get("code", event.get("code")) == code]


def test_three_bad_rows_of_ten_thousand_are_named_and_the_rest_is_kept(client: httpx2.Client) -> None:
    lines = [f"{text},{label}" for text, label in rows(0, 10_000)]
    wrong = {12: "   ,a", 5_000: "no label sign and one cell too many,a,b", 9_999: f'{said(1)},{"x" * 300}'}
    for row, line in wrong.items():
        lines[row - 1] = line
    id = dataset(client, "rows.csv", ("text,label\n" + "\n".join(lines) + "\n").encode())
    found = client.get(f"/v1/datasets/{id}").json()
    assert (found["rows"], found["bad_rows"], found["labelled"]) == (9_997, 3, 9_997)
    told = client.get(f"/v1/datasets/{id}/errors").json()["data"]
    assert [(each["file"], each["row"]) for each in told] == [("rows.csv", row) for row in wrong]
    assert all(each["code"] and each["message"] for each in told)


def test_ten_near_duplicates_between_test_and_training_rows_are_named(client: httpx2.Client) -> None:
    train, test = rows(0, 60), rows(1000, 40)
    planted = {at * 4: at * 5 for at in range(10)}
    for row, known in planted.items():
        words = train[known][0].split()
        words[7] = "changed"
        test[row] = (" ".join(words), test[row][1])
    named = {
        "dataset": dataset(client, "train.csv", table(train)),
        "test_dataset": dataset(client, "test.csv", table(test)),
    }
    job = finetune(client, **named)
    assert (job["status"], job["error"]["code"], job["error"]["param"]) == ("failed", "leakage", "test_dataset")
    assert "10 of 40 rows" in job["error"]["message"]
    for row, known in planted.items():
        assert f"row {row} (test.csv:{row + 1})" in job["error"]["message"]
        assert f"row {known} (train.csv:{known + 1})" in job["error"]["message"]
    allowed = finetune(client, **named, allow_leakage=True)
    assert allowed["status"] == "succeeded", allowed["error"]
    assert len(warned(client, allowed["id"], "leakage")) == 1


def test_labels_that_training_never_saw_are_named_and_the_other_rows_are_scored(client: httpx2.Client) -> None:
    test = rows(2000, 20)
    test[3], test[11] = (test[3][0], "new"), (test[11][0], "newer")
    train, other = dataset(client, "seen.csv", table(rows(0, 40))), dataset(client, "unseen.csv", table(test))
    job = finetune(client, dataset=train, test_dataset=other)
    assert job["status"] == "succeeded", job["error"]
    (message,) = warned(client, job["id"], "unknown_labels")
    right = job["result"]["metrics"]["test/accuracy"] * 18
    assert right == pytest.approx(round(right))
    assert message.startswith("2 rows of test_dataset have labels that the model has not learned, they are left out: ")
    assert message.endswith("row 3 (unseen.csv:4): new; row 11 (unseen.csv:12): newer")
    body = {"type": "evaluate", "model": job["result"]["model"], "dataset": other}
    scored = ended(client, client.post("/v1/jobs", json=body).json())
    assert scored["status"] == "succeeded", scored["error"]
    assert len(warned(client, scored["id"], "unknown_labels")) == 1
    told = client.get(f"/v1/jobs/{scored['id']}/files/evaluation.json").json()
    assert told["rows"] == 18
    other = dataset(client, "strange.csv", table([(text, "new") for text, _ in test]))
    named = {"dataset": train, "test_dataset": other, "task": {"name": "classification"}}
    refused = client.post("/v1/jobs", json={"type": "finetune", **SMALL, **named})
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "unknown_classes")
    samples = {each["name"] for each in client.get(f"/v1/jobs/{scored['id']}/samples").json()["data"]}
    assert "unknown_labels_dataset" in samples


def test_an_upload_is_ready_while_a_training_runs(client: httpx2.Client) -> None:
    pool = dataset(client, "pool.csv", table(rows(0, 60)))
    body = {"type": "pretrain", "dataset": pool, "objective": {"name": "mlm"}, "backbone": "text-tiny"}
    job = client.post("/v1/jobs", json={**body, "budget": {"steps": 100_000}, "batch_size": 8}).json()["id"]
    eventually(lambda: (client.get(f"/v1/jobs/{job}").json()["progress"] or {}).get("step"), 120)
    other = dataset(client, "other.csv", table(rows(500, 20)))
    assert client.get(f"/v1/datasets/{other}").json()["rows"] == 20
    assert client.get(f"/v1/jobs/{job}").json()["status"] == "running"
    client.post(f"/v1/jobs/{job}/cancel")
    assert ended(client, {"id": job})["status"] == "cancelled"
