"""The translation task: beam search, scores, what it starts from, a whole run and its model elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sacrebleu
import torch
import torch.nn.functional as F

from ssl_core import inference
from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Batch, Tokens
from ssl_core.beam import Search, search
from ssl_core.context import MemoryContext
from ssl_core.data.tokenizer import load as load_tokenizer
from ssl_core.denoise import decoder_of, embedded, read, table, translate, writer_nets
from ssl_core.encoders import build_encoder
from ssl_core.encoders.decoder import Generation
from ssl_core.errors import SpecError
from ssl_core.modalities.text import TextModality
from ssl_core.nets import Nets
from ssl_core.recipes import resolve
from ssl_core.run import execute, run
from ssl_core.run_context import FileContext
from ssl_core.spec import JOB_SPEC, DatasetFacts, FinetuneSpec, ModelFacts, RunOrder, TargetFacts
from ssl_core.tasks.translation import Translation
from tests.ssl_core import datasets
from tests.ssl_core.test_decoder import BART, FACTS, from_bart
from tests.ssl_core.test_parity_trunks import randomised, tokens_with_padding
from tests.ssl_core.uploads import take

END = 3


def nets() -> Nets:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderSpec.model_validate(BART), FACTS)
    return randomised(writer_nets(encoder, 0, 0)).eval()


def looked(nets: Nets, source: Tokens, how: Search, ending: float = 0.0) -> list[list[int]]:
    """Beam search where the end has an advantage, or texts of random nets would never end."""
    bias = torch.zeros(120)
    bias[END] = ending

    def step(last: torch.Tensor, generation: Generation) -> torch.Tensor:
        out = decoder_of(nets).step(embedded(nets, last), generation)[:, -1]
        return F.linear(out, table(nets)) + bias

    with torch.no_grad():
        generation = decoder_of(nets).start(read(nets, source), source)
        return search(step, generation, len(source.ids), how, torch.device("cpu"))


@pytest.mark.parametrize("beams", [1, 2, 4, 7])
@pytest.mark.parametrize("penalty", [0.0, 1.0, -1.5])
@pytest.mark.parametrize("ending", [0.0, 3.0, 6.0])
def test_beam_search_finds_what_transformers_does(beams: int, penalty: float, ending: float) -> None:
    transformers = pytest.importorskip("transformers")
    ours = nets()
    config = transformers.BartConfig(
        vocab_size=120, d_model=32, encoder_layers=3, decoder_layers=3, encoder_attention_heads=4, pad_token_id=0,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=32, dropout=0.0,
        decoder_start_token_id=END, eos_token_id=END, bos_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    theirs = randomised(transformers.BartForConditionalGeneration(config)).eval()
    public = {name.removeprefix("model."): value.detach() for name, value in theirs.named_parameters()}
    ours.encoder.load_state_dict(from_bart(public, ours.encoder, "encoder"))
    decoder_of(ours).load_state_dict(from_bart(public, decoder_of(ours), "decoder"))
    theirs.final_logits_bias[0, END] = ending
    source = tokens_with_padding()
    found = looked(ours, source, Search(beams, penalty, 12, END), ending)
    expected = theirs.generate(
        input_ids=source.ids, attention_mask=(source.segments >= 0).long(), num_beams=beams, do_sample=False,
        length_penalty=penalty, early_stopping=False, max_new_tokens=12, use_cache=True,
    )  # fmt: skip
    rows = [[id for id in row[1:].tolist() if id not in (0, END)] for row in expected]
    assert [[id for id in row if id not in (0, END)] for row in found] == rows


def test_one_beam_takes_the_likeliest_token_each_time() -> None:
    ours, source = nets(), tokens_with_padding()
    for row, wrote in enumerate(translate(ours, source, Search(1, 1.0, 6, END))):
        alone = Tokens(*(part[row : row + 1] for part in (source.ids, source.segments, source.positions)))
        ids = [END]
        with torch.no_grad():
            for _ in range(6):
                given = torch.tensor([ids])
                written = Tokens(given, torch.zeros_like(given).int(), torch.arange(len(ids))[None])
                hidden = decoder_of(ours)(embedded(ours, given), written, read(ours, alone), alone)
                ids.append(int(F.linear(hidden[0, -1], table(ours)).argmax()))
                if ids[-1] == END:
                    break
        assert wrote == [id for id in ids[1:] if id != END]


def test_what_is_found_does_not_depend_on_what_stands_beside_it() -> None:
    ours, source = nets(), tokens_with_padding()
    how = Search(3, 1.0, 10, END)
    together = looked(ours, source, how, 3.0)
    for row, wrote in enumerate(together):
        size = int((source.segments[row] >= 0).sum())
        alone = Tokens(*(part[row : row + 1, :size] for part in (source.ids, source.segments, source.positions)))
        assert looked(ours, alone, how, 3.0) == [wrote]


def spelled(texts: list[str]) -> torch.Tensor:
    rows = [list(text.encode()) for text in texts]
    out = torch.full((len(rows), max(map(len, rows))), -1)
    for at, row in enumerate(rows):
        out[at, : len(row)] = torch.tensor(row)
    return out


def test_bleu_and_chrf_are_sacrebleu_s() -> None:
    random = np.random.default_rng(0)
    words = np.array(["Ein", "Hund", "läuft", "über", "die", "Straße", ".", "Zwei", "Männer"])
    true = [" ".join(random.choice(words, int(random.integers(4, 12)))) for _ in range(30)]
    wrote = [" ".join(np.where(random.random(len(text.split())) < 0.7, text.split(), "x")).upper() for text in true]
    outputs = {"text": spelled(wrote), "log_likelihood": -torch.ones(30), "tokens": torch.full((30,), 4)}
    found = Translation().metrics(outputs, {"reference": spelled(true)})
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(wrote, [true]).score)
    assert found["bleu_lowercase"] == pytest.approx(sacrebleu.corpus_bleu(wrote, [true], lowercase=True).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(wrote, [true]).score)
    assert found["log_likelihood"] == pytest.approx(-0.25)
    assert found["bleu"] < found["bleu_lowercase"]


def test_loss_and_likelihood_are_of_the_tokens_and_the_end() -> None:
    ours, source = nets(), tokens_with_padding()
    rows = len(source.ids)
    told = torch.randint(5, 120, (rows, 6), generator=torch.Generator().manual_seed(1))
    told[0, 2:] = -1
    batch = Batch((source,), torch.arange(rows), None, {"translation": told})
    each = []
    for row in range(rows):
        ids = [id for id in told[row].tolist() if id >= 0]
        written = torch.tensor([[END, *ids]])
        tokens = Tokens(written, torch.zeros_like(written).int(), torch.arange(written.shape[1])[None])
        alone = Tokens(*(part[row : row + 1] for part in (source.ids, source.segments, source.positions)))
        hidden = decoder_of(ours)(embedded(ours, written), tokens, read(ours, alone), alone)
        logits = F.linear(hidden[0], table(ours))
        each.append(F.cross_entropy(logits, torch.tensor([*ids, END]), reduction="none", label_smoothing=0.0))
    task = Translation(label_smoothing=0.0)
    assert torch.allclose(task.loss(ours, batch)["loss"], torch.cat(each).mean(), atol=1e-6)
    with torch.no_grad():
        found = task.glance(ours, batch)
    assert torch.allclose(found["log_likelihood"], -torch.stack([values.sum() for values in each]), atol=1e-4)
    assert found["tokens"].tolist() == [len(values) for values in each]


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_source_and_its_target_are_a_text_and_its_translation(tmp_path: Path) -> None:
    made = take(tmp_path, "a.jsonl", lines({"source": "a dog", "target": "ein Hund"}, {"source": "a cat"}))
    assert made.errors == [] and made.summary["modality"] == "text"
    assert [(row["text"], row["translation"]) for row in made.rows] == [("a dog", "ein Hund"), ("a cat", None)]
    assert made.summary["targets"]["translation"] == {"rows": 1, "numbers": {"mean": 8.0, "max": 8.0}}
    assert [row["translation"] for row in made.read("preview.json")] == ["ein Hund", None]


def test_a_target_beside_a_text_is_no_translation_unless_the_upload_says_so(tmp_path: Path) -> None:
    rows = lines({"text": "a dog", "target": 1}, {"text": "a cat", "target": 0})
    assert "translation" not in take(tmp_path, "a.jsonl", rows).summary.get("targets", {})
    told = take(tmp_path, "a.csv", b"text,target\na dog,ein Hund\n", columns={"translation": "target"})
    assert told.rows[0]["translation"] == "ein Hund"


@pytest.mark.parametrize(
    ("value", "code", "told"),
    [
        (3, "invalid_translation", "the translation is a int; a text is needed"),
        (["ein Hund"], "invalid_translation", "is a list"),
        ("ein \ud800", "encoding_error", "the translation"),
        ("   ", "empty_text", "the translation"),
    ],
)
def test_a_bad_translation_is_named_by_its_row_and_nothing_else_is_lost(
    tmp_path: Path, value: Any, code: str, told: str
) -> None:
    good = {"source": "a cat", "target": "eine Katze"}
    made = take(tmp_path, "a.jsonl", lines(good, {"source": "a dog", "target": value}, good | {"source": "cats"}))
    assert [row["text"] for row in made.rows] == ["a cat", "cats"]
    error = json.loads((made.folder / "errors.jsonl").read_text())
    assert made.errors == [("a.jsonl", 2, code)] and told in error["message"]


SPEC: dict[str, Any] = {
    "type": "finetune", "task": {"name": "translation", "max_tokens": 24, "dropout": 0.0}, "dataset": "ds_toy",
    "modality": datasets.TEXT, "batch_size": 16, "seed": 1, "optimizer": {"learning_rate": 2e-3},
}  # fmt: skip
WIDER = {
    **datasets.TINY_TEXT, "width": 64, "depth": 2, "heads": 4, "dropout": 0.0, "positions": "learned",
    "max_positions": 64,
}  # fmt: skip


def trained(folder: Path, spec: dict[str, Any], data: Path, **given: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    datasets.order(folder, spec, {"ds_toy": data}, **given)
    return run(folder, FileContext(folder))


def base_of(artifact: Path) -> dict[str, Any]:
    config = json.loads((artifact / "config.json").read_text())
    known = {name: config[name] for name in ("modality", "backbone", "objective")}
    return {
        "base": ModelFacts.model_validate_json(json.dumps({"id": "mdl_a", **known})),
        "model": str(artifact),
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A model that has learned to say the first words backwards."""
    folder = tmp_path_factory.mktemp("translation")
    data = datasets.text_dataset(folder / "data", rows=3000)
    spec = {**SPEC, "backbone": WIDER, "budget": {"steps": 1800}}
    verdict = trained(folder / "run", spec, data)
    assert verdict["status"] == "succeeded", verdict
    return folder / "run", verdict


def test_it_learns_and_says_how_well(finished: tuple[Path, dict[str, Any]]) -> None:
    _, verdict = finished
    metrics = verdict["metrics"]
    assert metrics["final/bleu"] > 10 and metrics["final/chrf"] > 30
    assert metrics["final/log_likelihood"] > -1.6  # before: -5.9; who knows the topic alone: -2.0


def test_it_shows_what_was_written_beside_what_is_true(finished: tuple[Path, dict[str, Any]]) -> None:
    lines = (finished[0] / "samples" / "translations.txt").read_text()
    assert all(word in lines for word in ("source:", "wrote:", "true:"))


def test_its_model_answers_the_same_in_a_fresh_process(finished: tuple[Path, dict[str, Any]]) -> None:
    texts = ["bread oven salt flour butter", "rope sail tide deck anchor wind"]
    artifact = finished[0] / "artifact"
    ours = inference.load(artifact).predict(texts)
    assert all(isinstance(answer["translation"], str) and answer["translation"] for answer in ours)
    code = (
        "import json, sys; from ssl_core.inference import load; "
        "print(json.dumps(load(sys.argv[1]).predict(sys.argv[2:])))"
    )
    command = [sys.executable, "-c", code, str(artifact), *texts]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == ours


def test_it_keeps_the_decoder_of_the_model_it_started_from(tmp_path: Path) -> None:
    data = datasets.text_dataset(tmp_path / "data")
    first = {**SPEC, "type": "pretrain", "objective": {"name": "denoising", "decoder_depth": 3}, "budget": {"steps": 2}}
    first = {**{k: v for k, v in first.items() if k != "task"}, "backbone": WIDER, "validation_fraction": 0.0}
    assert trained(tmp_path / "base", first, data)["status"] == "succeeded"
    start = tmp_path / "base" / "artifact"
    spec = {k: v for k, v in SPEC.items() if k != "modality"} | {"model": "mdl_a", "budget": {"steps": 1}}
    spec["optimizer"] = {"learning_rate": 1e-9}
    assert trained(tmp_path / "tuned", spec, data, **base_of(start))["status"] == "succeeded"
    before, after = (inference.load_file(at / "model.safetensors") for at in (start, tmp_path / "tuned" / "artifact"))
    kept = [name for name in before if name.startswith("parts.decoder.")]
    assert len(kept) > 30 and all(torch.allclose(before[name], after[name], atol=1e-6) for name in kept)
    deeper = {**spec, "task": {**SPEC["task"], "decoder_depth": 2}}
    refused = trained(tmp_path / "deeper", deeper, data, **base_of(start))
    assert refused["status"] == "failed" and refused["error"]["code"] == "decoder_mismatch"
    assert "3 layers" in refused["error"]["message"] and refused["error"]["param"] == "task.decoder_depth"


@pytest.mark.parametrize("start", ["copied", "fresh"])
def test_of_an_encoder_alone_the_decoder_copies_what_it_can(tmp_path: Path, start: str) -> None:
    data = datasets.text_dataset(tmp_path / "data")
    first = {**SPEC, "type": "pretrain", "objective": {"name": "mlm"}, "budget": {"steps": 2}, "backbone": WIDER}
    first = {k: v for k, v in first.items() if k != "task"}
    assert trained(tmp_path / "base", first, data)["status"] == "succeeded"
    task = {**SPEC["task"], "decoder_start": start}
    spec = {k: v for k, v in SPEC.items() if k != "modality"}
    spec |= {"model": "mdl_a", "budget": {"steps": 1}, "task": task, "optimizer": {"learning_rate": 1e-9}}
    assert trained(tmp_path / "tuned", spec, data, **base_of(tmp_path / "base/artifact"))["status"] == "succeeded"
    weights = inference.load_file(tmp_path / "tuned/artifact/model.safetensors")
    own = weights["encoder.layers.0.feed_forward.up.weight"]
    assert torch.allclose(own, weights["parts.decoder.layers.0.feed_forward.up.weight"], atol=1e-5) is (
        start == "copied"
    )


def test_dropout_is_the_task_s_own_and_trains_alone() -> None:
    encoder = build_encoder(EncoderSpec.model_validate(BART), FACTS)
    made = Translation(dropout=0.3).build(encoder, [])
    rates = {module.p for module in made.modules() if isinstance(module, torch.nn.Dropout)}
    assert rates == {0.3}


def test_from_scratch_it_keeps_capitals_and_takes_a_shape_that_a_decoder_can_follow() -> None:
    facts = DatasetFacts(
        id="ds_a", modality="text", rows=50, characters=5000, targets={"translation": TargetFacts(rows=50)}
    )
    spec: dict[str, Any] = {"type": "finetune", "dataset": "ds_a", "task": {"name": "translation"}}
    made = resolve(FinetuneSpec.model_validate(spec), facts, None)
    assert isinstance(made.modality, TextModality) and not made.modality.lowercase
    windowed = {**BART, "window": 8, "global_every": 2}
    with pytest.raises(SpecError) as caught:
        resolve(FinetuneSpec.model_validate({**spec, "backbone": windowed}), facts, None)
    assert (caught.value.code, caught.value.param) == ("backbone_mismatch", "backbone.window")


def test_the_tokenizer_learns_from_both_sides(tmp_path: Path) -> None:
    rows = 40
    columns = {
        "text": ["abc def"] * rows,
        "label": pa.array([None] * rows, pa.string()),
        "source": ["toy.jsonl"] * rows,
        "translation": ["müssen Straße"] * rows,
    }
    numbers = {"rows": rows, "numbers": {"mean": 13.0, "max": 13.0}}
    profile = {"modality": "text", "characters": 7 * rows, "width": 0, "height": 0, "channels": 0}
    data = datasets.write_dataset(tmp_path / "data", columns, {**profile, "targets": {"translation": numbers}})
    datasets.TEXT.prepare(data, tmp_path / "out", None, lambda *_: None)
    codec = load_tokenizer(tmp_path / "out" / "tokenizer.json")
    assert len(codec.encode("müssen Straße", add_special_tokens=False).ids) == 2


def test_an_evaluation_scores_whole_texts_and_lists_every_answer(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    data = datasets.text_dataset(tmp_path / "test", rows=12, seed=9)
    spec = {"type": "evaluate", "model": "mdl_a", "dataset": "ds_toy", "worst_rows": 3}
    (tmp_path / "eval").mkdir()
    order = RunOrder(
        spec=JOB_SPEC.validate_python(spec), datasets={"ds_toy": str(data)}, cache=str(tmp_path / "cache"), threads=1,
        model=str(finished[0] / "artifact"),
    )  # fmt: skip
    found = execute(order, MemoryContext(tmp_path / "eval"))
    assert found["metrics"]["test/bleu"] > 5 and found["metrics"]["test/log_likelihood"] > -1.8
    told = json.loads((tmp_path / "eval" / "artifact" / "evaluation.json").read_text())
    assert told["rows"] == 12 and len(told["worst"]) == 3
    lines = (tmp_path / "eval" / "artifact" / "predictions.jsonl").read_text().splitlines()
    assert all(isinstance(json.loads(line)["translation"], str) for line in lines) and len(lines) == 12


def test_it_is_exported_as_a_public_class_that_writes_the_same(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tests.ssl_core.interop.folders import exported

    data = datasets.text_dataset(tmp_path / "data")
    shape = {**WIDER, "norm": "post"}
    task = {**SPEC["task"], "beams": 3, "max_tokens": 9}
    spec = {**SPEC, "backbone": shape, "budget": {"steps": 60}, "task": task}
    assert trained(tmp_path / "run", spec, data)["status"] == "succeeded"
    artifact = tmp_path / "run" / "artifact"
    folder, verdict = exported(artifact, tmp_path / "export", "hf")
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4
    theirs = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    codec = transformers.AutoTokenizer.from_pretrained(folder)
    texts = ["bread oven salt flour butter", "rope sail tide deck anchor wind"]
    read = codec(texts, padding=True, return_tensors="pt")
    wrote = theirs.generate(input_ids=read["input_ids"], attention_mask=read["attention_mask"])
    ours = [answer["translation"] for answer in inference.load(artifact).predict(texts)]
    assert codec.batch_decode(wrote, skip_special_tokens=True) == ours
