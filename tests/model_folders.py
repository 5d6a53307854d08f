"""Small model folders as a finished run writes them (docs/contracts.md §4), with random weights."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from ssl_core.backbones import EncoderSpec
from ssl_core.data import text_shards, tokenizer
from ssl_core.durable import committed
from ssl_core.encoders import build_encoder
from ssl_core.modalities.audio import AudioModality
from ssl_core.modalities.base import Modality
from ssl_core.modalities.image import ImageModality
from ssl_core.modalities.text import TextModality
from ssl_core.nets import Nets
from ssl_core.objectives import OBJECTIVES
from ssl_core.tasks import TASKS

WORDS = [
    *("bread", "oven", "salt", "flour", "butter", "sugar", "wind", "harbour", "mast"),
    *("rope", "tide", "anchor", "rose", "soil", "spade", "seed", "hedge"),
]
CLASSES = ["cooking", "gardens", "sailing"]
TEXT_BACKBONE = EncoderSpec(name="custom", family="transformer", width=32, depth=2, heads=2)
IMAGE_BACKBONE = EncoderSpec(name="custom", family="convnet", width=16, depth=2)


def text_model(
    folder: Path, task: bool = False, seed: int = 0, max_length: int = 24, backbone: EncoderSpec = TEXT_BACKBONE
) -> Path:
    """A text encoder, or a classifier of three topics."""
    modality = TextModality(max_length=max_length, vocab_size=512, span_min=4, span_max=8)
    codec = tokenizer.train(texts(200, seed=5), "bpe", 512, False)
    facts = text_shards.facts(codec, max_length)
    torch.manual_seed(seed)
    nets = _nets(backbone, facts, task)
    with committed(folder) as out:
        codec.save(str(out / "tokenizer.json"))
        _write(out, nets, modality, facts, task)
    return folder


def language_model(folder: Path, objective: str, seed: int = 0, max_length: int = 24) -> Path:
    """A text encoder with all that its objective trains: `mlm` or `next_token`."""
    modality = TextModality(max_length=max_length, vocab_size=512, span_min=4, span_max=8)
    codec = tokenizer.train(texts(200, seed=5), "bpe", 512, False)
    facts = text_shards.facts(codec, max_length)
    causal = {"attention": "causal", "embedding_norm": False} if objective == "next_token" else {}
    torch.manual_seed(seed)
    nets = OBJECTIVES[objective]().build(build_encoder(TEXT_BACKBONE.model_copy(update=causal), facts))
    with committed(folder) as out:
        codec.save(str(out / "tokenizer.json"))
        _write(out, nets, modality, facts, False, objective)
    return folder


def image_model(folder: Path, task: bool = False, seed: int = 0) -> Path:
    """An image encoder for 16 x 16 pixels, or a classifier of three classes."""
    modality = ImageModality(size=16, channels=3)
    facts = {"channels": 3, "size": 16, "side": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    torch.manual_seed(seed)
    nets = _nets(IMAGE_BACKBONE, facts, task)
    with committed(folder) as out:
        _write(out, nets, modality, facts, task)
    return folder


def sound_model(folder: Path, task: bool = False, seed: int = 0) -> Path:
    """An encoder of spectrograms, or a classifier of three classes."""
    modality = AudioModality(sample_rate=2000, seconds=0.32, mels=16)
    torch.manual_seed(seed)
    facts = {**modality.shape(), "mean": -8.0, "std": 4.0}
    nets = _nets(IMAGE_BACKBONE, facts, task)
    with committed(folder) as out:
        _write(out, nets, modality, facts, task)
    return folder


def texts(count: int, seed: int = 0, longest: int = 40) -> list[str]:
    """Documents of 1 to `longest` words."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, int(random.integers(1, longest + 1)))) for _ in range(count)]


def picture(seed: int = 0, size: tuple[int, int] = (20, 16), format: str = "PNG") -> bytes:
    """The bytes of a picture file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


def _nets(spec: EncoderSpec, facts: dict[str, Any], task: bool) -> Nets:
    encoder = build_encoder(spec, facts)
    return TASKS["classification"]().build(encoder, CLASSES) if task else Nets(encoder)


def _write(
    out: Path, nets: Nets, modality: Modality, facts: dict[str, Any], task: bool, objective: str | None = None
) -> None:
    save_file(nets.state_dict(), out / "model.safetensors")
    config = {
        "format": "groundwork-1",
        "kind": "task" if task else "encoder",
        "modality": modality.model_dump(mode="json"),
        "backbone": nets.encoder.spec.model_dump(mode="json"),
        "facts": facts,
        "objective": None if objective is None else OBJECTIVES[objective]().model_dump(mode="json"),
        "task": TASKS["classification"]().model_dump(mode="json") if task else None,
        "classes": CLASSES if task else [],
        "embed_dim": nets.encoder.embed_dim,
        "parameters": sum(parameter.numel() for parameter in nets.parameters()),
        "max_length": int(modality.model_dump().get("max_length", 0)),
    }
    (out / "config.json").write_text(json.dumps(config))
    (out / "card.json").write_text(json.dumps({"seed": 0, "software": {"torch": str(torch.__version__)}}))
