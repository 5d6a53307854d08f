"""Uploads of sounds: archives, tables, what each row becomes, and rows that are no sounds."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from ssl_core.errors import DataError
from tests.ssl_core import uploads
from tests.ssl_core.tones import sound, tone


def table(**columns: Any) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pa.table(columns), out)
    return out.getvalue()


def clips(count: int) -> list[bytes]:
    """Tones that rise at different speeds."""
    return [sound(tone(100 + 40 * at, 0.3, rise=900 * at, rate=8000, seed=at), 8000) for at in range(count)]


@pytest.mark.parametrize("on_the_hub", [False, True])
def test_parquet_holds_files_as_bytes_or_as_on_the_hub(tmp_path: Path, on_the_hub: bool) -> None:
    files = clips(3)
    cells = [{"bytes": one, "path": f"{at}.wav"} for at, one in enumerate(files)] if on_the_hub else files
    taken = uploads.take(tmp_path, "digits.parquet", table(audio=cells, label=["one", "two", "one"]))
    assert taken.summary["modality"] == "audio"
    assert [row["audio"] for row in taken.rows] == files
    assert [(row["label"], row["rate"], row["channels"]) for row in taken.rows][1] == ("two", 8000, 1)


def test_a_parquet_cell_that_is_no_sound_is_a_bad_row(tmp_path: Path) -> None:
    cells = [*clips(3), b"", b"hello there", None]
    taken = uploads.take(tmp_path, "digits.parquet", table(audio=pa.array(cells, pa.binary())))
    codes = [("digits.parquet", 4, "unsupported_type"), ("digits.parquet", 5, "unsupported_type")]
    assert len(taken.rows) == 3
    assert taken.errors == [*codes, ("digits.parquet", 6, "wrong_type")]


def test_a_metadata_csv_labels_the_files_of_an_archive(tmp_path: Path) -> None:
    files = {f"clips/{at}.wav": one for at, one in enumerate(clips(3))}
    rows = ["\ufefffile_name,label,speaker", '2.wav,"low, then high",x', "0.wav,b,y", "1.wav,,z", ""]
    files["clips/metadata.csv"] = "\r\n".join(rows).encode()
    taken = uploads.take(tmp_path, "sounds.zip", uploads.zipped(files))
    assert taken.summary["modality"] == "audio"
    assert [row["label"] for row in taken.rows] == ["b", None, "low, then high"]


@pytest.mark.parametrize(
    ("rows", "code", "where"),
    [
        (b"file_name,label\n0.wav,a\n1.wav\n", "missing_field", "metadata.csv:2"),
        (b"name,label\n0.wav,a\n1.wav,b\n", "missing_field", "metadata.csv:1"),
        (b'file_name,label\n0.wav,a\n1.wav,"b\n', "invalid_row", "metadata.csv:2"),
        (b"file_name,label\n0.wav,\xff\n", "encoding_error", "metadata.csv:0"),
    ],
)
def test_a_broken_metadata_csv_is_refused_at_its_row(tmp_path: Path, rows: bytes, code: str, where: str) -> None:
    files = {f"{at}.wav": one for at, one in enumerate(clips(2))}
    with pytest.raises(DataError) as caught:
        uploads.take(tmp_path, "sounds.zip", uploads.zipped({**files, "metadata.csv": rows}))
    assert (caught.value.code, caught.value.param) == (code, where)


def test_clips_of_any_rate_depth_and_number_of_channels_become_rows(tmp_path: Path) -> None:
    stereo = np.stack([tone(rate=11_025), tone(500, rate=11_025, seed=1)], 1)
    files = {
        "deep.wav": sound(tone(rate=44_100), 44_100, subtype="PCM_24"),
        "odd.flac": sound(tone(rate=7919), 7919, "FLAC"),
        "stereo.wav": sound(stereo, 11_025),
    }
    taken = uploads.take(tmp_path, "sounds.zip", uploads.zipped(files))
    assert [(row["rate"], row["channels"]) for row in taken.rows] == [(44_100, 1), (7919, 1), (11_025, 2)]
    assert taken.read("profile.json")["lengths"]["median"] == 200


def test_what_cannot_be_heard_is_a_bad_row_and_the_rest_is_taken(tmp_path: Path) -> None:
    files = {f"a/{at}.wav": one for at, one in enumerate(clips(7))}
    files |= {
        "b/click.wav": sound(tone(300, 0.01)),
        "b/empty.wav": b"",
        "b/half.wav": sound()[:300],
        "b/nothing.wav": sound(np.zeros(0)),
        "b/silent.wav": sound(np.zeros(2000)),
    }
    taken = uploads.take(tmp_path, "sounds.zip", uploads.zipped({**files, "b/text.wav": b"hello"}), modality="audio")
    assert len(taken.rows) == 7
    codes = {file: code for file, _, code in taken.errors}
    assert codes == {
        "b/click.wav": "too_short",
        "b/empty.wav": "unsupported_type",
        "b/half.wav": "decode_error",
        "b/nothing.wav": "too_short",
        "b/silent.wav": "silent",
        "b/text.wav": "unsupported_type",
    }


def test_a_quieter_copy_and_one_packed_otherwise_are_near_duplicates(tmp_path: Path) -> None:
    wave = tone(300, 0.5, rise=4000, rate=8000)
    takes = {
        "first.wav": sound(wave, 8000),
        "other.wav": sound(tone(2500, 0.5, rise=-4000, rate=8000, seed=2), 8000),
        "packed.flac": sound(wave, 8000, "FLAC"),
        "quieter.wav": sound(0.3 * wave, 8000),
        "same.wav": sound(wave, 8000),
    }
    profile = uploads.take(tmp_path, "sounds.zip", uploads.zipped(takes)).read("profile.json")
    assert profile["exact_duplicates"] == 1
    assert profile["near_duplicates"] == 2


def test_the_preview_shows_a_rising_tone_rising(tmp_path: Path) -> None:
    files = {"rising.wav": sound(tone(200, 0.5, rise=6000, rate=8000), 8000), "b.wav": clips(1)[0]}
    taken = uploads.take(tmp_path, "sounds.zip", uploads.zipped(files))
    shown = next(row for row in taken.read("preview.json") if row["source"].startswith("rising"))
    assert (shown["rate"], shown["channels"], shown["milliseconds"]) == (8000, 1, 500)
    head, _, data = shown["audio"].partition(",")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert head == "data:image/png;base64" and picture.shape == (48, 128)
    loudest = picture[:, 4:124].argmax(0)  # rows count from the highest note
    assert loudest[0] > loudest[60] > loudest[-1]
    json.dumps(shown)
