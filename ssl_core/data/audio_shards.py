"""Prepared sound: every clip at one rate and one loudness in one flat int16 array, with offsets and labels.

B clips, L samples of the longest window read, S samples of the encoder's window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_core.data import rows, shards, sounds
from ssl_core.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_core.modalities.audio import AudioModality
    from ssl_core.modalities.base import Raw, Unit

PEAK = 0.95
"""Greatest sample of a clip once its loudness is set: resampling may swing a little past the original's."""
WINDOW = 4
"""A random view chooses its window from a stretch this many times as long."""
_MEASURED = 20_000
"""Clips whose mean and deviation stand for all."""


def prepare(settings: AudioModality, dataset: Path, out: Path, progress: Callable[[int, int], None]) -> None:
    """Write `samples.bin`, `offsets.bin`, `labels.bin` and `meta.json` to `out`.

    Raises:
        DataError: `empty_dataset`; a sound that ingest accepted but does not decode names its row.
    """
    import numpy as np

    measured = rows.profile(dataset)
    out.mkdir(parents=True, exist_ok=True)
    total, done = int(measured["rows"]), 0
    sums = np.zeros(3)
    with (
        shards.ArrayWriter(out / "samples.bin", "int16") as samples,
        shards.ArrayWriter(out / "offsets.bin", "int64") as offsets,
    ):
        offsets.append(np.zeros(1, dtype=np.int64))
        for batch in rows.batches(dataset, ["audio", "source"], rows=64):
            clips = []
            for data, source in zip(batch["audio"], batch["source"], strict=True):
                clips.append(_clip(data, source, settings))
                samples.append(clips[-1])
                offsets.append(np.array([samples.count], dtype=np.int64))
            if done < _MEASURED:
                sums += _moments(clips, settings)
            done += len(clips)
            progress(done, total)
    if done == 0:
        raise DataError("empty_dataset", "the dataset has no rows")
    mean, square = (float(summed) / max(sums[0], 1.0) for summed in sums[1:])
    deviation = max(1e-3, max(square - mean**2, 0) ** 0.5)
    shards.write_labels(out, rows.labels(dataset, measured["classes"]))
    facts = {**settings.shape(), "mean": mean, "std": deviation}
    meta = {"modality": "audio", "documents": done, "samples": samples.count, "classes": measured["classes"]}
    shards.write_meta(out, {**meta, "facts": facts})


def clip_of(data: bytes, settings: AudioModality) -> NDArray[np.int16]:
    """(samples,) of a sound file at the modality's rate, brought to the usual peak where it `evens` loudness.

    Raises:
        DataError: as `sounds.decode`.
    """
    import numpy as np

    samples = sounds.decode(data, settings.sample_rate).samples
    peak = max(float(np.abs(samples).max(initial=0)), 1e-6)
    gain = PEAK / peak if settings.even_loudness else min(1.0, 1 / peak)
    levelled: NDArray[np.int16] = np.rint(samples * np.float32(32767 * gain)).astype(np.int16)
    return levelled


def _clip(data: bytes, source: str, settings: AudioModality) -> NDArray[np.int16]:
    try:
        return clip_of(data, settings)
    except DataError as error:
        raise DataError(error.code, error.message, source) from error


def _moments(clips: list[NDArray[np.int16]], settings: AudioModality) -> NDArray[np.float64]:
    """(3,) count, sum and sum of squares of these clips' log-mel values, silence around them aside."""
    import numpy as np
    import torch

    from ssl_core import spectrograms

    found = np.zeros(3)
    for clip in clips if settings.representation == "log_mel" else []:
        ((first, count),) = windows(np.array([len(clip)]), settings.window, None)
        audio = np.pad(clip[first : first + count].astype(np.float32) / 32768, (0, settings.hop))
        values = spectrograms.log_mel(torch.from_numpy(audio)[None], settings.analysis).double().numpy()
        found += (values.size, values.sum(), (values**2).sum())
    return found


def windows(
    lengths: NDArray[np.int64], longest: int, draws: NDArray[np.float64] | None
) -> Iterator[tuple[int, int]]:
    """(first sample, samples) of each clip: all of it, or of one over `longest` its middle or a drawn stretch.

    Args:
        lengths: (B,) samples.
        longest: samples to read at most.
        draws: (B,) from 0 to 1; None = the middle.
    """
    for at, length in enumerate(lengths.tolist()):
        room = max(0, length - longest)
        first = room // 2 if draws is None else int(draws[at] * (room + 1))
        yield min(first, room), min(length, longest)


class AudioSource:
    """Prepared sound, opened. Attributes as in `ssl_core.modalities.base.Source`."""

    def __init__(self, prepared: Path) -> None:
        meta = shards.read_meta(prepared)
        self.facts: dict[str, Any] = meta["facts"]
        self.classes: list[str] = meta["classes"]
        documents: int = meta["documents"]
        self._samples = shards.map_array(prepared / "samples.bin", "int16", (meta["samples"],))
        self._offsets: NDArray[np.int64] = shards.map_array(prepared / "offsets.bin", "int64", (documents + 1,))
        self.labels = shards.map_labels(prepared, documents)

    def count(self, unit: Unit) -> int:
        """Clips, whatever the unit."""
        return len(self._offsets) - 1

    def lengths(self) -> NDArray[np.int64]:
        """(clips,) ones: a view has one size, whatever the clip's."""
        import numpy as np

        return np.ones(len(self._offsets) - 1, dtype=np.int64)

    def read(self, unit: Unit, indices: NDArray[np.int64], seeds: NDArray[np.int64] | None = None) -> Raw:
        """`audio` (B, L) int16, zeros behind the `sounding` (B,) samples of each, `mean` and `std` (B,) float32.

        A clip longer than the encoder's window is read in its middle, or for random views around a random place.
        """
        import numpy as np

        window = int(self.facts["samples"])
        draws = None
        if seeds is not None:
            # A multiplicative hash of the seed is even enough to choose where a long clip is opened.
            spread = (seeds.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)
            draws = spread.astype(np.float64) / 2**53
        begin, lengths = self._offsets[indices], self._offsets[indices + 1] - self._offsets[indices]
        chosen = list(windows(lengths, window if draws is None else WINDOW * window, draws))
        audio = np.zeros((len(indices), max(window, *(count for _, count in chosen))), dtype=np.int16)
        for row, (first, count) in enumerate(chosen):
            start = int(begin[row]) + first
            audio[row, :count] = self._samples[start : start + count]
        size = len(indices)
        return {
            "audio": audio,
            "sounding": np.array([count for _, count in chosen], dtype=np.int64),
            "mean": np.full(size, self.facts["mean"], dtype=np.float32),
            "std": np.full(size, self.facts["std"], dtype=np.float32),
        }
