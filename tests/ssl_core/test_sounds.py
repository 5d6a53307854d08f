"""Sound files from strangers: what is read, how, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from ssl_core.data import sounds
from ssl_core.errors import DataError
from tests.ssl_core import uploads
from tests.ssl_core.tones import sound, tone

FORMATS = [
    ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "PCM_U8"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"),
    ("WAV", "ULAW"), ("WAV", "ALAW"), ("WAV", "IMA_ADPCM"), ("WAVEX", "PCM_16"), ("RF64", "PCM_16"), ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None),
]  # fmt: skip


def refused(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        sounds.decode(data, 8000)
    return caught.value.code


@pytest.mark.parametrize(("format", "subtype"), FORMATS)
def test_every_format_and_sample_type_is_told_by_its_bytes_and_decoded(format: str, subtype: str | None) -> None:
    data = sound(tone(300, 0.5, rate=8000), 8000, format, subtype)
    assert sounds.kind_of(data) == {"WAVEX": "WAV", "RF64": "WAV"}.get(format, format)
    samples = sounds.decode(data, 8000).samples
    spectrum = np.abs(np.fft.rfft(samples[: 8000 // 2], 8000))
    assert abs(int(spectrum.argmax()) - 300) <= 2
    assert samples.dtype == np.float32
    assert 0.4 < np.abs(samples).max() < 0.7


@pytest.mark.parametrize("rate", [1000, 5512, 7999, 11_025, 44_100, 48_000, 96_000, 192_000, 384_000])
def test_any_sample_rate_is_brought_to_the_one_asked_for(rate: int) -> None:
    decoded = sounds.decode(sound(tone(300, 0.25, rate=rate), rate, "WAV"), 8000)
    assert (decoded.rate, decoded.milliseconds) == (rate, 250)
    assert abs(len(decoded.samples) - 2000) <= 2
    assert abs(int(np.abs(np.fft.rfft(decoded.samples, 8000)).argmax()) - 300) <= 4


def test_channels_are_averaged() -> None:
    left, right = tone(200, 0.2), tone(500, 0.2, seed=1)
    stereo = sounds.decode(sound(np.stack([left, right], 1), 2000, subtype="FLOAT"), 2000)
    np.testing.assert_allclose(stereo.samples, (left + right) / 2, atol=1e-6)
    assert stereo.channels == 2


def test_real_numbers_beyond_one_are_brought_back_in_proportion() -> None:
    wave = tone(300, 0.2)
    loud = sounds.decode(sound(30_000 * wave, subtype="DOUBLE"), 2000).samples
    np.testing.assert_allclose(loud, wave / np.abs(wave).max(), atol=1e-5)


def test_twenty_milliseconds_are_enough_and_nineteen_are_not() -> None:
    assert sounds.decode(sound(tone(300, 0.02, rate=8000), 8000), 8000).milliseconds == 20
    assert refused(sound(tone(300, 0.019, rate=8000), 8000)) == "too_short"


def test_a_file_without_samples_is_too_short() -> None:
    assert refused(sound(np.zeros(0))) == "too_short"


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_silence_is_refused(level: float) -> None:
    assert refused(sound(np.full(2000, level))) == "silent"


def test_channels_that_cancel_each_other_are_silent() -> None:
    assert refused(sound(np.stack([tone(), -tone()], 1), subtype="FLOAT")) == "silent"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_finite_number_is_refused(value: float) -> None:
    wave = tone()
    wave[100] = value
    assert refused(sound(wave, subtype="FLOAT")) == "not_finite"


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_a_truncated_file_is_refused(format: str) -> None:
    data = sound(tone(300, 20), format=format)
    assert refused(data[: len(data) // 2]) == "decode_error"


@pytest.mark.parametrize("format", ["OGG", "MP3"])
def test_a_stream_that_ends_early_is_read_to_where_it_ends(format: str) -> None:
    data = sound(tone(300, 20, rate=8000), 8000, format)
    decoded = sounds.decode(data[: len(data) // 2], 8000)
    assert 5_000 < decoded.milliseconds < 15_000


@pytest.mark.parametrize("size", [0, 2**32 - 1])
def test_a_recording_from_a_pipe_that_does_not_know_its_size_is_read(size: int) -> None:
    data = bytearray(sound(tone(300, 0.2)))
    data[4:8] = struct.pack("<I", size)
    assert sounds.decode(bytes(data), 2000).milliseconds == 200


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG", "MP3"])
def test_broken_bytes_end_in_an_error_of_ours_or_in_sound(format: str) -> None:
    data = sound(tone(300, 1, rate=8000), 8000, format)
    random = np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(data)
        for place in random.integers(4 if format == "MP3" else 12, len(data), 20):
            broken[place] = int(random.integers(256))
        try:
            decoded = sounds.decode(bytes(broken), 8000)
        except DataError as error:
            assert error.message
        else:
            assert np.isfinite(decoded.samples).all()


def test_a_flac_header_that_claims_hours_is_refused_before_anything_is_decoded() -> None:
    data = bytearray(sound(tone(rate=8000), 8000, "FLAC"))
    # STREAMINFO's 36 bits of total samples: an hour.
    claimed = int.from_bytes(data[18:26], "big") >> 36 << 36 | 8000 * 3600
    data[18:26] = claimed.to_bytes(8, "big")
    assert refused(bytes(data)) == "too_long"


@pytest.mark.parametrize("format", ["FLAC", "OGG"])
def test_a_file_packed_too_tightly_is_a_bomb(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setattr(sounds, "SMALL", 1000)
    monkeypatch.setattr(sounds, "MAX_RATIO", 2)
    quiet = np.zeros(80_000)
    quiet[0] = 0.5
    assert refused(sound(quiet, 8000, format)) == "audio_bomb"


def test_a_clip_over_the_limit_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "MAX_SECONDS", 1)
    assert refused(sound(tone(300, 1.1))) == "too_long"
    assert refused(sound(tone(300, 1.1, rate=8000), 8000, "MP3")) == "too_long"


def test_a_header_that_claims_an_absurd_rate_is_refused() -> None:
    data = bytearray(sound())
    data[24:28] = struct.pack("<I", 2_000_000)
    assert refused(bytes(data)) == "unsupported_rate"
    data[24:28] = struct.pack("<I", 500)
    assert refused(bytes(data)) == "unsupported_rate"


def test_too_many_channels_are_refused() -> None:
    assert refused(sound(np.zeros((100, 33)))) == "too_many_channels"


@pytest.mark.parametrize(
    "data",
    [
        b"hello there", b"", b"\x00\x00\x00\x20ftypM4A ", b"RIFF\x00\x00\x00\x00WEBPVP8 ", b"\xff\xd8\xff\xe0",
        b"BMarch",
        b"\xff\xfeh\x00i\x00", b"FORM\x00\x00\x00\x00AIFF", uploads.picture(), uploads.picture(format="JPEG"),
    ],
)  # fmt: skip
def test_what_is_no_sound_of_an_allowed_format_is_refused(data: bytes) -> None:
    assert sounds.kind_of(data) is None
    assert refused(data) == "unsupported_type"


def test_a_wrong_ending_does_not_matter(tmp_path: Path) -> None:
    ogg = sound(tone(rate=8000), 8000, "OGG")
    files = {"a/1.mp3": sound(format="WAV"), "b/2.txt": ogg, "a/3": sound(format="FLAC")}
    taken = uploads.take(tmp_path, "sounds.zip", uploads.zipped(files))
    assert taken.summary["modality"] == "audio"
    assert [row["label"] for row in taken.rows] == ["a", "b", "a"]
