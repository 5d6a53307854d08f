"""A small public model of each interchange family, by its file's name; every test of interchange runs over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn

TEXT = {"vocab_size": 120, "pad_token_id": 0}
TRUNK = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@dataclass(frozen=True)
class Toy:
    """A public model with a head, so that prefixes and what is left out are tested too.

    Attributes:
        make: the model, freshly initialised; `randomised` moves its weights.
        kind: what it reads, `text`, `image`, `wave` or `pair`; random inputs are made of it.
        atol: greatest difference of the trunk's output to ours in float32.
        folder: further JSON files of its folder, e.g. `preprocessor_config.json`.
        tokens: entries of its vocabulary.
        half: only its encoder is read, and another family writes that.
    """

    make: Callable[[], nn.Module]
    kind: str = "text"
    atol: float = 1e-5
    folder: dict[str, dict[str, Any]] | None = None
    tokens: int = 120
    half: bool = False


def resnet(depth: int) -> nn.Module:
    """Of a quarter of the paper's width."""
    wider, kind, depths = (1, "basic", [2, 2, 2, 2]) if depth == 18 else (4, "bottleneck", [3, 4, 6, 3])
    sizes = [wider * 16 * 2**stage for stage in range(4)]
    config = transformers.ResNetConfig(embedding_size=16, hidden_sizes=sizes, depths=depths, layer_type=kind)
    return transformers.ResNetForImageClassification(config)


def pair(name: str, **pictures: int) -> nn.Module:
    """Both towers of CLIP or SigLIP; `pictures` of another size than `SQUARE` says."""
    tower = {**SQUARE, **pictures}
    words = {**TEXT, **TRUNK, **ENDS, "max_position_embeddings": 16}
    if name == "clip":
        config = transformers.CLIPConfig(text_config=words, vision_config=tower, projection_dim=24)
        return transformers.CLIPModel(config)
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=words, vision_config=tower))


ENDS = {"bos_token_id": 2, "eos_token_id": 3}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 64}
SQUARE = {**TRUNK, "intermediate_size": 64, "image_size": 24, "patch_size": 8}
DINO = {name: value for name, value in SQUARE.items() if name != "intermediate_size"}
TOYS: dict[str, Toy] = {
    "ast": Toy(
        lambda: transformers.ASTForAudioClassification(transformers.ASTConfig(**TRUNK, max_length=48, num_mel_bins=32)),
        kind="image",
    ),
    "clip": Toy(lambda: pair("clip"), kind="pair"),
    "siglip": Toy(lambda: pair("siglip"), kind="pair", folder={"tokenizer_config.json": {"pad_token": "[PAD]"}}),
    "clip_vision_model": Toy(
        lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SQUARE)), kind="image"
    ),
    "dinov2": Toy(
        lambda: transformers.Dinov2ForImageClassification(
            transformers.Dinov2Config(**DINO, mlp_ratio=2, layerscale_value=0.3)
        ),
        kind="image",
    ),
    "siglip_vision_model": Toy(
        lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SQUARE)), kind="image"
    ),
    "vit": Toy(lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**SQUARE)), kind="image"),
    "wav2vec2": Toy(
        lambda: transformers.Wav2Vec2ForPreTraining(
            transformers.Wav2Vec2Config(
                **TRUNK, vocab_size=12, conv_dim=(16,) * 7, num_conv_pos_embeddings=6, num_conv_pos_embedding_groups=4
            )
        ),
        kind="wave",
    ),
    "ijepa": Toy(lambda: transformers.IJepaForImageClassification(transformers.IJepaConfig(**SQUARE)), kind="image"),
    "resnet": Toy(lambda: resnet(18), kind="image"),
    "vit_mae": Toy(
        lambda: transformers.ViTMAEForPreTraining(
            transformers.ViTMAEConfig(**SQUARE, decoder_hidden_size=16, decoder_num_attention_heads=2)
        ),
        kind="image",
    ),
    "bert": Toy(
        lambda: transformers.BertForMaskedLM(transformers.BertConfig(**TEXT, **TRUNK, max_position_embeddings=64))
    ),
    "bart": Toy(
        lambda: transformers.BartForConditionalGeneration(
            transformers.BartConfig(
                **TEXT, **ENDS, d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=4,
                decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
                decoder_start_token_id=3, forced_eos_token_id=None,
            )
        ),
        half=True,
    ),
    "electra": Toy(
        lambda: transformers.ElectraForPreTraining(
            transformers.ElectraConfig(**TEXT, **TRUNK, embedding_size=16, max_position_embeddings=64)
        )
    ),
    "esm": Toy(
        lambda: transformers.EsmForMaskedLM(
            transformers.EsmConfig(
                **TRUNK, vocab_size=33, pad_token_id=1, mask_token_id=32, position_embedding_type="rotary",
                token_dropout=True,
            )
        ),
        tokens=33,
    ),
    "gpt2": Toy(lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**TEXT, **ENDS, **GPT))),
    "llama": Toy(
        lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**TEXT, **ENDS, **TRUNK, num_key_value_heads=2, rope_theta=5e5)
        )
    ),
    "modernbert": Toy(
        lambda: transformers.ModernBertForMaskedLM(
            transformers.ModernBertConfig(
                **TEXT, **ENDS, **{**TRUNK, "num_hidden_layers": 4}, cls_token_id=2, sep_token_id=3, local_attention=6,
                global_attn_every_n_layers=3,
            )
        )
    ),
    "roberta": Toy(
        lambda: transformers.RobertaForMaskedLM(
            transformers.RobertaConfig(
                **{**TEXT, "pad_token_id": 1}, **TRUNK, type_vocab_size=1, max_position_embeddings=66
            )
        )
    ),
}  # fmt: skip


def randomised(module: nn.Module) -> nn.Module:
    """Norms and biases away from 1 and 0, or a swap of two of them would not show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.2 if parameter.ndim == 1 else 0.1
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
        norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None
        if norms:  # averages as pictures leave them, or the numbers would grow from block to block
            module.train()(torch.randn(4, 3, 48, 48, generator=generator))
    return module.eval()
