"""Hostile and broken uploads: each ends in its code and place, and the good rows beside it are unharmed."""

from __future__ import annotations

import gzip
import io
import json
import resource
import struct
import zlib
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from ssl_core.data import intake
from ssl_core.errors import DataError
from tests.ssl_core.uploads import picture, take, tarred, zipped

GOOD = {f"good/{number}.png": picture(number) for number in range(3)}


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\x00" * 100)) + chunk(b"IEND", b"")


def png_with(kind: bytes, data: bytes) -> bytes:
    """A sound PNG with one more chunk after its header."""
    whole = picture(9)
    extra = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return whole[:33] + extra + whole[33:]


def mpo() -> bytes:
    out = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(out, "MPO", save_all=True, append_images=frames[1:])
    return out.getvalue()


def tiff_with_tiles(side: int) -> bytes:
    """A little-endian TIFF of 64 x 64 pixels whose one tile claims to be `side` pixels wide and high."""
    tags = [
        (256, 4, 64), (257, 4, 64), (258, 3, 8), (259, 3, 1), (262, 3, 1), (277, 3, 1),
        (322, 4, side), (323, 4, side), (324, 4, 8), (325, 4, 64),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + b"\x00" * 4


def webp_canvas(side: int) -> bytes:
    """An animated WebP that declares a canvas of `side` pixels and holds one dot."""
    three = struct.Struct("<I").pack
    canvas = b"\x02\x00\x00\x00" + three(side - 1)[:3] * 2
    dot = b"VP8L" + three(6) + b"\x2f\x00\x00\x00\x00\x00"
    frame = bytes(12) + three(1)[:3] + b"\x00" + dot
    parts = ((b"VP8X", canvas), (b"ANIM", bytes(6)), (b"ANMF", frame))
    body = b"WEBP" + b"".join(kind + three(len(data)) + data for kind, data in parts)
    return b"RIFF" + three(len(body)) + body


def gif_screen(side: int) -> bytes:
    """A GIF that declares a picture of `side` pixels and holds one code."""
    frame = struct.pack("<cHHHHB", b",", 0, 0, side, side, 0) + b"\x02\x02\x4c\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + frame + b";"


TEXT_BOMB = b"Comment\x00\x00" + zlib.compress(b"a" * 100_000_000)
BAD_PICTURES = {
    "B44 declares 50,000 x 50,000": (png_header(50_000, 50_000), "too_many_pixels"),
    "B44 over our own cap": (png_header(8_000, 6_000), "too_many_pixels"),
    "B44 WebP canvas": (webp_canvas(16_383), "too_many_pixels"),
    "B44 BMP": (
        b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 60_000, 60_000, 1, 24, 0) + bytes(20),
        "too_many_pixels",
    ),
    "B44 GIF": (gif_screen(65_535), "too_many_pixels"),
    "B44 one endless line": (png_header(40_000, 2), "too_many_pixels"),
    "B46 EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_type"),
    "B46 SVG": (b'<?xml version="1.0"?><!DOCTYPE svg SYSTEM "file:///etc/passwd"><svg/>', "unsupported_type"),
    "B46 PDF": (b"%PDF-1.7\n", "unsupported_type"),
    "B46 FITS": (b"SIMPLE  =                    T", "unsupported_type"),
    "B46 gzip": (gzip.compress(b"SIMPLE"), "unsupported_type"),
    "B46 WMF": (b"\xd7\xcd\xc6\x9a" + b"\x00" * 40, "unsupported_type"),
    "B46 MPO": (mpo(), "unsupported_type"),
    "B46 HEIC": (b"\x00\x00\x00\x18ftypheic" + b"\x00" * 40, "unsupported_type"),
    "B46 JPEG 2000": (b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\x00" * 40, "unsupported_type"),
    "B47 TIFF tile bomb": (tiff_with_tiles(1_000_000), "decode_error"),
    "B47 PNG text bomb": (png_with(b"zTXt", TEXT_BOMB), "decode_error"),
    "B47 PNG profile bomb": (png_with(b"iCCP", TEXT_BOMB), "decode_error"),
    "B48 truncated PNG": (picture(5, size=(64, 64))[:2000], "decode_error"),
    "B48 truncated JPEG": (picture(5, size=(64, 64), format="JPEG")[:900], "decode_error"),
    "B48 truncated WebP": (picture(5, size=(64, 64), format="WEBP")[:500], "decode_error"),
    "B48 header only": (b"\x89PNG\r\n\x1a\n", "decode_error"),
    "B48 no pixels": (png_header(0, 10), "decode_error"),
    "B43 nested archive": (zipped({"a.png": picture(1)}), "unsupported_type"),
    "B43 text named png": (b"hello", "unsupported_type"),
    "empty file": (b"", "unsupported_type"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_a_bad_picture_is_reported_and_its_neighbours_live(tmp_path: Path, name: str) -> None:
    data, code = BAD_PICTURES[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    made = take(tmp_path, "x.zip", zipped({**GOOD, "bad/x.png": data}))
    assert made.errors == [("bad/x.png", 4, code)]
    assert made.summary["rows"] == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024  # KiB


def test_alone_it_makes_the_dataset_invalid_with_its_code_and_place(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 1 rows") as caught:
        take(tmp_path, "x.zip", zipped({"a/huge.png": png_header(50_000, 50_000)}))
    assert (caught.value.code, caught.value.param) == ("too_many_pixels", "a/huge.png:1")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_fuzzed_pictures_are_decoded_or_reported_never_a_crash(tmp_path: Path) -> None:
    import random

    rng = random.Random(0)
    files = dict(GOOD)
    for number in range(200):
        data = bytearray(
            picture(number % 7, size=(40, 30), format=rng.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]))
        )
        for _ in range(rng.choice([1, 5, 50])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        files[f"fuzz/{number}"] = bytes(data[: rng.choice([len(data), rng.randrange(1, len(data))])])
    files.update({f"more/{number}.png": picture(number) for number in range(250)})
    made = take(tmp_path, "x.zip", zipped(files))
    assert made.summary["rows"] + made.summary["bad_rows"] == len(files)
    assert {code for _, _, code in made.errors} <= {"decode_error", "unsupported_type", "too_many_pixels"}


LONG = b"x" * (intake.MAX_TEXT_BYTES + 1)
BAD_LINES = {
    "B54 invalid UTF-8": ("a.txt", b"good\nbad \xff\xfe\ngood\n", "encoding_error"),
    "B54 NUL": ("a.jsonl", b'{"text":"good"}\n{"text":"a\\u0000b"}\n{"text":"good"}\n', "encoding_error"),
    "B54 lone surrogate": ("a.jsonl", b'{"text":"good"}\n{"text":"\\ud800"}\n{"text":"good"}\n', "encoding_error"),
    "B54 endless line": ("a.txt", b"good\n" + LONG * 3 + b"\ngood\n", "line_too_long"),
    "B54 long JSON text": ("a.jsonl", b'{"text":"g"}\n{"text":"' + LONG + b'"}\n{"text":"g"}\n', "line_too_long"),
    "B55 not an object": ("a.jsonl", b'{"text":"good"}\n[1]\n{"text":"good"}\n', "wrong_type"),
    "B55 missing field": ("a.jsonl", b'{"text":"good"}\n{"body_":1}\n{"text":"good"}\n', "missing_field"),
    "B55 nested 10,000": ("a.jsonl", b'{"text":"g"}\n' + b'{"a":' * 10_000 + b'\n{"text":"g"}\n', "invalid_json"),
    "B55 a number for text": ("a.jsonl", b'{"text":"good"}\n{"text":7}\n{"text":"good"}\n', "wrong_type"),
    "B55 a list for label": ("a.jsonl", b'{"text":"good"}\n{"text":"a","label":[1]}\n{"text":"g"}\n', "invalid_label"),
    "B55 half a line": ("a.jsonl", b'{"text":"good"}\n{"text": "a\n{"text":"good"}\n', "invalid_json"),
    "B55 empty text": ("a.jsonl", b'{"text":"good"}\n{"text":" "}\n{"text":"good"}\n', "empty_text"),
    "csv short row": ("a.csv", b"text,label\ngood,1\nbad\ngood,1\n", "missing_field"),
    "csv bad bytes": ("a.csv", b"text,label\ngood,1\nb\xffd,1\ngood,1\n", "encoding_error"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_reported_by_number(tmp_path: Path, name: str) -> None:
    file, data, code = BAD_LINES[name]
    made = take(tmp_path, file, data)
    assert made.errors == [(file, 2, code)]
    assert made.summary["rows"] == 2
    assert [event["code"] for event in made.events if event["type"] == "message"] == [code]


def test_one_bad_line_in_many_is_found(tmp_path: Path) -> None:
    lines = [b'{"text":"good"}'] * 20_000
    lines[17_776] = b"{broken"
    made = take(tmp_path, "a.jsonl", b"\n".join(lines))
    assert made.errors == [("a.jsonl", 17_777, "invalid_json")]
    assert (made.summary["rows"], made.summary["bad_rows"]) == (19_999, 1)


def test_a_quote_that_nobody_closes_spoils_its_row_and_not_the_memory(tmp_path: Path) -> None:
    rest = b"fine" * 250 + b",x\n"
    rest *= 2 * intake.MAX_TEXT_BYTES // len(rest)
    made = take(tmp_path, "a.csv", b'text,label\ngood,1\ngood,1\n"open,1\n' + rest)
    assert made.errors[0][1:] == (3, "invalid_row")
    assert made.summary["rows"] > 2


def test_millions_of_empty_lines_take_no_time_and_keep_their_numbers(tmp_path: Path) -> None:
    made = take(tmp_path, "a.txt", b"first" + b"\n" * 30_000_000 + b"last\n")
    assert [row["source"] for row in made.rows] == ["a.txt:1", "a.txt:30000001"]


BAD_FILES = {
    "empty": ("a.txt", b"", "empty_file"),
    "only blanks": ("a.txt", b"\n \n\t\n", "empty_dataset"),
    "only a header": ("a.csv", b"text,label\n", "empty_dataset"),
    "empty zip": ("a.zip", zipped({}), "empty_dataset"),
    "B54 UTF-16": ("a.txt", "hello".encode("utf-16"), "encoding_error"),
    "B54 UTF-16 without mark": ("a.csv", "text,label\n".encode("utf-16-le"), "encoding_error"),
    "B54 billion laughs": ("a.jsonl", b'<!DOCTYPE lolz [<!ENTITY lol "lol">]>\n<lolz>&lol;</lolz>\n', "invalid_json"),
    "B43 PNG for txt": ("a.txt", picture(), "unsupported_type"),
    "B43 PNG and zip in one": ("a.zip", picture() + zipped(GOOD), "unsupported_type"),
    "B43 PDF": ("a.zip", b"%PDF-1.7\n", "unsupported_type"),
    "B43 7z": ("a.zip", b"7z\xbc\xaf\x27\x1c" + b"\x00" * 30, "unsupported_type"),
    "B43 gzip of text": ("a.tar.gz", gzip.compress(b"hello"), "unsupported_type"),
    "B59 Arrow": ("a.parquet", b"ARROW1\x00\x00" + b"\x00" * 30, "unsupported_type"),
    "B66 pickle": ("a.txt", b"\x80\x04\x95\x0b\x00\x00\x00", "unsupported_type"),
    "program": ("a.txt", b"\x7fELF\x02\x01\x01", "unsupported_type"),
    "binary": ("a.bin", bytes(range(256)) * 10, "unsupported_type"),
    "B42 nested archives only": ("a.zip", zipped({"1.zip": zipped(GOOD)}), "unsupported_type"),
    "JSON array": ("a.json", b'[{"text": "x"},\n {"text": "y"}]', "unsupported_type"),
    "more bad than good": ("a.jsonl", b'{"text":"x"}\n{\n{\n', "invalid_json"),
    "metadata with a hole": ("a.zip", zipped({**GOOD, "metadata.jsonl": b'{"label":1}'}), "missing_field"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_an_unusable_file_is_refused_with_its_code(tmp_path: Path, name: str) -> None:
    file, data, code = BAD_FILES[name]
    with pytest.raises(DataError) as caught:
        take(tmp_path, file, data)
    assert caught.value.code == code
    assert caught.value.error_class == "data"
    assert not (tmp_path / "run" / "artifact").exists()


def a_parquet(rows: int = 1000) -> bytes:
    out = io.BytesIO()
    parquet.write_table(arrow.table({"text": [f"row number {n}" for n in range(rows)]}), out)
    return out.getvalue()


def nested(depth: int) -> bytes:
    kind = arrow.string()
    value: object = "x"
    for _ in range(depth):
        kind, value = arrow.struct([("a", kind)]), {"a": value}
    out = io.BytesIO()
    parquet.write_table(arrow.table({"text": arrow.array([value], kind)}), out)
    return out.getvalue()


def packed_bomb() -> bytes:
    """Two gigabytes of text in some kilobytes: one long string, repeated by dictionary."""
    out = io.BytesIO()
    text = arrow.DictionaryArray.from_arrays(arrow.array([0] * 2_000, arrow.int32()), arrow.array(["x" * 1_000_000]))
    parquet.write_table(arrow.table({"text": text}), out, compression="zstd")
    return out.getvalue()


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


WHOLE = a_parquet()
BAD_PARQUET = {
    "B58 footer length lies": replaced(WHOLE, len(WHOLE) - 8, struct.pack("<I", 2**31 - 1)),
    "B58 footer length is zero": replaced(WHOLE, len(WHOLE) - 8, struct.pack("<I", 0)),
    "B58 truncated": WHOLE[: len(WHOLE) // 2],
    "B58 wrong magic at the end": WHOLE[:-4] + b"XXXX",
    "B58 header only": b"PAR1",
    "B58 noise in the pages": replaced(WHOLE, 4, bytes(range(256)) * 8),
    "B58 noise in the footer": replaced(WHOLE, len(WHOLE) - 200, b"\xff" * 150),
    "B58 dictionary bomb": packed_bomb(),
}


@pytest.mark.parametrize("name", BAD_PARQUET)
def test_broken_parquet_is_a_parquet_error_in_bounded_memory(tmp_path: Path, name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError) as caught:
        take(tmp_path, "a.parquet", BAD_PARQUET[name])
    assert (caught.value.code, caught.value.param) == ("parquet_error", "a.parquet")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024  # KiB


def test_a_column_that_is_not_text_is_reported_row_by_row(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        take(tmp_path, "a.parquet", nested(50))
    assert (caught.value.code, caught.value.param) == ("wrong_type", "a.parquet:1")


def test_fuzzed_parquet_never_crashes(tmp_path: Path) -> None:
    import random

    rng = random.Random(0)
    outcomes = set()
    for number in range(60):
        data = bytearray(a_parquet(50))
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(4, len(data) - 8)] = rng.randrange(256)
        (tmp_path / str(number)).mkdir()
        try:
            take(tmp_path / str(number), "a.parquet", bytes(data))
            outcomes.add("ready")
        except DataError as error:
            outcomes.add(error.code)
    assert outcomes <= {"ready", "parquet_error", "missing_column", "encoding_error", "wrong_type", "empty_dataset"}
    assert "parquet_error" in outcomes


def test_no_more_than_a_thousand_errors_are_kept_and_twenty_told(tmp_path: Path) -> None:
    made = take(tmp_path, "a.jsonl", b'{"text":"x"}\n' * 1500 + b"{\n" * 1400)
    assert made.summary["bad_rows"] == 1400
    assert len(made.errors) == 1000
    assert sum(event["type"] == "message" for event in made.events) == 20


def test_more_classes_than_a_classifier_can_have_are_refused(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps({"text": "x", "label": number}) for number in range(10_001))
    with pytest.raises(DataError) as caught:
        take(tmp_path, "a.jsonl", lines.encode())
    assert (caught.value.code, caught.value.param) == ("too_many_classes", "columns.label")


def test_a_table_inside_a_text_archive_is_reported(tmp_path: Path) -> None:
    made = take(tmp_path, "a.tar", tarred({"1.txt": b"one", "2.txt": b"two", "x.csv": b"text\nthree\n"}))
    assert made.errors == [("x.csv", 3, "unsupported_type")]


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><text>hello</text></svg>'


def test_an_svg_alone_in_a_zip_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        take(tmp_path, "x.zip", zipped({"a.svg": SVG}))
    assert caught.value.code == "unsupported_type"


def test_what_a_zip_holds_is_told_by_most_of_its_files_not_by_the_first(tmp_path: Path) -> None:
    made = take(tmp_path, "x.zip", zipped({"a/0.png": b"not a picture", "b/1.png": picture(1), "b/2.png": picture(2)}))
    assert made.summary["modality"] == "image" and made.errors == [("a/0.png", 1, "unsupported_type")]


def test_at_a_tie_a_file_that_is_surely_a_picture_counts_more(tmp_path: Path) -> None:
    made = take(tmp_path, "x.zip", zipped({"0.png": b"not a picture", "1.png": picture(1)}))
    assert made.summary["modality"] == "image" and made.summary["rows"] == 1


@pytest.mark.parametrize("header", ["text,text,label", "text,label,label", "text,tags,label,tags"])
def test_a_column_that_stands_twice_and_is_read_is_refused(tmp_path: Path, header: str) -> None:
    cells = ",".join("one" for _ in header.split(","))
    with pytest.raises(DataError) as caught:
        take(tmp_path, "a.csv", f"{header}\n{cells}\n".encode())
    assert (caught.value.code, caught.value.param) == ("duplicate_column", "columns")
    assert "give one of them another name" in caught.value.message


def test_an_unused_column_may_stand_twice(tmp_path: Path) -> None:
    made = take(tmp_path, "a.csv", b"text,note,note\na b c,x,y\n")
    assert [row["text"] for row in made.rows] == ["a b c"]
