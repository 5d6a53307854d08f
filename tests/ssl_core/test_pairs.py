"""Pictures with texts: the archives and tables they come in, the two towers, and models that take either side."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from ssl_core.backbones import BACKBONES, EncoderSpec
from ssl_core.batch import Pairs, Tokens, one_pair
from ssl_core.data.restated import Restated
from ssl_core.encoders import build_encoder
from ssl_core.encoders.dual import Dual
from ssl_core.errors import DataError
from ssl_core.inference import LoadedModel, load
from ssl_core.modalities.image_text import ImageTextModality
from ssl_core.pair_losses import fingerprints
from ssl_core.recipes import resolve
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.spec import JOB_SPEC, DatasetFacts
from tests.ssl_core import datasets
from tests.ssl_core.uploads import picture, take, tarred, zipped

PICTURES = {f"images/{number}.png": picture(number) for number in range(4)}


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def captions(**changed: Any) -> list[dict[str, Any]]:
    told = [{"image": f"images/{number}.png", "caption": f"picture {number}"} for number in range(4)]
    told[1] |= changed
    return told


@pytest.mark.parametrize("pack", [zipped, tarred], ids=["zip", "tar"])
@pytest.mark.parametrize("name", ["captions.jsonl", "metadata.jsonl"])
def test_an_archive_with_captions_is_a_set_of_pairs(tmp_path: Path, name: str, pack: Any) -> None:
    made = take(tmp_path, "a.zip", pack({**PICTURES, name: lines(*captions())}))
    assert made.summary["modality"] == "image_text" and made.errors == []
    assert [(row["text"], row["image"]) for row in made.rows] == [
        (f"picture {number}", PICTURES[f"images/{number}.png"]) for number in range(4)
    ]
    assert {row["source"] for row in made.rows} == {f"{name}:{number}" for number in range(1, 5)}
    assert [(made.rows[0][side]) for side in ("width", "height", "channels")] == [24, 16, 3]


def test_names_are_read_from_the_folder_of_the_captions(tmp_path: Path) -> None:
    files = {f"set/{name}": data for name, data in PICTURES.items()}
    assert len(take(tmp_path, "a.zip", zipped({**files, "set/captions.jsonl": lines(*captions())})).rows) == 4


@pytest.mark.parametrize("pack", [zipped, tarred], ids=["zip", "tar"])
def test_several_captions_of_a_picture_are_several_pairs(tmp_path: Path, pack: Any) -> None:
    told = [*captions(), {"image": "images/0.png", "caption": "once more"}]
    made = take(tmp_path, "a.zip", pack({**PICTURES, "captions.jsonl": lines(*told)}))
    assert sorted(row["text"] for row in made.rows if row["image"] == PICTURES["images/0.png"]) == [
        "once more", "picture 0"
    ]  # fmt: skip
    assert made.errors == [] and len(made.rows) == 5


def test_columns_may_have_other_names_and_a_label(tmp_path: Path) -> None:
    told = [{"file": f"images/{n}.png", "words": f"picture {n}", "group": "odd" if n % 2 else "even"} for n in range(4)]
    archive = zipped({**PICTURES, "captions.jsonl": lines(*told)})
    made = take(tmp_path, "a.zip", archive, columns={"text": "words", "label": "group"})
    assert made.summary["classes"] == ["even", "odd"] and made.rows[0]["text"] == "picture 0"


def test_an_archive_with_labels_only_stays_one_of_pictures(tmp_path: Path) -> None:
    told = [{"file_name": f"images/{number}.png", "label": "x"} for number in range(4)]
    made = take(tmp_path, "a.zip", zipped({**PICTURES, "metadata.jsonl": lines(*told)}))
    assert (made.summary["modality"], made.summary["labelled"]) == ("image", 4)


def test_captions_may_be_left_aside(tmp_path: Path) -> None:
    made = take(tmp_path, "a.zip", zipped({**PICTURES, "captions.jsonl": lines(*captions())}), modality="image")
    assert made.summary["modality"] == "image" and len(made.rows) == 4


BAD_ROWS: dict[str, tuple[dict[str, bytes], list[dict[str, Any]], tuple[str, int, str]]] = {
    "a picture without a line": ({}, captions()[:3], ("images/3.png", 4, "missing_field")),
    "a line without its picture": ({}, captions(image="images/9.png"), ("captions.jsonl", 2, "missing_file")),
    "an empty caption": ({}, captions(caption="  "), ("captions.jsonl", 2, "empty_text")),
    "a caption that is a number": ({}, captions(caption=7), ("captions.jsonl", 2, "wrong_type")),
    "a line without a caption": ({}, [*captions(), {"image": "images/0.png"}], ("captions.jsonl", 5, "missing_field")),
    "a line without a file": ({}, [*captions(), {"caption": "x"}], ("captions.jsonl", 5, "missing_field")),
    "a broken picture": (
        {"images/1.png": picture(1)[:60]}, captions(), ("captions.jsonl", 2, "decode_error")
    ),
    "something else than a picture": ({"images/1.png": b"text"}, captions(), ("captions.jsonl", 2, "unsupported_type")),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_pair_is_named_and_the_others_are_kept(tmp_path: Path, case: str) -> None:
    files, told, fault = BAD_ROWS[case]
    made = take(tmp_path, "a.zip", zipped({**PICTURES, **files, "captions.jsonl": lines(*told)}))
    assert fault in made.errors
    assert len(made.rows) >= 3


def test_a_broken_line_of_captions_is_a_bad_row(tmp_path: Path) -> None:
    made = take(tmp_path, "a.zip", zipped({**PICTURES, "captions.jsonl": lines(*captions()) + b"{no json\n\xff\n"}))
    assert made.errors == [("captions.jsonl", 5, "invalid_json"), ("captions.jsonl", 6, "encoding_error")]


def test_pairs_without_captions_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"captions\.jsonl") as caught:
        take(tmp_path, "a.zip", zipped(PICTURES), modality="image_text")
    assert (caught.value.code, caught.value.param) == ("missing_captions", "a.zip")


def test_a_parquet_of_pictures_and_texts_is_one_of_pairs(tmp_path: Path) -> None:
    images = [{"bytes": data, "path": None} for data in PICTURES.values()]
    out = io.BytesIO()
    pq.write_table(pa.table({"image": images, "caption": ["a", "b", " ", "d"]}), out)
    made = take(tmp_path, "a.parquet", out.getvalue())
    assert made.summary["modality"] == "image_text"
    assert [row["text"] for row in made.rows] == ["a", "b", "d"] and made.errors == [("a.parquet", 3, "empty_text")]


def test_profile_and_preview_are_of_both_sides(tmp_path: Path) -> None:
    twice = {**PICTURES, "images/4.png": PICTURES["images/0.png"]}
    told = [*captions(), {"image": "images/4.png", "caption": "picture 0"}]
    made = take(tmp_path, "a.zip", zipped({**twice, "captions.jsonl": lines(*told)}))
    known = {name: made.summary[name] for name in ("characters", "width", "height", "channels", "exact_duplicates")}
    assert known == {"characters": 45, "width": 24, "height": 16, "channels": 3, "exact_duplicates": 1}
    assert made.summary["lengths"]["median"] == 9
    first = made.read("preview.json")[0]
    assert first["text"] == "picture 0" and first["image"].startswith("data:image/png;base64,")


def test_the_recipe_takes_the_pictures_size_and_two_towers() -> None:
    facts = DatasetFacts(
        id="ds_1", modality="image_text", rows=3000, characters=60_000, width=24, height=40, channels=3
    )  # fmt: skip
    sent: Any = JOB_SPEC.validate_python({"type": "pretrain", "dataset": "ds_1", "objective": {"name": "clip"}})
    resolved: Any = resolve(sent, facts)
    assert (resolved.modality.size, resolved.modality.vocab_size, resolved.backbone.family) == (24, 1024, "dual")
    assert JOB_SPEC.validate_json(resolved.model_dump_json()) == resolved


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"image": None}, "a dual needs image"),
        ({"text": None}, "a dual needs text"),
        ({"image": "text-tiny"}, "image is of family"),
        ({"text": "image-convnet"}, "text is of family transformer"),
        ({"text": "text-huge"}, "unknown backbone 'text-huge'"),
        ({"family": "convnet"}, "image is for dual"),
    ],
)
def test_towers_that_do_not_fit_are_refused_by_name(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        EncoderSpec.model_validate({**BACKBONES["pair-tiny"].model_dump(), **fields})


def paired(dropout: float, name: str = "pair", seed: int = 0) -> Tokens:
    """The texts of a view: 400 of 1 to 8 tokens, five of them of one."""
    modality = ImageTextModality(size=8, text_dropout=dropout)
    lengths = torch.randint(1, 9, (400,), generator=torch.Generator().manual_seed(0))
    lengths[:5] = 1
    raw = {
        "image.pixels": torch.zeros(400, 3, 8, 8, dtype=torch.uint8),
        "image.mean": torch.zeros(400, 3),
        "image.std": torch.ones(400, 3),
        "text.ids": torch.arange(5, 13).repeat(400, 1),
        "text.word_starts": torch.ones(400, 8, dtype=torch.bool),
        "text.lengths": lengths,
    }
    view = modality.view(name, raw, torch.arange(400) + seed)
    assert view.text is not None
    return view.text


def test_a_pair_s_text_leaves_out_the_share_that_is_asked_but_never_all() -> None:
    whole, thinned = paired(0.0), paired(0.5)
    kept, real = thinned.segments >= 0, whole.segments >= 0
    assert not bool((kept & ~real).any()) and bool(kept.any(1).all())
    long = real.sum(1) == 8
    assert float(kept[long].float().mean()) == pytest.approx(0.5, abs=0.06)


def test_other_tokens_are_left_out_each_time_and_the_same_of_the_same_seed() -> None:
    once, again, other = paired(0.5), paired(0.5), paired(0.5, seed=400)
    assert torch.equal(once.segments, again.segments) and not torch.equal(once.segments, other.segments)


def test_a_plain_view_leaves_out_nothing() -> None:
    assert torch.equal(paired(0.5, "plain").segments, paired(0.0).segments)


def test_a_text_is_known_again_whatever_is_left_out_of_it() -> None:
    assert torch.equal(fingerprints(paired(0.5)), fingerprints(paired(0.0)))


def batch_of(folder: Path) -> tuple[Dual, Pairs]:
    modality = datasets.IMAGE_TEXT
    modality.prepare(datasets.image_text_dataset(folder / "d"), folder / "s", None, lambda done, total: None)
    source = modality.open(folder / "s")
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSpec.model_validate({**datasets.TINY_PAIR}), source.facts).eval()
    raw = {name: torch.from_numpy(values) for name, values in source.read("document", np.arange(5)).items()}
    view = modality.view("plain", raw, torch.zeros(5, dtype=torch.int64))
    assert isinstance(encoder, Dual) and isinstance(view, Pairs)
    return encoder, view


def test_a_sample_s_vector_is_the_picture_s_where_it_has_one_else_the_text_s(tmp_path: Path) -> None:
    encoder, view = batch_of(tmp_path)
    image, text = one_pair((view,))
    pictures, texts = encoder.of_images(image), encoder.of_texts(text)
    assert torch.equal(encoder(view), pictures)
    assert torch.equal(encoder(Pairs(None, text)), texts)
    some = torch.tensor([True, False, True, True, False])
    rest = type(text)(*(part[~some] for part in (text.ids, text.segments, text.positions)))
    mixed = encoder(Pairs(image[some], rest, some))
    torch.testing.assert_close(mixed, torch.where(some[:, None], pictures, texts), atol=1e-5, rtol=1e-5)


def test_a_loss_of_pairs_refuses_samples_of_one_side(tmp_path: Path) -> None:
    _, view = batch_of(tmp_path)
    with pytest.raises(TypeError, match="pictures with texts"):
        one_pair((Pairs(view.image, None),))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """CLIP on the toy pairs for a few steps, exported."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("clip")
    data = {"ds_toy": datasets.image_text_dataset(folder / "data")}
    spec = {"type": "pretrain", "dataset": "ds_toy", "objective": {"name": "clip"}, "modality": datasets.IMAGE_TEXT,
            "backbone": datasets.TINY_PAIR, "batch_size": 30, "budget": {"steps": 40}}  # fmt: skip
    datasets.order(folder / "run", spec, data)
    assert run(folder / "run", FileContext(folder / "run"))["status"] == "succeeded"
    assert (folder / "run" / "samples" / "neighbours.png").exists()
    return load(folder / "run" / "artifact")


def test_either_side_and_both_in_one_request_give_what_each_alone_gives(model: LoadedModel) -> None:
    image, text = picture(3, size=(8, 8)), "bright at the left number 3"
    items: list[Any] = [{"text": text}, {"image": image}, {"image": image, "text": text}, image, text]
    together = model.embed(items)
    alone = np.concatenate([model.embed([item]) for item in items])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together[1], together[2], atol=1e-5)
    assert not np.allclose(together[0], together[1], atol=1e-2)
    np.testing.assert_allclose(together[[1, 0]], together[[3, 4]], atol=1e-5)


def test_tokens_are_counted_of_all_that_was_sent(model: LoadedModel) -> None:
    image = picture(3, size=(8, 8))
    words, picture_only, both = model.token_counts(["left left", image, {"image": image, "text": "left left"}])
    assert picture_only == 1 and words >= 2 and both == words + 1


def test_texts_of_many_lengths_are_not_changed_by_each_other_s_padding(model: LoadedModel) -> None:
    texts = ["left", "bright at the middle number 9 and more and more of it", "top 4"]
    together = model.embed(texts)
    np.testing.assert_allclose(together, np.concatenate([model.embed([text]) for text in texts]), atol=1e-5)


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ({"image": "no bytes"}, "wrong_modality"),
        ({"text": b"bytes"}, "wrong_modality"),
        ({"sound": b"bytes"}, "wrong_modality"),
        ({}, "wrong_modality"),
        ({"text": "  "}, "empty_input"),
        (b"", "empty_input"),
        (b"not a picture", "unsupported_type"),
    ],
)
def test_a_bad_item_is_named_by_its_number(model: LoadedModel, item: Any, code: str) -> None:
    with pytest.raises(DataError) as caught:
        model.embed(["fine", item])
    assert (caught.value.code, caught.value.param) == (code, "input[1]")


def test_a_picture_of_another_dataset_is_normalised_as_the_model_s_were(tmp_path: Path) -> None:
    modality = datasets.IMAGE_TEXT
    modality.prepare(datasets.image_text_dataset(tmp_path / "d"), tmp_path / "s", None, lambda done, total: None)
    source = modality.open(tmp_path / "s")
    theirs = {"image": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}, "text": {}}
    read = Restated(source, theirs, []).read("document", np.arange(2))
    np.testing.assert_allclose(read["image.mean"], [[0.1, 0.2, 0.3]] * 2)
    np.testing.assert_allclose(read["image.std"], [[0.4, 0.5, 0.6]] * 2)
    np.testing.assert_array_equal(read["image.pixels"], source.read("document", np.arange(2))["image.pixels"])


def test_crops_of_no_size_are_refused() -> None:
    with pytest.raises(ValidationError, match="crop_min"):
        ImageTextModality(crop_min=0.9, crop_max=0.5)
