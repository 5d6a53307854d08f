"""The measurements of a dataset, and its duplicates."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ssl_core.data import duplicates
from ssl_core.data.lines import lines
from tests.ssl_core.uploads import picture, take, zipped

WORDS = [f"w{number:03}" for number in range(400)]


def document(seed: int, count: int = 60) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, count))


def test_lengths_are_order_statistics_of_characters(tmp_path: Path) -> None:
    rows = ["ü" * size for size in range(1, 102)]
    made = take(tmp_path, "a.txt", "\n".join(rows).encode())
    assert made.summary["lengths"] == {"min": 1, "median": 51, "p95": 96, "max": 101}
    assert made.summary["characters"] == sum(range(1, 102))


def test_classes_are_counted_and_sorted(tmp_path: Path) -> None:
    made = take(tmp_path, "a.csv", b"text,label\na,z\nb,b\nc,z\nd,\n")
    assert made.summary["class_counts"] == {"b": 1, "z": 2}
    assert list(made.summary["class_counts"]) == made.summary["classes"] == ["b", "z"]
    assert (made.summary["rows"], made.summary["labelled"]) == (4, 3)


def test_exact_duplicates_are_rows_that_came_before(tmp_path: Path) -> None:
    made = take(tmp_path, "a.txt", b"one\ntwo\none\none\nthree\ntwo\n")
    assert made.summary["exact_duplicates"] == 3
    assert made.summary["near_duplicates"] == 0


def test_near_texts_are_found_and_different_ones_are_not(tmp_path: Path) -> None:
    originals = [document(seed) for seed in range(200)]
    changed = [text.replace(text.split()[30], "changed", 1).upper() for text in originals[:20]]
    made = take(tmp_path, "a.txt", "\n".join([*originals, *changed]).encode())
    assert made.summary["exact_duplicates"] == 0
    assert made.summary["near_duplicates"] >= 17
    alone = take(tmp_path, "a.txt", "\n".join(originals).encode())
    assert alone.summary["near_duplicates"] == 0


def test_the_sketch_estimates_the_share_of_common_shingles() -> None:
    estimates, truths = [], []
    for seed in range(60):
        words = document(seed, 120).split()
        other = document(seed + 1000, 120).split()
        kept = 20 + seed
        texts = [" ".join(words), " ".join(words[: 2 * kept // 2] + other[kept:])]
        sets = [{text[place : place + 8] for place in range(len(text) - 7)} for text in texts]
        truths.append(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
        one, two = (duplicates.text_sketch(text.encode()) for text in texts)
        estimates.append(float((one == two).mean()))
    assert abs(np.mean(estimates) - np.mean(truths)) < 0.03
    assert np.corrcoef(estimates, truths)[0, 1] > 0.7


def test_short_and_empty_texts_have_sketches_too() -> None:
    same = duplicates.text_sketch(b"ab"), duplicates.text_sketch(b" AB ")
    assert (same[0] == same[1]).all()
    assert (duplicates.text_sketch(b"ab") != duplicates.text_sketch(b"cd")).any()


def smooth(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((72, 72), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def test_near_pictures_are_found_and_different_ones_are_not(tmp_path: Path) -> None:
    originals = {f"a{seed}.jpg": encoded(smooth(seed), 95) for seed in range(60)}
    again = {f"b{seed}.jpg": encoded(smooth(seed).resize((50, 50)), 70) for seed in range(20)}
    copies = {f"c{seed}.jpg": originals[f"a{seed}.jpg"] for seed in range(3)}
    made = take(tmp_path, "x.zip", zipped({**originals, **again, **copies}))
    assert made.summary["exact_duplicates"] == 3
    assert made.summary["near_duplicates"] >= 17
    assert take(tmp_path, "x.zip", zipped(originals)).summary["near_duplicates"] == 0


def test_image_sizes_are_medians_and_grey_sets_have_one_channel(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(n, size=size, mode="L") for n, size in enumerate([(8, 30), (10, 20), (40, 25)])}
    made = take(tmp_path, "x.zip", zipped(files))
    assert (made.summary["width"], made.summary["height"], made.summary["channels"]) == (10, 25, 1)
    assert made.summary["lengths"] == {"min": 8, "median": 10, "p95": 25, "max": 25}


def test_lines_are_numbered_across_blocks_and_blank_runs() -> None:
    data = b"a\n" + b"\n" * 3_000_000 + b"b" * 1_500_000 + b"\nc"
    found = list(lines(io.BytesIO(data), 2_000_000))
    texts = [(number, line) for number, line in found if line is None or line.strip()]
    assert texts == [(1, b"a\n"), (3_000_002, b"b" * 1_500_000 + b"\n"), (3_000_003, b"c")]


def test_a_line_too_long_is_none_wherever_it_ends() -> None:
    for tail in (b"", b"\n", b"\nnext"):
        found = list(lines(io.BytesIO(b"ok\n" + b"x" * 5_000_000 + tail), 1000))
        assert found[:2] == [(1, b"ok\n"), (2, None)]
        assert found[2:] == ([(3, b"next")] if tail == b"\nnext" else [])
