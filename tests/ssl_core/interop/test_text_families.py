"""What the families of text and proteins say and what they refuse; our own shapes as public models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ssl_core.backbones import BACKBONES, EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.data import residues
from ssl_core.encoders import build_encoder
from ssl_core.errors import SpecError
from ssl_core.interop import matching
from ssl_core.interop.base import Public, Shape
from ssl_core.interop.hf import FAMILIES
from ssl_core.interop.hf._text import text_shape
from ssl_core.interop.tensors import Theirs, read_json

transformers = pytest.importorskip("transformers")

from tests.ssl_core.interop.families import TOYS, randomised  # noqa: E402

SPECIALS = {"pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4}
SHAPE = {"name": "custom", "family": "transformer", "width": 32, "depth": 3, "heads": 4}
GPT = {"attention": "causal", "embedding_norm": False}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "text rows as ModernBERT": ("modernbert", {}),
    "gated and local": ("modernbert", {"mlp": "geglu", "window": 6, "global_every": 2, "local_rotary_base": 500.0}),
    "local alone": ("modernbert", {"window": 4, "mlp_ratio": 1.7}),
    "BERT": ("bert", {"norm": "post", "positions": "learned", "max_positions": 64}),
    "narrow table": ("electra", {"norm": "post", "positions": "learned", "max_positions": 64, "embedding_width": 16}),
    "GPT": ("gpt2", {**GPT, "positions": "learned", "max_positions": 64}),
    "Llama": ("llama", {**GPT, "norm_kind": "rms", "bias": False, "mlp": "swiglu", "key_value_heads": 2}),
}


def text(fields: dict[str, Any]) -> Shape:
    return text_shape(Public({}, SPECIALS), EncoderSpec.model_validate({**SHAPE, **fields}), 120)


def config_of(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    config = FAMILIES[name].write(text(fields))
    assert config is not None
    return config


@pytest.mark.parametrize(("name", "fields"), OURS.values(), ids=OURS)
def test_our_own_encoder_loads_as_a_public_model_with_the_same_outputs(
    name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    shape = text(fields)
    torch.manual_seed(0)
    encoder = build_encoder(shape.backbone, dict(shape.facts))
    randomised(encoder)
    config = config_of(name, fields)
    told = {**config, "architectures": [FAMILIES[name].model_class]}
    (tmp_path / "config.json").write_text(json.dumps(told))
    save_file(matching.their_tensors(FAMILIES[name], encoder), tmp_path / "model.safetensors", {"format": "pt"})
    public, loading = transformers.AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert {key.split(".")[0] for key in loading["missing_keys"]} <= {"pooler"} and not loading["unexpected_keys"]
    lengths, slots = torch.tensor([16, 9]), torch.arange(16)
    real = slots < lengths[:, None]
    ids = torch.randint(5, 119, (2, 16), generator=torch.Generator().manual_seed(1)) * real
    with torch.no_grad():
        expected = public.eval()(input_ids=ids, attention_mask=real.long()).last_hidden_state[real]
        found = encoder.encode(Tokens(ids, torch.where(real, 0, -1).int(), slots * real))[real]
    assert (found - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("name", [row.name for row in BACKBONES.values() if row.family == "transformer"])
def test_every_trunk_of_the_catalogue_has_a_public_family(name: str) -> None:
    facts = residues.facts(128) if name.startswith("protein") else text({}).facts
    shape = Shape(BACKBONES[name], text({}).modality, facts)
    assert [name for name, family in FAMILIES.items() if family.inputs == "text" and family.write(shape) is not None]


@pytest.mark.parametrize("name", ["electra", "esm", "gpt2", "llama", "modernbert", "roberta"])
@pytest.mark.parametrize(
    "fields",
    [
        {"positions": "none"},
        {"norm": "post"},
        {"layer_scale": 0.1},
        {"attention": "causal", "window": 4},
        {"first_norm": True},
        {"mlp": "relu", "bias": False},
    ],
    ids=str,
)
def test_a_family_does_not_write_what_it_cannot_say(name: str, fields: dict[str, Any]) -> None:
    assert FAMILIES[name].write(text(fields)) is None


LLAMA, MODERN = OURS["Llama"][1], OURS["gated and local"][1]


@pytest.mark.parametrize(
    ("name", "fields", "changed", "complaint"),
    [
        ("llama", LLAMA, {"rope_scaling": {"rope_type": "llama3"}}, "config.json: rope_scaling is"),
        ("llama", LLAMA, {"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters is .*rope_type default"),
        ("llama", LLAMA, {"head_dim": 64}, "head_dim is 64"),
        ("llama", LLAMA, {"attention_bias": True}, "the same as attention_bias"),
        ("llama", LLAMA, {"hidden_act": "tanh"}, "hidden_act is 'tanh'; this platform reads 'silu' or 'gelu'"),
        ("modernbert", MODERN, {"layer_types": ["sliding_attention", "full_attention"]}, "layer_types is"),
        ("modernbert", MODERN, {"norm_bias": False}, "the same as attention_bias and norm_bias"),
        ("modernbert", MODERN, {"rope_parameters": 7}, "rope_parameters is 7"),
        ("gpt2", OURS["GPT"][1], {"add_cross_attention": True}, "add_cross_attention is True"),
        ("gpt2", OURS["GPT"][1], {"n_embd": "wide"}, "n_embd is 'wide'; this platform reads a whole number"),
        ("electra", OURS["narrow table"][1], {"position_embedding_type": "relative_key"}, "relative_key"),
    ],
)
def test_a_config_that_we_cannot_follow_is_refused_by_field(
    name: str, fields: dict[str, Any], changed: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SpecError, match=complaint):
        FAMILIES[name].read(Public({**config_of(name, fields), **changed}, SPECIALS))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"vocab_size": 40}, "vocab_size is 40"),
        ({"position_embedding_type": "absolute"}, "'absolute'; this platform reads 'rotary'"),
        ({"emb_layer_norm_before": True}, "emb_layer_norm_before is True"),
    ],
)
def test_an_esm_that_is_not_esm2_is_refused_by_field(changed: dict[str, Any], complaint: str) -> None:
    spec = EncoderSpec.model_validate({**SHAPE, "embedding_norm": False, "token_dropout": 0.12})
    config = FAMILIES["esm"].write(Shape(spec, text({}).modality, residues.facts(128)))
    assert config is not None
    with pytest.raises(SpecError, match=complaint):
        FAMILIES["esm"].read(Public({**config, **changed}))


def test_a_roberta_with_another_padding_id_is_refused() -> None:
    config = {"hidden_size": 32, "num_attention_heads": 4, "type_vocab_size": 1, "pad_token_id": 0}
    with pytest.raises(SpecError, match="pad_token_id is 0; this platform reads 1"):
        FAMILIES["roberta"].read(Public(config, SPECIALS))


def test_the_encoder_of_bart_is_written_as_bert_in_the_same_bits(tmp_path: Path) -> None:
    randomised(TOYS["bart"].make()).save_pretrained(tmp_path)  # type: ignore[operator]
    bart, bert = FAMILIES["bart"], FAMILIES["bert"]
    shape = bart.read(Public(read_json(tmp_path / "config.json"), SPECIALS))
    first = build_encoder(shape.backbone, dict(shape.facts))
    matching.load(bart, first, Theirs(tmp_path)).check(1.0)
    config = bert.write(shape)
    assert bart.write(shape) is None and config is not None
    save_file(matching.their_tensors(bert, first), tmp_path / "model.safetensors")
    second = build_encoder(bert.read(Public(config, SPECIALS)).backbone, dict(shape.facts))
    matching.load(bert, second, Theirs(tmp_path)).check(1.0)
    assert all(torch.equal(value, second.state_dict()[place]) for place, value in first.state_dict().items())


def test_a_gate_that_is_not_always_open_is_no_plain_feed_forward() -> None:
    family, shape = FAMILIES["modernbert"], text({})
    encoder = build_encoder(shape.backbone, dict(shape.facts))
    row = next(row for row in family.rows(shape.backbone) if row.ours == "layers.0.feed_forward.up.bias")
    (theirs,) = row.how.theirs(encoder.get_parameter("layers.0.feed_forward.up.bias").detach())
    theirs[-1] = 0.5
    with pytest.raises(RuntimeError, match="a gate that is always open"):
        row.how.ours([theirs])


def test_the_local_layers_of_transformers_4_are_read_too() -> None:
    config = config_of("modernbert", MODERN)
    for name in ("layer_types", "rope_parameters"):
        del config[name]
    old = {"global_attn_every_n_layers": 2, "global_rope_theta": 10_000.0, "local_rope_theta": 500.0}
    assert FAMILIES["modernbert"].read(Public({**config, **old}, SPECIALS)).backbone == text(MODERN).backbone
