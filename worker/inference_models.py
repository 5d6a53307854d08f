"""Models in memory: loaded on demand, once even if asked for twice at once, bounded by bytes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Generic, Protocol, TypeVar

import structlog

from worker.inference_errors import Refused
from worker.loading import Loads

log = structlog.get_logger()


class Sized(Protocol):
    """Anything that knows what it costs to keep."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its weights."""


M = TypeVar("M", bound=Sized)


class ModelCache(Generic[M]):
    """Least recently used first out. A model in use lives on until its last request lets go of it."""

    def __init__(self, load: Callable[[str, str], M], max_bytes: int) -> None:
        """`load(model_id, digest)` opens a model, in a thread of its own."""
        self._load = load
        self._max_bytes = max_bytes
        self._loads: Loads[M] = Loads("model")
        self._held: dict[str, M] = {}

    def ask(self, model_id: str, digest: str) -> Future[M]:
        """The model, to be waited for with `outcome`; a second caller shares the first one's load, or its error.

        Its errors: those of the load; Refused, 422 `model_too_large`, it alone is over the bound.
        """
        return self._loads.ask(digest, partial(self._open, model_id, digest))

    def close(self) -> None:
        """Load nothing any more."""
        self._loads.close()

    def _open(self, model_id: str, digest: str) -> M:
        model = self._load(model_id, digest)
        if model.size_bytes > self._max_bytes:
            sizes = f"it needs {model.size_bytes} bytes and {self._max_bytes} are allowed"
            raise Refused(422, "model_too_large", f"The model does not fit the inference memory: {sizes}.", "model")
        with self._loads.lock:
            self._held[digest] = model
            self.make_room(0, keep=digest)
        return model

    def make_room(self, incoming: int, keep: str = "") -> None:
        """Let go of the least recently used models until `incoming` bytes more fit; `keep` stays whatever happens."""
        with self._loads.lock:
            total = self.held_bytes + incoming
            for digest in [digest for digest in self._loads.slots if digest in self._held]:
                if total <= self._max_bytes:
                    return
                if digest != keep:
                    del self._loads.slots[digest]
                    size = self._held.pop(digest).size_bytes
                    total -= size
                    log.info("model_evicted", digest=digest, bytes=size)

    @property
    def held_bytes(self) -> int:
        """Bytes of all loaded models."""
        with self._loads.lock:
            return sum(model.size_bytes for model in self._held.values())

    def digests(self) -> list[str]:
        """What is loaded or being loaded."""
        with self._loads.lock:
            return list(self._loads.slots)
