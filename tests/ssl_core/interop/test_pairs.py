"""Public pairs of towers: CLIP and SigLIP come in, embed as they do elsewhere, start our pretraining, and go out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from ssl_core.backbones import EncoderSpec
from ssl_core.encoders import build_encoder
from ssl_core.errors import EngineError, SpecError
from ssl_core.export import open_base
from ssl_core.inference import load
from ssl_core.interop.base import Shape
from ssl_core.modalities.image_text import ImageTextModality
from ssl_core.objectives.clip import CLIP
from ssl_core.objectives.siglip import SigLIP
from ssl_core.run import run
from ssl_core.run_context import FileContext
from ssl_core.spec import ModelFacts

transformers = pytest.importorskip("transformers")

from tests.ssl_core import datasets  # noqa: E402
from tests.ssl_core.interop.families import pair, randomised  # noqa: E402
from tests.ssl_core.interop.folders import WORDS, exported, imported, model_folder, zipped  # noqa: E402

MEAN, STD = [0.48, 0.45, 0.41], [0.27, 0.26, 0.28]
TEXTS = ["word1 word2", "word3", " ".join(f"word{at}" for at in range(30))]
SIDE, READ = 24, 16


def public(name: str, folder: Path, **pictures: int) -> Any:
    """The small public pair, written as its zip would hold it, with a scale of its own."""
    torch.manual_seed(0)
    model: Any = randomised(pair(name, **pictures))
    with torch.no_grad():
        model.logit_scale.fill_(3.25)
        if name == "siglip":
            model.logit_bias.fill_(-4.5)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": MEAN, "image_std": STD}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "[PAD]"}}))
    made = Tokenizer(models.WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    frame, ends = ("$A [SEP]", [("[SEP]", 3)]) if name == "siglip" else ("[CLS] $A [SEP]", [("[CLS]", 2), ("[SEP]", 3)])
    made.post_processor = processors.TemplateProcessing(single=frame, special_tokens=ends)
    made.save(str(folder / "tokenizer.json"))
    return model


def brought(name: str, tmp_path: Path, **pictures: int) -> tuple[Any, Path]:
    """The public model, and the folder of what it was imported as."""
    model = public(name, tmp_path / "public", **pictures)
    imported(zipped(tmp_path / "public", tmp_path / "public.zip"), tmp_path / "import")
    return model, tmp_path / "import" / "artifact"


def picture(seed: int) -> tuple[bytes, torch.Tensor]:
    """A PNG of the size that the tower reads, and what the public preprocessor makes of it."""
    values = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    scaled = torch.from_numpy(values).permute(2, 0, 1).float() / 255
    return file.getvalue(), (scaled - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def features(found: Any) -> np.ndarray[Any, Any]:
    return np.asarray(getattr(found, "pooler_output", found).detach())


def batch(name: str, folder: Path) -> dict[str, torch.Tensor]:
    """The texts as the public tokenizer of the folder gives them, cut and padded as the model's authors do."""
    codec = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token="[PAD]", model_max_length=READ
    )
    padding = "max_length" if name == "siglip" else True
    made = codec(TEXTS, padding=padding, truncation=True, return_tensors="pt")
    return {"input_ids": made["input_ids"]} | ({} if name == "siglip" else {"attention_mask": made["attention_mask"]})


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_an_imported_pair_embeds_texts_and_pictures_as_the_public_one(name: str, tmp_path: Path) -> None:
    model, folder = brought(name, tmp_path)
    ours = load(folder)
    with torch.no_grad():
        words = features(model.get_text_features(**batch(name, tmp_path / "public")))
        shown = [picture(seed) for seed in range(3)]
        pictures = features(model.get_image_features(pixel_values=torch.stack([pixels for _, pixels in shown])))
    assert np.abs(ours.embed(TEXTS) - words).max() <= 1e-5
    assert np.abs(ours.embed([file for file, _ in shown]) - pictures).max() <= 1e-5


def test_a_text_cut_at_the_end_keeps_the_entry_that_ends_it(tmp_path: Path) -> None:
    _, folder = brought("clip", tmp_path)
    read = load(folder).read([TEXTS[2]])[0].raw
    assert read["text.ids"].shape == (1, READ) and int(read["text.ids"][0, -1]) == 3


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_an_import_of_an_export_has_the_same_bits_the_scale_s_too(name: str, tmp_path: Path) -> None:
    _, first = brought(name, tmp_path)
    out, verdict = exported(first, tmp_path / "export", "hf")
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4
    again, _ = imported(zipped(out, tmp_path / "again.zip"), tmp_path / "again")
    assert again["summary"]["imported"]["missing"] == 0
    before, after = (load_file(at / "model.safetensors") for at in (first, tmp_path / "again" / "artifact"))
    assert before.keys() == after.keys() and "parts.scale.logarithm" in before
    assert all(torch.equal(value.view(torch.int32), after[place].view(torch.int32)) for place, value in before.items())
    kept = [json.loads((at / "config.json").read_text()) for at in (first, tmp_path / "again" / "artifact")]
    assert all(kept[0][part] == kept[1][part] for part in ("modality", "backbone", "facts"))


def test_pretraining_goes_on_from_the_imported_scale_where_the_loss_is_the_same(tmp_path: Path) -> None:
    _, folder = brought("siglip", tmp_path)
    base = open_base(folder)
    encoder = build_encoder(base.backbone, base.facts)
    same, other = SigLIP().build(encoder), CLIP().build(encoder)
    base.load_parts(same)
    base.load_parts(other)
    assert [round(value.item(), 3) for value in same.parts["scale"].state_dict().values()] == [3.25, -4.5]
    assert other.parts["scale"]().item() == pytest.approx(1 / 0.07)


def captioned(folder: Path) -> Path:
    """Pictures of 8 x 8 pixels, each with a word that the toy's vocabulary has."""
    rows = pq.read_table(datasets.image_dataset(folder / "pictures") / "rows-00000.parquet")
    texts = [f"word{row} word{row % 7}" for row in range(rows.num_rows)]
    columns = {**{name: rows[name] for name in rows.column_names}, "text": texts}
    profile = {"modality": "image_text", "characters": sum(map(len, texts)), "width": 8, "height": 8, "channels": 3}
    return datasets.write_dataset(folder / "pairs", columns, profile)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_an_imported_pair_is_pretrained_on(name: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    _, start = brought(name, tmp_path, image_size=8, patch_size=4)
    rows = captioned(tmp_path / "rows")
    config = json.loads((start / "config.json").read_text())
    facts = ModelFacts.model_validate_json(
        json.dumps({"id": "mdl_a", **{part: config[part] for part in ("modality", "backbone", "objective")}})
    )
    spec = {"type": "pretrain", "objective": {"name": name}, "dataset": "ds_toy", "model": "mdl_a",
            "budget": {"steps": 3}, "batch_size": 8}  # fmt: skip
    datasets.order(tmp_path / "run", spec, {"ds_toy": rows}, base=facts, model=str(start))
    verdict = run(tmp_path / "run", FileContext(tmp_path / "run"))
    assert verdict["status"] == "succeeded", verdict
    before, after = load_file(start / "model.safetensors"), load_file(tmp_path / "run" / "artifact/model.safetensors")
    assert before.keys() == after.keys()
    assert 0 < max(float((after[place] - value).abs().max()) for place, value in before.items()) < 0.1


def shaped(**changes: Any) -> Shape:
    """A pair of ours in CLIP's shape, as from-scratch training makes it."""
    base: dict[str, Any] = {"name": "custom", "width": 32, "depth": 1, "heads": 4, "positions": "learned",
                            "embedding_norm": False}  # fmt: skip
    text = {**base, "family": "transformer", "attention": "causal", "pooling": "last", "max_positions": 12}
    image = {**base, "family": "vit", "patch_size": 8, "class_tokens": 1, "pooling": "cls", "embedding_norm": True,
             "first_norm": True, "patch_bias": False}  # fmt: skip
    spec = {"name": "custom", "family": "dual", "width": 16, "depth": 1, "image": image, "text": text}
    reads: dict[str, Any] = {"size": SIDE, "vocab_size": 512, "max_length": 12, "special_tokens": True}
    modality = ImageTextModality.model_validate({**reads, **changes.pop("modality", {})})
    facts = {
        "image": {"channels": 3, "size": SIDE, "side": SIDE, "mean": MEAN, "std": STD},
        "text": {"vocab_size": 80, "max_length": 12, "pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4},
    }
    return Shape(EncoderSpec.model_validate({**spec, **changes}), modality, facts)


def test_a_pair_of_ours_in_clip_s_shape_is_exported_as_clip(tmp_path: Path) -> None:
    shape = shaped()
    chosen = model_folder(tmp_path / "model", shape, build_encoder(shape.backbone, dict(shape.facts)))
    folder, verdict = exported(chosen, tmp_path / "export", "hf")
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["CLIPModel"]
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4


CONV = {"name": "custom", "family": "convnet", "width": 16, "depth": 2}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"modality": {"special_tokens": False}}, "modality.special_tokens"),
        ({"modality": {"filler": "[PAD]"}}, "does not read what fills a text"),
        ({"image": CONV}, "CLIPVisionModel"),
        ({"text": {**CONV, "family": "transformer", "width": 32, "heads": 4}}, "pre-norm trunk with learned positions"),
    ],
)
def test_a_pair_that_is_no_clip_is_refused_with_the_reason(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    shape = shaped(**changes)
    chosen = model_folder(tmp_path / "model", shape, build_encoder(shape.backbone, dict(shape.facts)))
    with pytest.raises(SpecError) as caught:
        exported(chosen, tmp_path / "export", "hf")
    assert caught.value.code == "export_unsupported" and told in caught.value.message


@pytest.mark.parametrize(
    ("name", "file", "change", "code"),
    [
        ("siglip", "tokenizer_config.json", {"pad_token": "</s>"}, "tokenizer_mismatch"),
        ("siglip", "config.json", {"text_config": [1]}, "unsupported_config"),
        ("siglip", "config.json", {"vision_config": {"num_channels": 7}}, "unsupported_config"),
        ("clip", "config.json", {"text_config": {"eos_token_id": 99}}, "unsupported_config"),
        ("clip", "config.json", {"projection_dim": 0}, "unsupported_config"),
    ],
)
def test_a_pair_that_says_what_we_cannot_do_is_refused(
    name: str, file: str, change: dict[str, Any], code: str, tmp_path: Path
) -> None:
    folder = tmp_path / "public"
    public(name, folder)
    told = json.loads((folder / file).read_text())
    for field, value in change.items():
        told[field] = {**told[field], **value} if isinstance(value, dict) else value
    (folder / file).write_text(json.dumps(told))
    with pytest.raises(EngineError) as caught:
        imported(zipped(folder, tmp_path / "public.zip"), tmp_path / "import")
    assert caught.value.code == code
