"""An exported model, opened in any process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from ssl_core.durable import committed
from ssl_core.errors import CheckpointError, DataError, SpecError
from ssl_core.inference import LoadedModel, load
from ssl_core.samples import batches_of
from tests.model_folders import CLASSES, image_model, picture, text_model, texts


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(text_model(tmp_path_factory.mktemp("text") / "model"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(image_model(tmp_path_factory.mktemp("image") / "model"))


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_a_batch_of_texts_gives_the_vectors_of_each_text_alone(text: LoadedModel, pooling: str) -> None:
    documents = texts(60)
    together = text.embed(documents, pooling)
    alone = np.concatenate([text.embed([document], pooling) for document in documents])
    assert together.dtype == np.float32 and together.shape == (60, 32)
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_batch_of_pictures_gives_the_vectors_of_each_picture_alone(image: LoadedModel, pooling: str) -> None:
    pictures = [picture(seed, (16 + seed, 20)) for seed in range(9)]
    together = image.embed(pictures, pooling)
    alone = np.concatenate([image.embed([one], pooling) for one in pictures])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_poolings_differ(text: LoadedModel) -> None:
    documents = texts(3)
    found = [text.embed(documents, pooling) for pooling in ("mean", "cls", "max")]
    assert not any(np.allclose(a, b, atol=1e-3) for a, b in [(found[0], found[1]), (found[0], found[2])])


def test_tokens_give_the_vectors_of_their_text(text: LoadedModel) -> None:
    from ssl_core.data import tokenizer

    document = "bread oven salt"
    ids = tokenizer.encode(tokenizer.load(text.folder / "tokenizer.json"), [document])[0]
    np.testing.assert_array_equal(text.embed([ids]), text.embed([document]))


def test_a_long_text_is_cut_at_the_models_length_and_the_count_says_so(text: LoadedModel) -> None:
    assert text.token_counts(["bread " * 500, "bread"]) == [24, 1]
    np.testing.assert_array_equal(text.embed(["bread " * 500]), text.embed(["bread " * 900]))


def test_batches_waste_less_than_a_quarter_on_padding(text: LoadedModel) -> None:
    samples = text.read(texts(300))
    batches = batches_of(samples, 400)
    assert sorted(at for batch in batches for at in batch) == list(range(300))
    slots = sum(len(batch) * max(samples[at].cost for at in batch) for batch in batches)
    assert max(len(batch) * max(samples[at].cost for at in batch) for batch in batches) <= 400
    assert sum(sample.cost for sample in samples) / slots > 0.75


def test_cls_is_refused_where_the_encoder_has_no_tokens(image: LoadedModel) -> None:
    with pytest.raises(SpecError) as caught:
        image.embed([picture()], "cls")
    assert caught.value.code == "unsupported_pooling" and "mean, max" in caught.value.message


@pytest.mark.parametrize("bad", ["", "  \n", []])
def test_an_empty_text_is_named(text: LoadedModel, bad: str | list[int]) -> None:
    with pytest.raises(DataError) as caught:
        text.read(["good", bad])
    assert (caught.value.code, caught.value.param) == ("empty_input", "input[1]")


def test_an_unknown_token_is_named(text: LoadedModel) -> None:
    with pytest.raises(DataError) as caught:
        text.read(["good", [1, 10**6]])
    assert (caught.value.code, caught.value.param) == ("invalid_input", "input[1]")


@pytest.mark.parametrize("bad", [b"not a picture", picture()[:60], b"GIF89a" + bytes(40)])
def test_an_undecodable_picture_is_named(image: LoadedModel, bad: bytes) -> None:
    with pytest.raises(DataError) as caught:
        image.read([picture(), bad])
    assert caught.value.param == "input[1]"


def test_text_models_refuse_pictures_and_image_models_texts(text: LoadedModel, image: LoadedModel) -> None:
    for model, item in ((text, picture()), (image, "a text")):
        with pytest.raises(DataError) as caught:
            model.read([item])
        assert (caught.value.code, caught.value.param) == ("wrong_modality", "input[0]")


def test_an_encoder_without_a_task_does_not_predict(text: LoadedModel) -> None:
    with pytest.raises(SpecError) as caught:
        text.predict(["bread"])
    assert caught.value.code == "no_task"


@pytest.mark.parametrize("make", [text_model, image_model])
def test_predictions_name_a_class_and_every_probability(make: object, tmp_path: Path) -> None:
    model = load(make(tmp_path / "model", task=True))  # type: ignore[operator]
    items = texts(20) if make is text_model else [picture(seed) for seed in range(5)]
    answers = model.predict(items)
    alone = [model.predict([item])[0] for item in items]
    for answer, single in zip(answers, alone, strict=True):
        assert set(answer["probabilities"]) == set(CLASSES)
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].__getitem__)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert single["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


def test_the_size_is_that_of_the_weights(text: LoadedModel) -> None:
    weights = load_file(text.folder / "model.safetensors")
    assert text.size_bytes >= sum(tensor.numel() * 4 for tensor in weights.values())


def test_pretraining_heads_are_left_out(tmp_path: Path) -> None:
    folder = text_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    config = (folder / "config.json").read_text()
    codec = (folder / "tokenizer.json").read_text()
    with committed(folder) as out:
        save_file({**weights, "parts.head.weight": weights["encoder.token.weight"].clone()}, out / "model.safetensors")
        (out / "config.json").write_text(config)
        (out / "tokenizer.json").write_text(codec)
    assert load(folder).embed(["bread"]).shape == (1, 32)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_file_is_refused(name: str, tmp_path: Path) -> None:
    folder = text_model(tmp_path / "model")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load(folder)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = text_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["backbone"]["depth"] = 3
    weights, codec = load_file(folder / "model.safetensors"), (folder / "tokenizer.json").read_text()
    with committed(folder) as out:
        save_file(weights, out / "model.safetensors")
        (out / "config.json").write_text(json.dumps(config))
        (out / "tokenizer.json").write_text(codec)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert caught.value.code == "invalid_model"


def test_a_pickle_in_the_place_of_the_weights_never_runs(tmp_path: Path) -> None:
    folder = text_model(tmp_path / "model")
    canary = tmp_path / "canary"
    payload = b"cposix\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
    kept = {name: (folder / name).read_text() for name in ("config.json", "tokenizer.json")}
    with committed(folder) as out:
        (out / "model.safetensors").write_bytes(payload)
        for name, content in kept.items():
            (out / name).write_text(content)
    with pytest.raises(CheckpointError):
        load(folder)
    assert not canary.exists()
