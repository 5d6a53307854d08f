"""A model that keeps its decoder, as a public sequence-to-sequence class. Needs torch."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ssl_core.batch import Tokens
from ssl_core.denoise import embedded, read, table, writer_nets
from ssl_core.encoders.decoder import Decoder
from ssl_core.export import open_base
from ssl_core.inference import LoadedModel
from ssl_core.interop import matching, probes
from ssl_core.interop.base import Shape, Writes
from ssl_core.interop.hf import FAMILIES
from ssl_core.nets import Nets
from ssl_core.tasks.translation import Translation


def whole(model: LoadedModel) -> Nets | None:
    """Encoder, decoder and sentinels of a model folder; None of a model that has no decoder."""
    depth = int(model.config.get("decoder_depth", 0))
    if not depth:
        return None
    if model.task is not None:
        return model.nets
    sentinels = load_file(model.folder / "model.safetensors").get("parts.sentinels.weight")
    nets = writer_nets(model.nets.encoder, depth, 0 if sentinels is None else len(sentinels))
    open_base(model.folder).load_parts(nets)
    return nets.eval().requires_grad_(False)


def write(nets: Nets, shape: Shape, out: Path) -> str | None:
    """Config and weights of the first family that has such a decoder; returns the class, None where no family has.

    Sentinels stand behind the tokenizer's entries in the one table that public models have.
    """
    decoder = _decoder(nets)
    depth, entries = len(decoder.layers), len(table(nets))
    for family in FAMILIES.values():
        config = None if family.decoder is None else family.decoder.write(shape, depth, entries)
        if family.decoder is None or config is None:
            continue
        tensors = matching.their_tensors(family, nets.encoder) | _beside(family.decoder, decoder)
        (shared,) = next(row.theirs for row in family.rows(shape.backbone) if row.ours == "token.weight")
        tensors[shared] = table(nets).contiguous()
        named = {f"{family.decoder.prefix}{name}": tensor for name, tensor in tensors.items()}
        save_file(named, out / "model.safetensors", metadata={"format": "pt"})
        told = {**config, "architectures": [family.decoder.model_class], "dtype": "float32"}
        (out / "config.json").write_text(json.dumps(told, indent=1))
        return family.decoder.model_class
    return None


def write_search(task: Translation, shape: Shape, out: Path) -> None:
    """How a public model's `generate` is to search, so that it writes what ours does."""
    told = {
        "num_beams": task.beams, "length_penalty": task.length_penalty, "early_stopping": False, "do_sample": False,
        "max_new_tokens": min(task.max_tokens, int(shape.facts["max_length"])), "forced_eos_token_id": None,
        "decoder_start_token_id": shape.facts["sep_id"], "eos_token_id": shape.facts["sep_id"],
        "pad_token_id": shape.facts["pad_id"],
    }  # fmt: skip
    (out / "generation_config.json").write_text(json.dumps(told, indent=1))


def _decoder(nets: Nets) -> Decoder:
    decoder = nets.parts["decoder"]
    assert isinstance(decoder, Decoder)  # `writer_nets` made it
    return decoder


def _beside(family: Writes, decoder: Decoder) -> dict[str, torch.Tensor]:
    return matching.made_of(family.rows(decoder.spec, len(decoder.layers)), decoder.state_dict())


@torch.no_grad()
def measured(folder: Path, name: str, nets: Nets) -> probes.Measured | None:
    """How far transformers' logits are from ours, where both read and write the same random texts; None where
    transformers is not installed."""
    try:
        import transformers
    except ImportError:
        return None
    theirs = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()
    ids, mask = probes.example(probes.graph_of(nets.encoder, None))
    answer = theirs(input_ids=ids, attention_mask=mask, decoder_input_ids=ids)
    tokens: Tokens = probes.as_tokens(ids, mask)
    found = _decoder(nets)(embedded(nets, ids), tokens, read(nets, tokens), tokens) @ table(nets).T
    return probes.measured([(found[mask > 0], answer.logits[mask > 0])])
