"""The rows of the comparison: what the peer runs, what we run, and the goal. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: on the command line and in the results.
        title: in the table.
        script: the peer's; empty where we are compared with ourselves.
        data: of the kit's synthetic data, `text.txt`, `images` or `wavs`.
        flags: for the peer beside threads, batch and steps.
        goals: ratio wanted against the peer as it comes, and tuned.
        batch, steps, warmup: of both sides; `steps` counts the warm-up, which is not timed. Our process keeps what it
            frees, and has all the memory it needs after some five steps only.
        note: what a reader must know to judge the ratio.
        ours: our job, the peer's settings where both have them.
        gpu: measured on a GPU, where our recipe (bf16, compiled) stands against the peer, and `mfu` is told with it.
    """

    name: str
    title: str
    script: str
    data: str
    flags: tuple[str, ...]
    goals: tuple[float, float]
    batch: int = 16
    steps: int = 12
    warmup: int = 6
    note: str = ""
    tuned: tuple[str, ...] = ("--preset", "tuned")
    ours: Json = field(default_factory=dict)
    gpu: bool = False

_BERT: Json = {
    "objective": {"name": "mlm"}, "positions": "learned", "max_positions": 512, "norm": "post", "norm_epsilon": 1e-12,
    "dropout": 0.1, "vocabulary": 30522,
}  # fmt: skip
_SMALL: Json = {"width": 256, "depth": 4, "heads": 4}
_BASE: Json = {"width": 768, "depth": 12, "heads": 12}
_SAME = "The same post-norm trunk, learned positions, tied head and dropout 0.1; the peer has 2 token types more."
_SIMCLR: Json = {
    "objective": {"name": "simclr", "temperature": 0.5},
    "modality": {"name": "image", "size": 32, "crop_min": 0.08, "jitter": 1.0, "blur_probability": 0.5},
    "backbone": "image-resnet18", "optimizer": {"name": "sgd", "learning_rate": 0.06, "weight_decay": 5e-4},
}  # fmt: skip
_NO_PRESET = "The peer's loop is plain PyTorch and has no preset for a CPU: tuned is channels-last."

ROWS: tuple[Row, ...] = (
    Row("mlm", "MLM h256 L4 V30,522 T128 packed", "hf_mlm.py", "text.txt", ("--model-vocab", "30522"), (2.5, 2.2),
        note=_SAME + " The peer's blocks cross document borders, ours are masked at them.", ours=_BERT | _SMALL),
    Row("mlm-base", "MLM BERT-base shape", "hf_mlm.py", "text.txt",
        ("--model-vocab", "30522", "--hidden", "768", "--layers", "12", "--heads", "12"), (1.5, 1.3),
        batch=4, steps=9, note=_SAME, ours=_BERT | _BASE),
    Row("mlm-lines", "MLM on lines", "hf_mlm.py", "text.txt", ("--model-vocab", "30522", "--data", "line"), (4.0, 2.0),
        note=_SAME + " The peer pads lines (tuned: batches by length), ours packs them; real tokens are counted.",
        tuned=("--preset", "tuned", "--length-grouping"), ours=_BERT | _SMALL),
    Row("next-token", "Next token h256 L4 T128", "hf_clm.py", "text.txt", (), (1.4, 1.25),
        note="GPT-2's shape and GELU, tied output; our recipe's GELU is the exact one.",
        ours={"objective": {"name": "next_token"}, **_SMALL, "positions": "learned", "max_positions": 128,
              "attention": "causal", "embedding_norm": False, "dropout": 0.1, "mlp": "gelu_tanh",
              "tokenizer": "bpe"}),
    Row("simclr-loader", "SimCLR augmented pairs, loader alone", "lightly_simclr.py", "images", ("--part", "loader"),
        (4.0, 3.0), batch=64, steps=10, note="32 px of 96 px JPEG files: the peer decodes each time, we once."
        " There is nothing to tune.", tuned=(), ours=_SIMCLR | {"part": "loader"}),
    Row("simclr", "SimCLR ResNet-18 small stem, 32 px", "lightly_simclr.py", "images", ("--small-stem",), (1.15, 1.1),
        batch=64, steps=3, warmup=1, note=_NO_PRESET, tuned=("--channels-last",), ours=_SIMCLR),
    Row("mae", "MAE ViT h192 L6, 32 px", "hf_mae.py", "images", (), (1.5, 1.3), batch=64, steps=12, warmup=4,
        note="The same encoder, decoder and share of hidden patches; the peer's positions are parameters, ours fixed.",
        ours={"objective": {"name": "mae", "decoder_width": 96, "decoder_depth": 2, "decoder_heads": 3},
              "modality": {"name": "image", "size": 32}, "backbone": "vit-tiny"}),
    Row("wav2vec2", "wav2vec 2.0 h128 L4", "hf_wav2vec2.py", "wavs", (), (1.5, 1.3), batch=4, steps=4, warmup=1,
        note="Seconds of sound, silence at the end of short clips not counted.",
        ours={"objective": {"name": "wav2vec2", "distractors": 20, "entries": 160, "code_width": 128},
              "modality": {"name": "audio", "representation": "waveform", "seconds": 4.0, "crop_min": 1.0},
              "family": "wave", "width": 128, "depth": 4, "heads": 4, "stem": "large", "stem_width": 128,
              "stem_norm": "layer", "positions": "convolution", "position_kernel": 64, "position_groups": 8,
              "embedding_norm": False, "dropout": 0.1,
              "optimizer": {"learning_rate": 5e-4, "clip_norm": 10.0, "weight_decay": 0.01}}),
    Row("preparation", "Second job on the same dataset: preparation", "", "text.txt", (), (50.0, 50.0),
        note="Our first preparation of a text pool (tokenizer, shards) against our second.",
        ours=_BERT | _SMALL),
)  # fmt: skip
_TUNED_GPU = ("--preset", "tuned", "--workers", "4")
_READS = "Both read the same lines; the peer's loader is the process itself as it comes, four workers when tuned."
GPU_ROWS: tuple[Row, ...] = (
    Row("mlm-base-gpu", "MLM BERT-base, T128", "hf_mlm.py", "text.txt",
        ("--model-vocab", "30522", "--hidden", "768", "--layers", "12", "--heads", "12"), (6.0, 2.0), batch=256,
        steps=60, warmup=20, tuned=_TUNED_GPU, ours=_BERT | _BASE, gpu=True,
        note=_SAME + " " + _READS + " Our MFU is to be 45 % or more."),
    Row("gpt2-gpu", "GPT-2 124M, T512", "hf_clm.py", "text.txt",
        ("--model-vocab", "50257", "--hidden", "768", "--layers", "12", "--heads", "12", "--seq", "512"), (6.0, 1.4),
        batch=32, steps=60, warmup=20, note=_READS, tuned=_TUNED_GPU, gpu=True,
        ours={"objective": {"name": "next_token"}, **_BASE, "positions": "learned", "max_positions": 512,
              "attention": "causal", "embedding_norm": False, "dropout": 0.1, "mlp": "gelu_tanh",
              "tokenizer": "bpe", "length": 512, "vocabulary": 50257}),
    Row("mae-gpu", "MAE ViT-B/16, 224 px", "hf_mae.py", "images",
        ("--size", "224", "--patch", "16", "--hidden", "768", "--layers", "12", "--heads", "12",
         "--dec-hidden", "512", "--dec-layers", "8", "--dec-heads", "16"), (4.0, 2.0), batch=128, steps=40, warmup=12,
        note="The same encoder, decoder and share of hidden patches; the peer decodes each picture each time.",
        tuned=("--preset", "tuned", "--workers", "8"), gpu=True,
        ours={"objective": {"name": "mae", "decoder_width": 512, "decoder_depth": 8, "decoder_heads": 16},
              "modality": {"name": "image", "size": 224}, "backbone": "vit-base"}),
    Row("simclr-gpu", "SimCLR ResNet-18 small stem, 32 px", "lightly_simclr.py", "images", ("--small-stem",),
        (5.0, 4.0), batch=512, steps=40, warmup=12, note="Tuned is bf16, channels-last and eight loader workers.",
        tuned=("--bf16", "--channels-last", "--workers", "8"), ours=_SIMCLR, gpu=True),
)  # fmt: skip
BY_NAME = {row.name: row for row in ROWS + GPU_ROWS}
MEMORY = ("memory", "Peak memory of MLM", "mlm", 0.65)
"""Name and title of the row, the row whose runs it is read from, and our greatest share of the peer's memory."""
