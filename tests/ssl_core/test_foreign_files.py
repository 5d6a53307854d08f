"""Files that no dataset of ours is made of: refused or skipped by their first bytes, and nothing in them is ever run.

Every pickle here, if anything loaded it, would create a file; the tests look for it.
"""

from __future__ import annotations

import io
import json
import pickle  # noqa: TID251 - the tests write what must never be read
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest

from ssl_core.errors import DataError
from tests.ssl_core.uploads import picture, take, tarred, zipped


class Canary:
    """Sings when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))


def payload(marker: Path) -> bytes:
    return pickle.dumps(Canary(marker))


def array_of_objects(marker: Path) -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([Canary(marker)], dtype=object), allow_pickle=True)
    return out.getvalue()


def arrays(marker: Path) -> bytes:
    return zipped({"rows.npy": array_of_objects(marker)})


def torch_zip(marker: Path) -> bytes:
    """As `torch.save` writes: a zip with the pickle beside the tensors."""
    return zipped({"archive/data.pkl": payload(marker), "archive/version": b"3\n", "archive/data/0": bytes(64)})


def huge_shape(_: Path) -> bytes:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def arrow_file(_: Path) -> bytes:
    out = io.BytesIO()
    feather.write_feather(arrow.table({"text": ["a", "b"]}), out)
    return out.getvalue()


def stretched_arrow(marker: Path) -> bytes:
    """Offsets that point beyond the buffer."""
    data = bytearray(arrow_file(marker))
    at = data.find(b"ab")
    data[max(0, at - 64) : at] = b"\xff" * min(64, at)
    return bytes(data)


REFUSED: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "B53 mp4": ("a.mp4", lambda _: struct.pack(">I", 32) + b"ftypisom" + bytes(200)),
    "B53 matroska": ("a.mkv", lambda _: b"\x1a\x45\xdf\xa3" + bytes(200)),
    "B59 Arrow file": ("a.arrow", arrow_file),
    "B59 Arrow file with bad offsets": ("a.feather", stretched_arrow),
    "B62 array of objects": ("a.npy", array_of_objects),
    "B62 arrays of objects in a zip": ("a.npz", arrays),
    "B62 array of a huge shape": ("a.npy", huge_shape),
    "B63 HDF5": ("a.h5", lambda _: b"\x89HDF\r\n\x1a\n" + bytes(200)),
    "B66 pickle": ("a.pkl", payload),
    "B66 pickle called text": ("a.txt", payload),
    "B66 pickle called JSON lines": ("a.jsonl", payload),
    "B66 pickle called Parquet": ("a.parquet", payload),
    "B66 pickle called joblib": ("a.joblib", payload),
    "B66 torch file": ("model.pt", torch_zip),
    "B66 torch file called zip": ("pool.zip", torch_zip),
}


CODES = {"unsupported_type", "parquet_error", "encoding_error", "archive_invalid", "invalid_json"}


@pytest.mark.parametrize("name", REFUSED)
def test_a_foreign_file_is_refused_with_a_code_and_not_run(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "sang"
    filename, make = REFUSED[name]
    with pytest.raises(DataError) as caught:
        take(tmp_path, filename, make(marker))
    assert caught.value.error_class == "data"
    assert caught.value.code in CODES
    assert not marker.exists()


@pytest.mark.parametrize("ending", ["pyd", "pkl", "pth", "pt", "joblib", "npy", "onnx"])
@pytest.mark.parametrize("packed", [tarred, zipped])
def test_b65_a_member_that_is_no_picture_is_reported_and_not_run(
    tmp_path: Path, ending: str, packed: Callable[[dict[str, bytes]], bytes]
) -> None:
    marker = tmp_path / "sang"
    files = {"a/1.png": picture(1), "a/2.png": picture(2), f"a/3.{ending}": payload(marker)}
    made = take(tmp_path, "shard.tar" if packed is tarred else "shard.zip", packed(files))
    assert made.summary["rows"] == 2
    assert [(file, code) for file, _, code in made.errors] == [(f"a/3.{ending}", "unsupported_type")]
    assert not marker.exists()


def test_a_pickle_in_a_cell_is_a_bad_row_and_not_run(tmp_path: Path) -> None:
    marker, out = tmp_path / "sang", io.BytesIO()
    cells = [picture(1), payload(marker), picture(2)]
    parquet.write_table(arrow.table({"image": cells, "label": ["a", "b", "a"]}), out)
    made = take(tmp_path, "a.parquet", out.getvalue())
    assert made.summary["rows"] == 2
    assert [(row, code) for _, row, code in made.errors] == [(2, "unsupported_type")]
    assert not marker.exists()


def test_an_extension_type_is_read_as_what_it_stores_or_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    table = arrow.table({"text": ["good one", "good two"]})
    described = {b"ARROW:extension:name": b"builtins.eval", b"ARROW:extension:metadata": b"__import__('os')"}
    field = arrow.field("text", arrow.string(), metadata=described)
    parquet.write_table(table.cast(arrow.schema([field])), out)
    assert take(tmp_path, "a.parquet", out.getvalue()).summary["rows"] == 2


def test_class_paths_and_tags_of_other_formats_are_plain_text(tmp_path: Path) -> None:
    texts = ["!!python/object/apply:os.system ['true']", "__import__('os').system('true')", "${jndi:ldap://x}"]
    made = take(tmp_path, "a.jsonl", "\n".join(json.dumps({"text": text}) for text in texts).encode())
    assert [row["text"] for row in made.rows] == texts


def test_b53_a_playlist_is_text_whose_addresses_nobody_follows(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("canary")
    playlist = f"#EXTM3U\nfile://{tmp_path}/secret.txt\nhttp://127.0.0.1:9/x.ts\n"
    made = take(tmp_path, "a.zip", zipped({"a.m3u8": playlist.encode()}))
    assert "canary" not in json.dumps(made.rows)


def test_the_canary_sings_where_it_is_unpickled(tmp_path: Path) -> None:
    """Else the other tests would show nothing."""
    pickle.loads(payload(tmp_path / "sang"))  # noqa: S301 - our own
    assert (tmp_path / "sang").exists()
    with zipfile.ZipFile(io.BytesIO(torch_zip(tmp_path / "other"))) as archive:
        pickle.loads(archive.read("archive/data.pkl"))  # noqa: S301 - our own
    assert (tmp_path / "other").exists()
