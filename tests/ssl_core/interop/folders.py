"""Public model folders as users zip them: a small BERT with a WordPiece tokenizer, whole or broken."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from ssl_core.context import MemoryContext
from ssl_core.interop import exporter, importer
from ssl_core.spec import ExportSpec, ImportSpec, RunOrder
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
