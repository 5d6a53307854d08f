"""The whole of a BART, decoder and all: in, the same logits; out again, the same bits; ours as a public one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.denoise import embedded, read, table
from ssl_core.durable import committed
from ssl_core.encoders import build_encoder
from ssl_core.encoders.decoder import Decoder
from ssl_core.errors import EngineError
from ssl_core.export import FORMAT, open_base
from ssl_core.inference import load
from ssl_core.interop import writers
from ssl_core.interop.base import Public
from ssl_core.interop.hf._text import text_shape
from ssl_core.nets import Nets
from ssl_core.objectives.denoising import Denoising

transformers = pytest.importorskip("transformers")

from tests.ssl_core.interop.families import ENDS, TEXT, randomised  # noqa: E402
from tests.ssl_core.interop.folders import exported, imported, write_tokenizer, zipped  # noqa: E402

SPECIALS = {"pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4}
BART = {
    "name": "custom", "family": "transformer", "width": 32, "depth": 2, "heads": 4, "norm": "post",
    "positions": "learned", "max_positions": 64,
}  # fmt: skip


def bart_folder(folder: Path, **fields: Any) -> Path:
    shape = {
        "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
        "decoder_start_token_id": 3, "forced_eos_token_id": None,
    }  # fmt: skip
    torch.manual_seed(0)
    config = transformers.BartConfig(**TEXT, **ENDS, **{**shape, **fields})
    randomised(transformers.BartForConditionalGeneration(config)).save_pretrained(folder)  # type: ignore[operator]
    write_tokenizer(folder)
    return folder


def our_folder(folder: Path, objective: Denoising, shape: dict[str, Any] | None = None) -> Path:
    """A finished denoising model of random weights."""
    made = text_shape(Public({}, SPECIALS), EncoderSpec.model_validate(shape or BART), 120)
    torch.manual_seed(0)
    nets = objective.build(build_encoder(made.backbone, dict(made.facts)))
    randomised(nets)
    decoder = nets.parts["decoder"]
    assert isinstance(decoder, Decoder)
    config: dict[str, Any] = {
        "format": FORMAT, "kind": "encoder", "modality": made.modality.model_dump(mode="json"),
        "backbone": made.backbone.model_dump(mode="json"), "facts": dict(made.facts), "task": None, "classes": [],
        "objective": objective.model_dump(mode="json"), "embed_dim": 32, "decoder_depth": len(decoder.layers),
        "parameters": sum(parameter.numel() for parameter in nets.parameters()), "max_length": 64,
    }  # fmt: skip
    with committed(folder) as out:
        save_file(nets.state_dict(), out / "model.safetensors")
        (out / "config.json").write_text(json.dumps(config))
        write_tokenizer(out)
    return folder


def texts() -> tuple[Tensor, Tensor]:
    lengths, slots = torch.tensor([12, 7]), torch.arange(12)
    real = slots < lengths[:, None]
    return torch.randint(5, 105, (2, 12), generator=torch.Generator().manual_seed(1)) * real, real


def our_logits(nets: Nets) -> Tensor:
    ids, real = texts()
    tokens = Tokens(ids, torch.where(real, 0, -1).int(), torch.arange(12) * real)
    hidden: Tensor = nets.parts["decoder"](embedded(nets, ids), tokens, read(nets, tokens), tokens)
    return (hidden @ table(nets).T)[real].detach()


def their_logits(folder: Path) -> Tensor:
    ids, real = texts()
    model, loading = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    found: Tensor = model.eval()(input_ids=ids, attention_mask=real.long(), decoder_input_ids=ids).logits[real]
    return found.detach()


def model_of(workdir: Path) -> Nets:
    nets = writers.whole(load(workdir))
    assert nets is not None
    return nets


def refusal(archive: Path, tmp_path: Path) -> EngineError:
    with pytest.raises(EngineError) as caught:
        imported(archive, tmp_path / "run")
    return caught.value


def test_an_imported_bart_keeps_its_decoder_and_gives_the_public_logits(tmp_path: Path) -> None:
    folder = bart_folder(tmp_path / "bart")
    verdict, _ = imported(zipped(folder, tmp_path / "bart.zip"), tmp_path / "run")
    counts = verdict["summary"]["imported"]
    assert (verdict["summary"]["decoder_depth"], counts["missing"], counts["unknown"]) == (1, 0, 0)
    nets = model_of(tmp_path / "run" / "artifact")
    assert verdict["summary"]["parameters"] == sum(parameter.numel() for parameter in nets.parameters())
    assert (our_logits(nets) - their_logits(folder)).abs().max() <= 1e-4
    base = open_base(tmp_path / "run" / "artifact")
    base.load_decoder(Decoder(base.backbone, base.decoder_depth))


def test_an_export_of_the_whole_imported_again_is_the_same_in_every_bit(tmp_path: Path) -> None:
    imported(zipped(bart_folder(tmp_path / "bart"), tmp_path / "bart.zip"), tmp_path / "first")
    out, verdict = exported(tmp_path / "first" / "artifact", tmp_path / "export", "hf")
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4
    (out / "README.md").unlink()
    imported(zipped(out, tmp_path / "again.zip"), tmp_path / "second")
    first, second = (load_file(tmp_path / name / "artifact" / "model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys() and any(name.startswith("parts.decoder.") for name in first)
    assert all(torch.equal(first[name].view(torch.int32), second[name].view(torch.int32)) for name in first)


@pytest.mark.parametrize("noise", ["infilling", "span_corruption"])
def test_our_own_denoising_model_loads_as_a_public_one_that_writes(noise: Any, tmp_path: Path) -> None:
    folder = our_folder(tmp_path / "model", Denoising(noise=noise, decoder_depth=1))
    out, verdict = exported(folder, tmp_path / "export", "hf")
    assert verdict["metrics"]["export/max_abs_difference"] <= 1e-4
    assert (our_logits(model_of(folder)) - their_logits(out)).abs().max() <= 1e-4


def test_a_shape_that_no_public_decoder_has_is_exported_by_its_encoder(tmp_path: Path) -> None:
    shape = {**BART, "norm": "pre", "positions": "rotary"}
    out, _ = exported(our_folder(tmp_path / "model", Denoising(), shape), tmp_path / "export", "hf")
    assert json.loads((out / "config.json").read_text())["model_type"] == "modernbert"


def test_a_decoder_of_another_shape_is_left_out_and_told(tmp_path: Path) -> None:
    folder = bart_folder(tmp_path / "bart", decoder_ffn_dim=64)
    verdict, context = imported(zipped(folder, tmp_path / "bart.zip"), tmp_path / "run")
    assert verdict["summary"]["decoder_depth"] == 0
    told = [event for event in context.events if "decoder" in str(event.get("message", ""))]
    assert told and all(event["code"] == "tensor_ignored" for event in told)
    assert writers.whole(load(tmp_path / "run" / "artifact")) is None


def test_an_encoder_alone_is_imported_as_one(tmp_path: Path) -> None:
    folder = bart_folder(tmp_path / "bart")
    path = folder / "model.safetensors"
    save_file({name: value for name, value in load_file(path).items() if ".decoder." not in name}, path)
    verdict, _ = imported(zipped(folder, tmp_path / "bart.zip"), tmp_path / "run")
    assert verdict["summary"]["decoder_depth"] == 0


def test_a_decoder_that_lacks_a_tensor_is_refused_by_name(tmp_path: Path) -> None:
    folder = bart_folder(tmp_path / "bart")
    path = folder / "model.safetensors"
    name = "model.decoder.layers.0.encoder_attn.q_proj.weight"
    save_file({key: value for key, value in load_file(path).items() if key != name}, path)
    error = refusal(zipped(folder, tmp_path / "bart.zip"), tmp_path)
    assert (error.code, error.param) == ("import_mismatch", "decoder.layers.0.crossing.query.weight")


@pytest.mark.parametrize(("layers", "code"), [(10**9, "unsupported_config"), (90, "import_mismatch")])
def test_a_decoder_deeper_than_its_file_is_not_built(layers: int, code: str, tmp_path: Path) -> None:
    folder = bart_folder(tmp_path / "bart")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "decoder_layers": layers}))
    assert refusal(zipped(folder, tmp_path / "bart.zip"), tmp_path).code == code
