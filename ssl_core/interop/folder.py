"""A public model folder from a stranger's zip, or from a hub where the operator allows that.

Of a zip only weights, small JSON files and vocabularies are written to disk, under their bare names; every other
member is looked at (a pickle anywhere is refused) and left where it is.
"""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ssl_core.data import archives
from ssl_core.errors import DataError, EngineError, SpecError
from ssl_core.interop.tensors import HEAD, INDEX, read_json, refuse_pickle
from ssl_core.spec import HubModel

MAX_SMALL = 64 * 2**20
"""Bytes of a config, an index or a tokenizer."""
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
_EXTRAS = ("preprocessor_config.json", "tokenizer_config.json", "generation_config.json")
_BLOCK = 1 << 20
ALLOW_HUB = "GROUNDWORK_ALLOW_HUB"


def unpack(archive: Path, out: Path) -> None:
    """The model folder in a zip, written to `out`, which must not exist.

    Raises:
        DataError: as `ssl_core.data.archives.members`; `pickle_refused`; `config_missing`; `too_large`.
    """
    names: list[str] = []
    archives.read_zip(archive, lambda name, stream: names.append(_looked_at(name, stream)))
    configs = [name for name in names if posixpath.basename(name) == "config.json"]
    if not configs:
        raise DataError("config_missing", "the zip holds no config.json; zip the model's folder as it is")
    root = posixpath.dirname(min(configs, key=lambda name: (name.count("/"), name)))
    out.mkdir(parents=True)

    def keep(name: str, stream: IO[bytes]) -> None:
        bare = posixpath.basename(name)
        if posixpath.dirname(name) == root and _wanted(bare):
            _write(out / bare, stream, bare)

    archives.read_zip(archive, keep)


def _looked_at(name: str, stream: IO[bytes]) -> str:
    refuse_pickle(name, stream.read(HEAD))
    return name


def _wanted(name: str) -> bool:
    return name.endswith(".safetensors") or name in ("config.json", INDEX, *_VOCABULARIES, *_EXTRAS)


def _write(path: Path, stream: IO[bytes], name: str) -> None:
    size = 0
    with path.open("xb") as file:
        while block := stream.read(_BLOCK):
            size += len(block)
            if size > MAX_SMALL and not name.endswith(".safetensors"):
                raise DataError("too_large", f"{name} is larger than the {MAX_SMALL >> 20} MiB allowed", name)
            file.write(block)


def fetch(hub: HubModel, out: Path) -> None:
    """The same from a hub, by `huggingface_hub`; nothing but safetensors, JSON and vocabularies is asked for.

    Raises:
        SpecError: `hub_not_allowed`, the operator has not set GROUNDWORK_ALLOW_HUB for this worker.
        DataError: `hub_not_found`.
        EngineError: `hub_failed`.
    """
    if os.environ.get(ALLOW_HUB, "").lower() not in ("1", "true", "yes"):
        raise SpecError("hub_not_allowed", f"the worker may not fetch from a hub; its operator sets {ALLOW_HUB}", "hub")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    except ImportError as error:
        raise SpecError("hub_not_allowed", "this worker is installed without huggingface_hub", "hub") from error
    patterns = ["*.safetensors", "config.json", INDEX, *_VOCABULARIES, *_EXTRAS]
    try:
        # No token: what the worker's user may read is not what a user of this platform may.
        snapshot_download(
            hub.repository, revision=hub.revision, allow_patterns=patterns, local_dir=out, token=False,
            endpoint=os.environ.get("HF_ENDPOINT"), max_workers=2,
        )  # fmt: skip
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        at = f" at {hub.revision}" if hub.revision else ""
        text = f"the hub has no public repository {hub.repository}{at}"
        raise DataError("hub_not_found", text, "hub") from error
    except Exception as error:  # the library raises errors of several others
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise EngineError("hub_failed", f"{hub.repository} could not be fetched: {said[:300]}", "hub") from error
    shutil.rmtree(out / ".cache", ignore_errors=True)


def extras(folder: Path) -> dict[str, Mapping[str, Any]]:
    """The small JSON files beside `config.json`. Raises DataError `invalid_config`."""
    return {name: read_json(folder / name) for name in _EXTRAS if (folder / name).exists()}


def tokenizer_of(folder: Path) -> Path | None:
    """The folder's `tokenizer.json`, made from its vocabulary where it has only that; None where it has neither.

    Raises:
        DataError: `invalid_tokenizer`.
    """
    path = folder / "tokenizer.json"
    if path.exists():
        return path
    try:
        made = _from_vocabulary(folder)
    except Exception as error:  # the library raises bare Exception for a malformed file
        raise DataError("invalid_tokenizer", f"the vocabulary cannot be read: {str(error)[:200]}") from error
    if made is None:
        return None
    made.save(str(path))
    return path


def _from_vocabulary(folder: Path) -> Any:
    """WordPiece of a `vocab.txt`, byte-level BPE of `vocab.json` and `merges.txt`."""
    from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer, processors

    told = extras(folder).get("tokenizer_config.json", {})
    if (folder / "vocab.txt").exists():
        return BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=bool(told.get("do_lower_case", True)))
    if not ((folder / "vocab.json").exists() and (folder / "merges.txt").exists()):
        return None
    made = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    begin, end = made.token_to_id("<s>"), made.token_to_id("</s>")
    if begin is not None and end is not None:  # RoBERTa's frame; GPT-2 has none
        made._tokenizer.post_processor = processors.RobertaProcessing(("</s>", end), ("<s>", begin))
    return made
