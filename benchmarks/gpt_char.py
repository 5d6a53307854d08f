"""nanoGPT's character-level run on a CPU, by our engine and by a plain loop around transformers' GPT-2, on one text.

    python -m benchmarks.gpt_char --text pool.txt
    python -m benchmarks.gpt_char --text pool.txt --steps 500 --seeds 0 1 2

The settings are those of nanoGPT's README for a CPU (`train_shakespeare_char.py`): 4 layers, 4 heads, 128 wide, 64
characters of context, batches of 12, 2,000 steps, AdamW at 0.001 with a warm-up of 100 steps, a cosine, betas 0.9 and
0.99, decay 0.1, clipping at 1, no dropout. The first 1.1 million characters of the text are taken, nine tenths of them
to learn from. Both models answer for the same characters of the last tenth. The plain loop draws its batches at random
places, as nanoGPT does; the engine reads fixed rows in a new order each epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.engine import dataset, device_name, engine, facts
from ssl_core import inference
from ssl_core.batch import Tokens
from ssl_core.data import tokenizer
from ssl_core.generation import continuations
from ssl_core.recipes import resolve
from ssl_core.sampling import Sampling
from ssl_core.spec import JOB_SPEC

Json = dict[str, Any]
CHARACTERS = 1_115_394
"""As many as nanoGPT's text has."""


@dataclass(frozen=True)
class Plan:
    """Both sides' settings; `context` is characters that the model sees."""

    steps: int = 2000
    batch: int = 12
    context: int = 64
    width: int = 128
    depth: int = 4
    heads: int = 4
    rate: float = 1e-3
    warmup: int = 100
    decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0


def split(path: Path, characters: int = CHARACTERS) -> tuple[str, str]:
    """The text to learn from, and the last tenth.

    Raises:
        SystemExit: the file is shorter than that.
    """
    text = path.read_text(encoding="utf-8")[:characters]
    if len(text) < characters:
        raise SystemExit(f"{path} has {len(text):,} characters; {characters:,} are needed")
    return text[: characters * 9 // 10], text[characters * 9 // 10 :]


def documents(text: str, path: Path) -> Path:
    """The text as a few long documents: a pool of one row has nothing to hold out and is refused."""
    size = -(-len(text) // 10)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    path.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces), encoding="utf-8")
    return path


def ours(folder: Path, data: Path, plan: Plan, seed: int, threads: int) -> Path:
    """A run of the engine on a dataset of the text; the model's folder."""
    # A row of context + 1 characters has as many targets as a block of nanoGPT.
    length = plan.context + 1
    spec = {
        "type": "pretrain", "dataset": "ds_bench", "seed": seed, "batch_size": plan.batch, "precision": "fp32",
        "validation_fraction": 0.0, "budget": {"steps": plan.steps}, "objective": {"name": "next_token"},
        "modality": {
            "name": "text", "tokenizer": "characters", "vocab_size": 512, "lowercase": False, "max_length": length,
            "span_min": 8, "span_max": 8,
        },
        "backbone": {
            "name": "custom", "family": "transformer", "width": plan.width, "depth": plan.depth, "heads": plan.heads,
            "positions": "learned", "max_positions": length, "attention": "causal", "embedding_norm": False,
        },
        "optimizer": {
            "learning_rate": plan.rate, "weight_decay": plan.decay, "beta1": plan.betas[0], "beta2": plan.betas[1],
            "warmup_fraction": plan.warmup / plan.steps, "clip_norm": plan.clip,
        },
    }  # fmt: skip
    resolved = resolve(JOB_SPEC.validate_python(spec), facts(data))  # type: ignore[type-var]
    order = {"spec": resolved.model_dump(mode="json"), "datasets": {"ds_bench": str(data)}, "threads": threads}
    return engine(folder / f"ours-{seed}", {**order, "cache": str(folder / "cache")}) / "artifact"


def plain(ids: Tensor, vocabulary: int, plan: Plan, seed: int) -> nn.Module:
    """GPT-2 of the public library, trained on (N,) ids by a loop of its own."""
    import transformers

    torch.manual_seed(seed)
    model: nn.Module = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=vocabulary, n_positions=plan.context, n_embd=plan.width, n_layer=plan.depth, n_head=plan.heads,
            activation_function="gelu", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
            bos_token_id=None, eos_token_id=None,
        )
    )  # fmt: skip
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": plan.decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=plan.rate,
        betas=plan.betas,
    )
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, plan)
        begins = torch.randint(len(ids) - plan.context, (plan.batch, 1))
        blocks = ids[begins + torch.arange(plan.context + 1)]
        logits = model(blocks[:, :-1]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), blocks[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, plan.clip)
        optimizer.step()
    return model.eval()


def rate(step: int, plan: Plan) -> float:
    """The learning rate: linear to the peak, then a cosine to nothing."""
    if step < plan.warmup:
        return plan.rate * (step + 1) / plan.warmup
    return plan.rate * 0.5 * (1 + math.cos(math.pi * (step - plan.warmup) / (plan.steps - plan.warmup)))


@torch.no_grad()
def nats(logits_of: Callable[[Tensor], Tensor], ids: Tensor, context: int) -> float:
    """Mean cross-entropy of each character given those before it in its block of `context`.

    Args:
        logits_of: (B, T, V) of (B, T) ids.
        ids: (N,) the text; what does not fill a block is left out.
        context: T.
    """
    count = (len(ids) - 1) // context
    inputs, targets = ids[: count * context].view(-1, context), ids[1 : count * context + 1].view(-1, context)
    total = 0.0
    for start in range(0, count, 64):
        logits = logits_of(inputs[start : start + 64]).double()
        total += float(F.cross_entropy(logits.flatten(0, 1), targets[start : start + 64].flatten(), reduction="sum"))
    return total / targets.numel()


def logits_of(model: inference.LoadedModel) -> Callable[[Tensor], Tensor]:
    """What an exported model makes of (B, T) ids."""
    encoder = model.nets.encoder
    table = encoder.get_parameter("token.weight")

    def logits(ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        return F.linear(encoder.encode(Tokens(ids, torch.zeros_like(ids, dtype=torch.int32), positions)), table)

    return logits


def compare(texts: tuple[str, str], plan: Plan, seeds: list[int], threads: int) -> Json:
    """Train both sides with each seed and score them on the same characters."""
    torch.set_num_threads(threads)
    rows: list[Json] = []
    with tempfile.TemporaryDirectory(prefix="groundwork-gpt-") as name:
        folder = Path(name)
        data = dataset(folder, documents(texts[0], folder / "text.jsonl"))
        for seed in seeds:
            started = time.monotonic()
            model = inference.load(ours(folder, data, plan, seed, threads))
            between = time.monotonic()
            codec = tokenizer.load(model.folder / "tokenizer.json")
            learned, held_out = (torch.tensor(tokenizer.encode(codec, [text])[0]) for text in texts)
            reference = plain(learned, tokenizer.size(codec), plan, seed)
            ended = time.monotonic()
            score = nats(logits_of(model), held_out, plan.context)
            theirs = nats(lambda ids, net=reference: net(ids).logits, held_out, plan.context)  # type: ignore[misc]
            rows.append({"seed": seed, "ours": score, "plain": theirs, "difference": score - theirs,
                         "ours_seconds": between - started, "plain_seconds": ended - between})  # fmt: skip
        begun = held_out[: plan.context // 2].tolist()
        sampling = Sampling(max_tokens=200, temperature=0.8)
        told = continuations(model.nets.encoder, [begun], sampling, torch.tensor([0]))[0]
    sample = {"prompt": codec.decode(begun), "continuation": codec.decode(told)}
    return {
        "characters": len(texts[0]) + len(texts[1]),
        "vocabulary": tokenizer.size(codec),
        "rows": rows,
        "sample": sample,
    }


def main() -> int:
    """Compare, print the table, keep it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="a text of at least 1.12 million characters")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1, help="of either side")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpt_char.json"))
    given = parser.parse_args()
    plan = Plan(steps=given.steps, warmup=max(1, given.steps // 20))
    found = compare(split(given.text), plan, given.seeds, given.threads)
    table = Table(title="Nats a character on held-out text (nanoGPT's settings for a CPU)")
    for column in found["rows"][0]:
        table.add_column(column)
    for row in found["rows"]:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=120).print(table)
    print(f"{found['sample']['prompt']}|{found['sample']['continuation']}")
    found["mean_difference"] = mean(row["difference"] for row in found["rows"])
    kept = {"date": date.today().isoformat(), "device": device_name(gpu=False), "text": given.text.name}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({**kept, "threads": given.threads, "plan": asdict(plan), **found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
