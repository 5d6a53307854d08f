"""The data sets of the examples: where each lies, how it is pretrained, what is learned from its labels."""

from __future__ import annotations

from dataclasses import dataclass, field

from examples.scores import Score, accuracy, bleu, box_precision, contact_precision, rank_correlation, tag_accuracy
from groundwork.client import Json

# What each arm fine-tunes, and from where.
ARMS: dict[str, tuple[Json, str]] = {
    "probe": ({"mode": "linear_probe"}, "pretrained"),
    "knn": ({"mode": "knn"}, "pretrained"),
    "self_training": ({"mode": "linear_probe", "self_training": True}, "pretrained"),
    "lora": ({"mode": "lora"}, "pretrained"),
    "full": ({"mode": "full"}, "pretrained"),
    "scratch": ({"mode": "full"}, "random"),
}
USUAL = ("probe", "full", "scratch")


@dataclass(frozen=True)
class Experiment:
    """One data set: where it lies, how it is pretrained, what is learned from its labels.

    Attributes:
        folder, pool, ending: of the files; the pool may lie in another folder, or be several files of lines.
        sizes: labelled sets.
        minutes, objective: of pretraining.
        task: of fine-tuning, less its mode.
        probe: more settings of the task, of the probe's arm only.
        score: of the answers on the test set; `metric` is its name.
        pretrain, finetune: more fields of these jobs.
        columns: of the labelled files, where their names do not say it.
        baselines: how the names of the comparable ones begin.
        arms: which its task has.
    """

    folder: str
    pool: str | tuple[str, ...]
    ending: str
    sizes: tuple[int | str, ...]
    minutes: float
    objective: Json
    task: Json = field(default_factory=lambda: {"name": "classification"})
    probe: Json = field(default_factory=dict)
    score: Score = accuracy
    metric: str = "accuracy"
    pretrain: Json = field(default_factory=dict)
    finetune: Json = field(default_factory=dict)
    columns: Json = field(default_factory=dict)
    baselines: str | tuple[str, ...] = ""
    arms: tuple[str, ...] = tuple(ARMS)


EXPERIMENTS = {
    "20newsgroups": Experiment(
        "text/20newsgroups", "unlabeled.jsonl", "csv", (5, 20, 100), 30, {"name": "span_contrast"}
    ),
    "ag_news": Experiment("text/ag_news", "unlabeled.txt", "csv", (10, 50, 250), 10, {"name": "span_contrast"}),
    "cifar10": Experiment("image/cifar10", "unlabeled.zip", "zip", (10, 50, 250), 35, {"name": "simclr"}),
    "secondary_structure": Experiment(
        "protein/secondary_structure",
        "unlabeled.fasta",
        "jsonl",
        (100, 1000, 4000),
        45,
        {"name": "mlm"},
        task={"name": "tagging"},
        probe={"context": 8},  # the window of 17 residues that the baseline sees
        score=tag_accuracy,
        metric="Q3",
        arms=("probe", "lora", "full", "scratch"),
    ),
    "contacts": Experiment(
        "protein/contacts",
        "../secondary_structure/unlabeled.fasta",
        "jsonl",
        (20, 60, "all"),
        45,
        {"name": "mlm"},
        task={"name": "contacts"},
        arms=("probe", "full", "scratch"),
        score=contact_precision,
        metric="precision of the L/5 likeliest at separations of 6 and more",
        baselines="pair_lr_P@L5_sep6",
    ),
    "gb1": Experiment(
        "protein/gb1_fitness",
        "../secondary_structure/unlabeled.fasta",
        "jsonl",
        (100, "all"),
        45,
        {"name": "mlm"},
        # Every row is a variant of one protein of 265 residues. Held-out rows of train_all: 0.35 by the mean of the
        # residues' vectors, 0.54 side by side.
        task={"name": "regression", "places": 265},
        arms=("probe", "knn", "lora", "full", "scratch"),
        score=rank_correlation,
        metric="Spearman",
        columns={"number": "label"},
        baselines="onehot_ridge_spearman",
    ),
    "multi30k": Experiment(
        "translation/multi30k_en_de",
        ("unlabeled.en.txt", "unlabeled.de.txt"),
        "jsonl",
        (2000, 10_000, "all"),
        60,
        {"name": "denoising"},
        task={"name": "translation"},
        score=bleu,
        metric="sacreBLEU, lower-cased",
        baselines=("ibm1_word_by_word_bleu", "nearest_source_bleu"),
        finetune={"budget": {"minutes": 25}},
        arms=("full", "scratch"),
    ),
    "bccd": Experiment(
        "detection/bccd",
        "unlabeled.zip",
        "zip",
        (10, 50, "all"),
        60,
        {"name": "simclr"},
        task={"name": "detection", "turn": True},
        score=box_precision,
        metric="AP at an overlap of 0.5",
        # Blood cells have no above; a tenth of a slide still holds several.
        pretrain={"modality": {"name": "image", "size": 96, "fit": "stretch", "crop_min": 0.1}, "batch_size": 64},
        finetune={"budget": {"minutes": 25}},
        baselines="prior_boxes_mAP50",
        arms=("full", "scratch"),
    ),
    "fsdd": Experiment("audio/fsdd", "unlabeled.zip", "zip", (5, 20, 50), 30, {"name": "simclr"}),
}
