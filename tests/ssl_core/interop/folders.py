"""Public model folders as users zip them: a small BERT with a WordPiece tokenizer, whole or broken."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from ssl_core.answer_heads import neighbours_of
from ssl_core.context import MemoryContext
from ssl_core.durable import committed
from ssl_core.encoders import Encoder
from ssl_core.heads import classifier_of
from ssl_core.inference import FORMAT
from ssl_core.interop import exporter, importer
from ssl_core.interop.base import Shape
from ssl_core.nets import Nets
from ssl_core.ridge import regressor_of
from ssl_core.spec import ExportSpec, ImportSpec, RunOrder
from ssl_core.tasks import TASKS
from ssl_core.tasks.base import Task
from tests.ssl_core.interop.families import TEXT, TRUNK, randomised

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{at}" for at in range(100)))


def write_tokenizer(folder: Path) -> None:
    """WordPiece over `WORDS`, which frames a text as BERT's does."""
    made = Tokenizer(models.WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.save(str(folder / "tokenizer.json"))


def bert_folder(folder: Path, layers: int = 2, **saving: Any) -> Path:
    """`config.json`, safetensors and `tokenizer.json`, as transformers saves them."""
    torch.manual_seed(0)
    config = transformers.BertConfig(**TEXT, **{**TRUNK, "num_hidden_layers": layers}, max_position_embeddings=64)
    randomised(transformers.BertForMaskedLM(config)).save_pretrained(folder, **saving)
    write_tokenizer(folder)
    return folder


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> Path:
    """The folder with other tensors."""
    path = folder / "model.safetensors"
    save_file(dict(change(load_file(path))), path, metadata={"format": "pt"})
    return folder


def zipped(folder: Path, to: Path, inside: str = "") -> Path:
    """All files of the folder as a zip, below `inside`."""
    with zipfile.ZipFile(to, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{inside}{file.name}")
    return to


def imported(archive: Path, workdir: Path, **fields: Any) -> tuple[dict[str, Any], MemoryContext]:
    """The import of a zip: the verdict and what was told; the model lies in `workdir/artifact`."""
    workdir.mkdir(exist_ok=True)
    spec = ImportSpec(upload="imp_x", filename=archive.name, bytes=archive.stat().st_size, **fields)
    order = RunOrder(spec=spec, datasets={"imp_x": str(archive)}, cache=str(workdir / "cache"))
    context = MemoryContext(workdir)
    return importer.run(order, spec, context), context


def answering(task: Task, encoder: Encoder, names: list[str]) -> Nets:
    """A task's nets with a head whose standardisation and layer are no identity."""
    nets, draw, width = task.build(encoder, names), torch.Generator().manual_seed(3), encoder.embed_dim
    vectors = 0.5 + 2 * torch.randn(50, width, generator=draw)
    if "neighbours" in nets.parts:
        shares = torch.rand(50, len(names) or 1, generator=draw)
        neighbours_of(nets).remember(vectors, shares / shares.sum(1, keepdim=True))
    elif "regressor" in nets.parts:
        numbers = 7 + 3 * torch.randn(50, generator=draw)
        regressor_of(nets).centre_on(numbers)
        regressor_of(nets).fit(vectors, numbers, 10.0)
    else:
        head = classifier_of(nets)
        width = head.linear.in_features
        head.standardise(0.5 + 2 * torch.randn(50, width, generator=draw))
        layer = torch.randn(len(names), width, generator=draw), torch.randn(len(names), generator=draw)
        head.assign(*layer)
    return nets


def model_folder(
    folder: Path, shape: Shape, encoder: Encoder, classes: int = 0, model_type: str = "", task: Task | None = None
) -> Path:
    """A model folder of ours: the encoder, or with a task on it, a classifier where there are classes and no word."""
    task = TASKS["classification"]() if classes and task is None else task
    names = [f"kind {at}" for at in range(classes)]
    nets = Nets(encoder) if task is None else answering(task, encoder, names)
    config = {
        "format": FORMAT, "kind": "task" if task is not None else "encoder",
        "modality": shape.modality.model_dump(mode="json"),
        "backbone": shape.backbone.model_dump(mode="json"), "facts": dict(shape.facts), "objective": None,
        "task": task and task.model_dump(mode="json"), "classes": names, "embed_dim": encoder.embed_dim,
        "parameters": sum(parameter.numel() for parameter in nets.parameters()),
        "max_length": int(shape.facts.get("max_length", 0)), "imported": {"model_type": model_type},
    }  # fmt: skip
    with committed(folder) as out:
        save_file(nets.state_dict(), out / "model.safetensors")
        (out / "config.json").write_text(json.dumps(config))
    return folder


def exported(model: Path, workdir: Path, format: str) -> tuple[Path, dict[str, Any]]:
    """The unpacked export of a model folder, and the verdict."""
    workdir.mkdir(exist_ok=True)
    spec = ExportSpec.model_validate({"model": "mdl_x", "format": format})
    order = RunOrder(spec=spec, model=str(model), cache=str(workdir / "cache"))
    verdict = exporter.run(order, spec, MemoryContext(workdir))
    out = workdir / f"{format}-folder"
    with zipfile.ZipFile(workdir / "artifact" / f"{format}.zip") as archive:
        archive.extractall(out)
    return out, verdict
