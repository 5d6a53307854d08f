"""What each kind of upload becomes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from ssl_core.context import MemoryContext
from ssl_core.data import ingest
from ssl_core.durable import fault_of, read_manifest
from ssl_core.errors import DataError, EngineError
from ssl_core.spec import IngestSpec, RunOrder
from ssl_core.verdict import Stopped
from tests.ssl_core.uploads import picture, take, tarred, zipped


def as_parquet(**columns: list[object]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(arrow.table(columns), out)
    return out.getvalue()


def texts(rows: list[dict[str, object]]) -> list[tuple[object, object]]:
    return [(row["text"], row["label"]) for row in rows]


TABLES = {
    "a.txt": b"first one\n\n  second one \r\nthird",
    "a.jsonl": b'{"text": "first one"}\n{"text": "second one"}\n\n{"text": "third"}',
    "no_ending": b'{"text": "first one"}\n{"text": "second one"}\n{"text": "third"}\n',
    "a.csv": b"text\nfirst one\nsecond one\nthird\n",
    "b.csv": b"\xef\xbb\xbfid;text\n1;first one\n2;second one\n3;third",
    "a.tsv": b"id\tTEXT\n1\tfirst one\n2\tsecond one\n3\tthird\n",
    "a.parquet": as_parquet(text=["first one", "second one", "third"]),
    "by_its_bytes.txt": as_parquet(text=["first one", "second one", "third"]),
    "a.zip": zipped({"1.txt": b"first one", "2.txt": b"second one\n", "3.txt": b"third"}),
    "a.tar": tarred({"./1.txt": b"first one", "./2.txt": b"second one\n", "./3.txt": b"third"}),
    "a.tar.gz": tarred({"1.txt": b"first one", "2.txt": b"second one\n", "3.txt": b"third"}, "w:gz"),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_text_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    made = take(tmp_path, name, TABLES[name])
    assert texts(made.rows) == [("first one", None), ("second one", None), ("third", None)]
    assert made.summary["bad_rows"] == 0


LABELLED = {
    "a.jsonl": b'{"text": "x y", "label": "b"}\n{"text": "z", "label": 7}\n{"text": "w", "label": null}',
    "a.csv": b'label,text\nb,"x y"\n7,z\n,w\n',
    "a.parquet": as_parquet(text=["x y", "z", "w"], label=["b", "7", None]),
    "a.zip": zipped({"top/b/1.txt": b"x y", "top/7/2.txt": b"z", "top/3.txt": b"w"}),
}


@pytest.mark.parametrize("name", LABELLED)
def test_labels_are_strings_or_absent_whatever_the_format(tmp_path: Path, name: str) -> None:
    made = take(tmp_path, name, LABELLED[name])
    assert texts(made.rows) == [("x y", "b"), ("z", "7"), ("w", None)]
    assert made.summary["classes"] == ["7", "b"]
    assert made.summary["labelled"] == 2


def test_a_csv_field_may_hold_lines_and_quotes(tmp_path: Path) -> None:
    made = take(tmp_path, "a.csv", b'text,label\n"one\ntwo ""three""\n\nfour",a\nfive,b\n')
    assert texts(made.rows) == [('one\ntwo "three"\n\nfour', "a"), ("five", "b")]
    assert [row["source"] for row in made.rows] == ["a.csv:1", "a.csv:2"]


def test_columns_map_our_names_to_theirs(tmp_path: Path) -> None:
    made = take(
        tmp_path, "a.csv", b"label,Review,stars\nx,good,5\ny,bad,1\n", columns={"text": "Review", "label": "stars"}
    )
    assert texts(made.rows) == [("good", "5"), ("bad", "1")]


@pytest.mark.parametrize("mapping", [{}, {"text": "nothing"}])
def test_an_unknown_text_column_names_the_field_and_what_was_found(tmp_path: Path, mapping: dict[str, str]) -> None:
    with pytest.raises(DataError, match="found: a, b") as caught:
        take(tmp_path, "a.csv", b"a,b\n1,2\n", columns=mapping)
    assert (caught.value.code, caught.value.param) == ("missing_column", "columns.text")


PICTURES = {"a.png": picture(1), "b.jpg": picture(2, format="JPEG"), "c.webp": picture(3, format="WEBP")}


@pytest.mark.parametrize("pack", [zipped, tarred, lambda files: tarred(files, "w:gz")])
def test_flat_archives_of_pictures_have_no_labels_and_keep_the_bytes(tmp_path: Path, pack: object) -> None:
    made = take(tmp_path, "x", pack({f"all/{name}": data for name, data in PICTURES.items()}))  # type: ignore[operator]
    assert [row["image"] for row in made.rows] == list(PICTURES.values())
    assert {row["label"] for row in made.rows} == {None}
    assert (made.summary["width"], made.summary["height"], made.summary["channels"]) == (24, 16, 3)


def test_class_folders_label_pictures_and_junk_is_passed_over(tmp_path: Path) -> None:
    junk = {"__MACOSX/cat/._1.png": b"\x00", "cat/.DS_Store": b"\x00", "Thumbs.db": b"\x00"}
    made = take(tmp_path, "x.zip", zipped({"cat/1.png": picture(1), "dog/1.png": picture(2), **junk}))
    assert [row["label"] for row in made.rows] == ["cat", "dog"]
    assert made.summary["bad_rows"] == 0


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_metadata_names_files_and_labels_wherever_it_lies(tmp_path: Path, pack: object) -> None:
    lines = [{"file_name": "x/1.png", "label": "cat"}, {"file_name": "x/2.png", "label": 3}]
    metadata = "\n".join(json.dumps(line) for line in lines).encode()
    files = {"d/x/1.png": picture(1), "d/x/2.png": picture(2), "d/x/3.png": picture(3), "d/metadata.jsonl": metadata}
    made = take(tmp_path, "x", pack(files))  # type: ignore[operator]
    assert [row["label"] for row in made.rows] == ["cat", "3"]
    assert made.errors == [("d/x/3.png", 3, "missing_field")]


@pytest.mark.parametrize(
    "column", [[picture(1), picture(2)], [{"bytes": picture(1), "path": "a"}, {"bytes": picture(2), "path": "b"}]]
)
def test_parquet_may_hold_pictures(tmp_path: Path, column: list[object]) -> None:
    made = take(tmp_path, "x.parquet", as_parquet(image=column, label=[1, 0]))
    assert [row["image"] for row in made.rows] == [picture(1), picture(2)]
    assert [row["label"] for row in made.rows] == ["1", "0"]


def test_the_folder_verifies_and_its_digest_is_that_of_its_rows(tmp_path: Path) -> None:
    made = take(tmp_path, "a.txt", b"one\ntwo\n")
    assert fault_of(made.folder) is None
    assert read_manifest(made.folder)["digest"] == made.summary["digest"] == ingest.digest(made.folder.glob("rows-*"))


def test_the_same_upload_has_the_same_digest_and_another_one_another(tmp_path: Path) -> None:
    digests = []
    for number, data in enumerate([b"one\ntwo\n", b"one\ntwo\n", b"one\ntwo!\n"]):
        (tmp_path / str(number)).mkdir()
        digests.append(take(tmp_path / str(number), "a.txt", data).summary["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_rows_spill_into_several_files_that_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssl_core.data.row_files.FILE_BYTES", 100)
    monkeypatch.setattr("ssl_core.data.row_files.GROUP_ROWS", 10)
    lines = [f"line number {number}" for number in range(95)]
    made = take(tmp_path, "a.txt", "\n".join(lines).encode())
    assert len(list(made.folder.glob("rows-*.parquet"))) == 10
    assert [row["text"] for row in made.rows] == lines


def test_the_preview_shows_the_first_rows(tmp_path: Path) -> None:
    made = take(tmp_path, "a.zip", zipped({f"{n}.png": picture(n, size=(200, 100)) for n in range(25)}))
    preview = made.read("preview.json")
    assert len(preview) == 20
    assert preview[0]["image"].startswith("data:image/png;base64,")
    assert preview[0]["source"] == "0.png:1"


def test_an_unknown_modality_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        take(tmp_path, "a.txt", b"x", modality="smell")
    assert (caught.value.code, caught.value.param) == ("unknown_modality", "modality")


def test_a_stop_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_PROGRESS_SECONDS", 0.0)
    (tmp_path / "up").write_bytes(b"one\ntwo\n")
    context = MemoryContext(tmp_path / "run")
    context.stop = "cancel"
    spec = IngestSpec(dataset="ds_1", filename="a.txt")
    with pytest.raises(Stopped):
        ingest.run(RunOrder(spec=spec, datasets={"ds_1": str(tmp_path / "up")}, cache="c"), context)
    assert list(context.workdir.iterdir()) == []
    assert context.events[0] == {"type": "progress", "stage": "ingesting", "step": 8, "total_steps": 8}


@pytest.mark.parametrize(("data", "status"), [(b"one\n\xff\ntwo\nthree\n", "succeeded"), (b"\xff\n", "failed")])
def test_ingest_runs_as_an_engine_process(tmp_path: Path, data: bytes, status: str) -> None:
    (tmp_path / "up").write_bytes(data)
    spec = IngestSpec(dataset="ds_1", filename="a.txt")
    order = RunOrder(spec=spec, datasets={"ds_1": str(tmp_path / "up")}, cache=str(tmp_path / "cache"))
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "run.json").write_text(order.model_dump_json())
    subprocess.run([sys.executable, "-m", "ssl_core.run", str(workdir)], check=False, timeout=120)
    result = json.loads((workdir / "result.json").read_text())
    assert result["status"] == status
    events = [json.loads(line) for line in (workdir / "events.jsonl").read_text().splitlines()]
    assert [event.get("code") for event in events] == [None, "encoding_error"]
    if status == "succeeded":
        assert (result["summary"]["rows"], result["summary"]["bad_rows"]) == (3, 1)
        assert fault_of(workdir / "artifact") is None
    else:
        assert result["error"]["class"] == "data"
        assert (result["error"]["code"], result["error"]["param"]) == ("encoding_error", "a.txt:1")


DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.data
@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data beside the project")
@pytest.mark.parametrize(
    ("path", "rows", "classes"),
    [
        ("text/20newsgroups/unlabeled.jsonl", 11090, 0),
        ("text/20newsgroups/test.csv", 2000, 20),
        ("text/ag_news/unlabeled.txt", 5600, 0),
        ("text/ag_news/train_250.csv", 1000, 4),
        ("image/cifar10/train_250.zip", 2500, 10),
    ],
)
def test_real_files_have_no_bad_row(tmp_path: Path, path: str, rows: int, classes: int) -> None:
    summary = take(tmp_path, Path(path).name, (DATA / path).read_bytes()).summary
    assert (summary["rows"], len(summary["classes"]), summary["bad_rows"]) == (rows, classes, 0)
