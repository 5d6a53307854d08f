"""Prepared shards, made once per (dataset digest, modality settings, tokenizer) and shared between runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_core.context import RunContext, Stopped
from ssl_core.data import rows
from ssl_core.durable import read_manifest, sha256
from ssl_core.modalities.base import Modality
from ssl_core.targets import TARGETS

_READY = "ready"


def prepared(modality: Modality, dataset: Path, cache: Path, tokenizer: Path | None, context: RunContext) -> Path:
    """The folder of shards, from the cache or made now.

    Two runs that need the same shards at once take turns on a lock file; a run killed half-way leaves a temp folder
    that the next one throws away. The lock dies with its process.

    Raises:
        DataError: the dataset folder is not usable.
        Stopped: asked to leave meanwhile; nothing is kept.
    """

    def tell(done: int, total: int) -> None:
        context.emit("progress", stage="preparing", step=done, total_steps=total)
        reason = context.should_stop()
        if reason is not None:
            raise Stopped(reason)

    def make(temp: Path) -> None:
        modality.prepare(dataset, temp, tokenizer, tell)
        for name in rows.profile(dataset).get("targets", {}):
            TARGETS[name].write(dataset, temp, modality)

    return kept(cache, cache_key(modality, dataset, tokenizer), make)


def kept(cache: Path, key: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache under that name, from before or made now by `make(folder)`; as for `prepared`."""
    cache.mkdir(parents=True, exist_ok=True)
    final = cache / key
    with _locked(cache / f"{key}.lock"):
        if (final / _READY).exists():
            return final
        temp = cache / f"{key}.tmp"
        shutil.rmtree(temp, ignore_errors=True)
        shutil.rmtree(final, ignore_errors=True)
        make(temp)
        (temp / _READY).touch()
        temp.rename(final)
    return final


def cache_key(modality: Modality, dataset: Path, tokenizer: Path | None) -> str:
    """sha256 over what the shards depend on (docs/contracts.md §3)."""
    parts = {
        "digest": read_manifest(dataset)["digest"],
        "modality": modality.model_dump(mode="json"),
        "tokenizer": sha256(tokenizer) if tokenizer is not None else None,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
