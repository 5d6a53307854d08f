"""The trunks and heads against the public implementations, with the same weights: outputs and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssl_core.backbones import EncoderSpec
from ssl_core.batch import Tokens
from ssl_core.encoders import Encoder, build_encoder
from ssl_core.heads import masked_language_loss
from ssl_core.masks import MaskedTokens
from ssl_core.objectives.mlm import MaskedLanguageModelling

transformers = pytest.importorskip("transformers")

FACTS = {"vocab_size": 300, "max_length": 24, "pad_id": 0, "unk_id": 1, "cls_id": 2, "sep_id": 3, "mask_id": 4}
WIDTH, DEPTH, HEADS = 64, 3, 4
BERT = EncoderSpec(
    name="custom", family="transformer", width=WIDTH, depth=DEPTH, heads=HEADS, positions="learned",
    max_positions=32, norm="post", norm_epsilon=1e-12,
)  # fmt: skip
MODERN = EncoderSpec(
    name="custom", family="transformer", width=WIDTH, depth=DEPTH, heads=HEADS, mlp="geglu", bias=False, mlp_ratio=1.5,
    rotary_base=160_000.0,
)  # fmt: skip


def tokens_with_padding() -> Tokens:
    lengths = torch.tensor([24, 17, 5])
    slots = torch.arange(24)
    real = slots < lengths[:, None]
    ids = torch.randint(5, 300, (3, 24), generator=torch.Generator().manual_seed(1)) * real
    return Tokens(ids, torch.where(real, 0, -1).int(), slots * real)


def copy_weights(ours: nn.Module, theirs: dict[str, Tensor], names: dict[str, Callable[[], Tensor]]) -> None:
    """Fill every parameter of ours; a parameter without a source is an error."""
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            parameter.copy_(names[name]())


def bert_names(p: dict[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    """Our name -> where it stands in BERT."""
    names: dict[str, Callable[[], Tensor]] = {
        "token.weight": lambda: p["embeddings.word_embeddings.weight"],
        # BERT adds the type embedding of sentence A to every token.
        "position.weight": lambda: p["embeddings.position_embeddings.weight"]
        + p["embeddings.token_type_embeddings.weight"][0],
        "embedding_norm.weight": lambda: p["embeddings.LayerNorm.weight"],
        "embedding_norm.bias": lambda: p["embeddings.LayerNorm.bias"],
    }
    for layer in range(DEPTH):
        for kind in ("weight", "bias"):
            theirs, ours = f"encoder.layer.{layer}.", f"layers.{layer}."
            names |= {
                f"{ours}attention.qkv.{kind}": lambda t=theirs, k=kind: torch.cat(
                    [p[f"{t}attention.self.{part}.{k}"] for part in ("query", "key", "value")]
                ),
                f"{ours}attention.out.{kind}": lambda t=theirs, k=kind: p[f"{t}attention.output.dense.{k}"],
                f"{ours}attention_norm.{kind}": lambda t=theirs, k=kind: p[f"{t}attention.output.LayerNorm.{k}"],
                f"{ours}feed_forward.up.{kind}": lambda t=theirs, k=kind: p[f"{t}intermediate.dense.{k}"],
                f"{ours}feed_forward.down.{kind}": lambda t=theirs, k=kind: p[f"{t}output.dense.{k}"],
                f"{ours}feed_forward_norm.{kind}": lambda t=theirs, k=kind: p[f"{t}output.LayerNorm.{k}"],
            }
    return names


def modern_names(p: dict[str, Tensor]) -> dict[str, Callable[[], Tensor]]:
    """Our name -> where it stands in ModernBERT."""
    table = {
        "token.weight": "embeddings.tok_embeddings.weight",
        "embedding_norm.weight": "embeddings.norm.weight",
        "final_norm.weight": "final_norm.weight",
    }
    for layer in range(DEPTH):
        ours = f"layers.{layer}."
        table |= {
            f"{ours}attention.qkv.weight": f"{ours}attn.Wqkv.weight",
            f"{ours}attention.out.weight": f"{ours}attn.Wo.weight",
            f"{ours}attention_norm.weight": f"{ours}attn_norm.weight",
            f"{ours}feed_forward.up.weight": f"{ours}mlp.Wi.weight",
            f"{ours}feed_forward.down.weight": f"{ours}mlp.Wo.weight",
            f"{ours}feed_forward_norm.weight": f"{ours}mlp_norm.weight",
        }
    return {ours: lambda name=theirs: p[name] for ours, theirs in table.items()}


def bert(dtype: torch.dtype) -> tuple[Encoder, nn.Module]:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=300, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, max_position_embeddings=32, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )  # fmt: skip
    theirs = randomised(transformers.BertModel(config, add_pooling_layer=False)).to(dtype)
    ours = build_encoder(BERT, FACTS).to(dtype)
    copy_weights(ours, {}, bert_names(dict(theirs.named_parameters())))
    return ours, theirs


def modern(dtype: torch.dtype) -> tuple[Encoder, nn.Module]:
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(
        vocab_size=300, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
        intermediate_size=WIDTH * 3 // 2, max_position_embeddings=32, global_attn_every_n_layers=1,
        pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    theirs = randomised(transformers.ModernBertModel(config)).to(dtype)
    ours = build_encoder(MODERN, FACTS).to(dtype)
    copy_weights(ours, {}, modern_names(dict(theirs.named_parameters())))
    return ours, theirs


def randomised(module: Any) -> Any:
    """Norms and biases away from 1 and 0, or a swap of two of them would not show."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return module.eval()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(("pair", "names"), [(bert, bert_names), (modern, modern_names)], ids=["bert", "modernbert"])
def test_the_trunk_equals_the_public_one_in_output_and_gradient(
    pair: Any, names: Any, dtype: torch.dtype, tolerance: float
) -> None:
    ours, theirs = pair(dtype)
    # Rotary tables of the public model are float32 whatever the dtype of its weights.
    if dtype == torch.float64 and pair is modern:
        tolerance = 1e-5
    tokens = tokens_with_padding()
    real = tokens.segments >= 0
    expected = theirs(input_ids=tokens.ids, attention_mask=real.long()).last_hidden_state[real]
    found = ours.encode(tokens)[real]
    assert (found - expected).abs().max() <= tolerance * expected.abs().max().clamp(min=1)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    (expected * direction).sum().backward()
    (found * direction).sum().backward()
    gradients = names({name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        wanted = theirs.embeddings.position_embeddings.weight.grad if name == "position.weight" else gradients[name]()
        assert (parameter.grad - wanted).abs().max() <= tolerance * wanted.abs().max().clamp(min=1), name


def test_the_masked_language_loss_and_its_gradients_equal_bert() -> None:
    dtype = torch.float64
    ours, theirs_trunk = bert(dtype)
    theirs = randomised(transformers.BertForMaskedLM(theirs_trunk.config)).to(dtype)
    theirs.bert.load_state_dict(theirs_trunk.state_dict())
    nets = MaskedLanguageModelling().build(ours).to(dtype)
    p = dict(theirs.named_parameters())
    heads = {
        "dense.weight": "cls.predictions.transform.dense.weight",
        "dense.bias": "cls.predictions.transform.dense.bias",
        "norm.weight": "cls.predictions.transform.LayerNorm.weight",
        "norm.bias": "cls.predictions.transform.LayerNorm.bias",
        "bias": "cls.predictions.bias",
    }
    head = nets.parts["vocabulary"]
    copy_weights(head, {}, {name: lambda key=key: p[key] for name, key in heads.items()})
    tokens = tokens_with_padding()
    places = torch.tensor([[1, 7, 20], [0, 16, 3], [4, 2, 9]])
    weights = torch.tensor([[1.0, 1, 1], [1, 1, 1], [1, 1, 0]])  # slot 9 of the last row is padding
    targets = torch.randint(5, 300, (3, 3), generator=torch.Generator().manual_seed(3))
    masked = MaskedTokens(tokens, places, targets, weights)
    loss, _ = masked_language_loss(nets, ours.encode(tokens), masked)
    labels = torch.full_like(tokens.ids, -100).scatter(1, places, torch.where(weights > 0, targets, -100))
    expected = theirs(input_ids=tokens.ids, attention_mask=(tokens.segments >= 0).long(), labels=labels).loss
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-12)
    loss.backward()
    expected.backward()
    for name, parameter in head.named_parameters():
        assert torch.allclose(parameter.grad, p[heads[name]].grad, atol=1e-12), name
    embedding = p["bert.embeddings.word_embeddings.weight"].grad
    assert torch.allclose(ours.get_parameter("token.weight").grad, embedding, atol=1e-12)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_the_resnet_equals_the_public_one(depth: int, training: bool) -> None:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32, 64, 128] if depth == 18 else [64, 128, 256, 512],
        depths=[2, 2, 2, 2] if depth == 18 else [3, 4, 6, 3], layer_type="basic" if depth == 18 else "bottleneck",
    )  # fmt: skip
    theirs = randomised(transformers.ResNetModel(config)).double().train(training)
    spec = EncoderSpec(name="custom", family="resnet", width=16, depth=depth, stem="large")
    ours = build_encoder(spec, {"channels": 3, "size": 32}).double().train(training)
    # Both list their layers in the order they act; the shortcut stands first in theirs and last in ours.
    source = [v for k, v in sorted_blocks(theirs) if "num_batches" not in k]
    target = [v for k, v in ours.state_dict().items() if "num_batches" not in k]
    assert [v.shape for v in source] == [v.shape for v in target]
    with torch.no_grad():
        for mine, other in zip(target, source, strict=True):
            mine.copy_(other)
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    expected = theirs(x)
    assert torch.allclose(ours(x), expected.pooler_output.flatten(1), atol=1e-9)
    if not training:
        positions = expected.last_hidden_state.flatten(2).transpose(1, 2)
        assert torch.allclose(ours.encode(x), positions, atol=1e-9)


def sorted_blocks(resnet: nn.Module) -> list[tuple[str, Tensor]]:
    """Weights of the public ResNet with every block's shortcut behind its layers."""
    rows = [(name, value.clone()) for name, value in resnet.state_dict().items()]
    order = {name: at for at, (name, _) in enumerate(rows)}

    def key(name: str) -> tuple[int, int, int]:
        block = name.split("shortcut.")[0].split("layer.")[0]
        first = min(at for other, at in order.items() if other.startswith(block))
        return (first, int("shortcut." in name), order[name])

    return sorted(rows, key=lambda row: key(row[0]))
