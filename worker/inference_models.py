"""Models in memory: loaded on demand, once even if asked for twice at once, bounded by bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, Protocol, TypeVar

import structlog

from worker.inference_errors import Refused

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
        """`load(model_id, digest)` opens a model; it runs in the thread of the first caller."""
        self._load = load
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._loads: OrderedDict[str, Future[M]] = OrderedDict()

    def get(self, model_id: str, digest: str) -> M:
        """The loaded model; a second caller waits for the first one's load and shares its result or error.

        Raises:
            Refused: 422 `model_too_large`, it alone is over the bound.
        """
        with self._lock:
            waiting = self._loads.get(digest)
            if waiting is not None:
                self._loads.move_to_end(digest)
            else:
                mine = self._loads[digest] = Future()
        return waiting.result() if waiting is not None else self._load_into(mine, model_id, digest)

    def _load_into(self, slot: Future[M], model_id: str, digest: str) -> M:
        try:
            model = self._load(model_id, digest)
            if model.size_bytes > self._max_bytes:
                sizes = f"it needs {model.size_bytes} bytes and {self._max_bytes} are allowed"
                raise Refused(422, "model_too_large", f"The model does not fit the inference memory: {sizes}.", "model")
        except BaseException as error:
            with self._lock:
                self._loads.pop(digest, None)
            slot.set_exception(error)
            raise
        slot.set_result(model)
        self.make_room(0, keep=digest)
        return model

    def make_room(self, incoming: int, keep: str = "") -> None:
        """Let go of the least recently used models until `incoming` bytes more fit; `keep` stays whatever happens."""
        with self._lock:
            sizes = {digest: slot.result().size_bytes for digest, slot in self._loads.items() if slot.done()}
            total = sum(sizes.values()) + incoming
            for digest, size in sizes.items():
                if total <= self._max_bytes:
                    return
                if digest != keep:
                    del self._loads[digest]
                    total -= size
                    log.info("model_evicted", digest=digest, bytes=size)

    @property
    def held_bytes(self) -> int:
        """Bytes of all loaded models."""
        with self._lock:
            return sum(slot.result().size_bytes for slot in self._loads.values() if slot.done())

    def digests(self) -> list[str]:
        """What is loaded or being loaded."""
        with self._lock:
            return list(self._loads)
