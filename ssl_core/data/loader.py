"""Batches that are a pure function of (seed, step): nothing to save, nothing to lose.

The order of an epoch is a permutation drawn from (seed, epoch); a step's indices are a slice of it; a sample's seed is
a function of (seed, step, sample). So a resumed run sees what an undisturbed one would have seen, whatever the number
of processes and whether or not a thread reads ahead.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_core import distributed
from ssl_core.batch import Batch, targets_of
from ssl_core.estimates import tokens_read
from ssl_core.modalities.base import Modality, Source, Unit
from ssl_core.rng import sample_seeds

_AHEAD = 3
_BUCKET_BATCHES = 50
_MEASURED = 1_000_000
"""Documents whose lengths are looked at for the mean size of a step."""


@dataclass(frozen=True)
class Slice:
    """What the reading thread hands over: raw arrays as tensors, not yet on the device. Shapes as in `Batch`."""

    raw: Mapping[str, Tensor]
    seeds: Tensor
    labels: Tensor | None

    def pinned(self) -> Slice:
        """In page-locked memory, from which a copy to the GPU does not wait."""
        raw = {name: tensor.pin_memory() for name, tensor in self.raw.items()}
        return Slice(raw, self.seeds.pin_memory(), None if self.labels is None else self.labels.pin_memory())


class Loader:
    """Training batches of one source.

    Args:
        source: prepared data.
        modality: whose views are made.
        views: the learner's named views; all of one unit.
        indices: the samples to train on, in that unit.
        batch_size: samples of a step over all processes; cut to the number of samples where that is smaller.
        seed: the run's seed.
    """

    def __init__(
        self,
        source: Source,
        modality: Modality,
        views: tuple[str, ...],
        *,
        indices: NDArray[np.int64],
        batch_size: int,
        seed: int,
    ) -> None:
        self.source, self.modality, self.views, self.seed = source, modality, views, seed
        self.indices = np.asarray(indices, dtype=np.int64)
        self.batch_size = min(batch_size, len(self.indices))
        self.steps_per_epoch = len(self.indices) // self.batch_size
        self.unit: Unit = modality.views[views[0]]
        self._order = lru_cache(maxsize=2)(self._epoch_order)

    def epoch(self, step: int) -> float:
        """Epochs done before step `step`."""
        return step / self.steps_per_epoch

    def tokens_per_step(self) -> float:
        """Mean size of a step: tokens of all views for text, samples for pictures."""
        lengths = self.source.lengths()[:_MEASURED].astype(np.float64)
        return self.batch_size * tokens_read(self.modality, self.views, lengths)

    def samples(self, step: int) -> NDArray[np.int64]:
        """(batch_size,) sample numbers of a step, over all processes."""
        epoch, position = divmod(step, self.steps_per_epoch)
        row: NDArray[np.int64] = self._order(epoch)[position]
        return row

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """(steps_per_epoch, batch_size). Documents of like length share a batch, so that little of it is padding:
        shuffle, sort by length inside pools of 50 batches, shuffle the batches (all from (seed, epoch))."""
        generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
        order = generator.permutation(self.indices)[: self.steps_per_epoch * self.batch_size]
        if self.unit == "document":
            lengths = self.source.lengths()[order]
            pool = np.arange(len(order)) // (_BUCKET_BATCHES * self.batch_size)
            if len(order) and lengths.min() != lengths.max():
                order = order[np.lexsort((lengths, pool))]
        batches = order.reshape(self.steps_per_epoch, self.batch_size)
        return batches[generator.permutation(self.steps_per_epoch)]

    def read(self, step: int) -> Slice:
        """This process's share of a step, from the memory maps."""
        samples = self.samples(step)[distributed.rank() :: distributed.world_size()]
        seeds = sample_seeds(self.seed, step, torch.from_numpy(samples.copy()))
        # Long documents are opened at a random place, but `plain` is the beginning, as an encoder is used later.
        return read_slice(self.source, self.unit, samples, seeds, from_start=set(self.views) == {"plain"})

    def batch(self, part: Slice, device: torch.device) -> Batch:
        """Move a slice to the device and make the views there."""
        return make_batch(self.modality, self.views, part, device)

    def ahead(self, start: int) -> Prefetch:
        """Slices of `start`, `start + 1`, … read by a thread."""
        return Prefetch(self, start)


def read_slice(
    source: Source, unit: Unit, samples: NDArray[np.int64], seeds: Tensor | None, from_start: bool = False
) -> Slice:
    """Raw tensors of some samples; `seeds` None or `from_start` = always a document's beginning."""
    where = None if seeds is None or from_start else seeds.numpy()
    arrays: Mapping[str, NDArray[Any]] = source.read(unit, samples, where)
    raw = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    labels = None
    if unit == "document" and source.labels is not None:
        labels = torch.from_numpy(np.asarray(source.labels[samples], dtype=np.int64))
    return Slice(raw, torch.from_numpy(samples.copy()) if seeds is None else seeds, labels)


def make_batch(modality: Modality, views: tuple[str, ...], part: Slice, device: torch.device) -> Batch:
    """The views of a slice, computed on `device`."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    raw = {name: move(tensor) for name, tensor in part.raw.items()}
    seeds = move(part.seeds)
    made = tuple(modality.view(name, raw, seeds, index) for index, name in enumerate(views))
    return Batch(made, seeds, None if part.labels is None else move(part.labels), targets_of(raw))


class Prefetch:
    """A thread that reads a few slices ahead. Reading is pure, so it changes the time a step waits and nothing else.

    Attributes:
        waited: seconds the trainer stood still for data so far.
    """

    def __init__(self, loader: Loader, start: int) -> None:
        self.waited = 0.0
        self._queue: queue.Queue[Slice | BaseException] = queue.Queue(maxsize=_AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(loader, start), daemon=True, name="prefetch")
        self._thread.start()

    def _run(self, loader: Loader, step: int) -> None:
        while not self._closed.is_set():
            try:
                part = loader.read(step)
                item: Slice | BaseException = part.pinned() if torch.cuda.is_available() else part
            except BaseException as error:  # handed to the trainer, which raises it
                item = error
            self._put(item)
            if isinstance(item, BaseException):
                return
            step += 1

    def _put(self, item: Slice | BaseException) -> None:
        while not self._closed.is_set():
            try:
                return self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue

    def __iter__(self) -> Iterator[Slice]:
        return self

    def __next__(self) -> Slice:
        started = time.perf_counter()
        item = self._queue.get()
        self.waited += time.perf_counter() - started
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._closed.set()
        self._thread.join(timeout=10)
