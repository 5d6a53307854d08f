"""How often the same thing comes twice: exactly, by hash of every row; nearly, by sketch of the first 100,000 rows.

Texts: MinHash (Broder 1997) of 8-byte shingles by one permutation hashing with rotation (Li, Owen and Zhang 2012;
Shrivastava and Li 2014); protein chains: the same of stretches of five residues. Pictures: the difference hash, 64
signs of neighbouring grey values; sounds: four times as many, of a spectrogram. Candidates share a band of their sketch
and are then compared, so the cost is that of sorting.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SKETCHED_ROWS = 100_000
SKETCHED_BYTES = 4096
"""Only the beginning of a text is sketched."""
BINS = 64
SIMILAR = 0.8
"""Texts: least share of equal bins, an estimate of the share of common shingles."""
HASH_DISTANCE = 3
"""Pictures: most differing bits of 64."""
SIMILAR_CHAINS = 0.6
"""The same for protein chains: of two that agree in 19 of 20 residues, six in ten stretches of five are common."""
SOUND_DISTANCE = 20
"""Sounds: most differing bits of 256. Takes of one spoken word differ in 26 and more, a clip and its MP3 in 14."""
_SHINGLE = 8
_RESIDUES = 5


def fingerprint(content: bytes) -> int:
    """A signed 64-bit hash of a row's content."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


def count_repeats(fingerprints: array[int]) -> int:
    """Rows whose fingerprint came before."""
    import numpy as np

    values = np.frombuffer(fingerprints, dtype=np.int64)
    return int(len(values) - len(np.unique(values)))


def text_sketch(content: bytes) -> NDArray[np.uint32]:
    """(64,) MinHash of a text, case and runs of white space aside."""
    import numpy as np

    folded = b" ".join(content[:SKETCHED_BYTES].lower().split())
    letters = folded.ljust(_SHINGLE)
    # Every eight bytes in a row, read as one number in place: strides of one byte.
    shingles = np.ndarray(len(letters) - _SHINGLE + 1, dtype="<u8", buffer=letters, strides=(1,)).astype(np.uint64)
    return _minhash(shingles)


def residue_sketch(chain: bytes) -> NDArray[np.uint32]:
    """(64,) MinHash of a protein chain's stretches of five residues."""
    import numpy as np

    letters = np.frombuffer(chain[:SKETCHED_BYTES].ljust(_RESIDUES), dtype=np.uint8).astype(np.uint64)
    stretches = np.zeros(len(letters) - _RESIDUES + 1, dtype=np.uint64)
    for at in range(_RESIDUES):
        stretches = (stretches << np.uint64(8)) | letters[at : at + len(stretches)]
    return _minhash(stretches)


def _minhash(shingles: NDArray[np.uint64]) -> NDArray[np.uint32]:
    import numpy as np

    shingles = (shingles ^ (shingles >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    shingles = (shingles ^ (shingles >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    empty = np.uint32(2**32 - 1)
    bins = np.full(BINS, empty, dtype=np.uint32)
    np.minimum.at(
        bins, (shingles >> np.uint64(58)).astype(np.intp), ((shingles >> np.uint64(20)) & empty).astype(np.uint32)
    )
    return _fill_empty(bins, empty)


def _fill_empty(bins: NDArray[np.uint32], empty: np.uint32) -> NDArray[np.uint32]:
    """An empty bin takes the next full one's value, shifted by its distance."""
    import numpy as np

    full = np.flatnonzero(bins != empty)
    if len(full) in (0, BINS):
        return bins
    places = np.arange(BINS)
    following = full[np.searchsorted(full, places) % len(full)]
    distance = (following - places) % BINS
    return bins[following] + (distance * 0x01000193).astype(np.uint32)


def picture_sketch(picture: NDArray[np.uint8]) -> int:
    """The difference hash of a picture (H, W, C): 64 bits."""
    import numpy as np
    from PIL import Image

    image = Image.fromarray(picture[:, :, 0]) if picture.shape[2] == 1 else Image.fromarray(picture).convert("L")
    small = np.asarray(image.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big", signed=False)


def near_texts(sketches: list[NDArray[np.uint32]], similar: float = SIMILAR) -> NDArray[np.bool_]:
    """(rows,) True where a text, or a protein chain, is nearly one that came before."""
    import numpy as np

    if not sketches:
        return np.zeros(0, dtype=np.bool_)
    table = np.stack(sketches)
    marked = np.zeros(len(table), dtype=np.bool_)
    for band in range(0, BINS, 4):
        keys = np.zeros(len(table), dtype=np.uint64)
        for value in table[:, band : band + 4].T:
            keys = keys * np.uint64(0x100000001B3) + value.astype(np.uint64)
        earlier, later = _candidates(keys)
        alike = (table[earlier] == table[later]).mean(axis=1) >= similar
        marked[later[alike]] = True
    return marked


def near_pictures(sketches: list[int]) -> NDArray[np.bool_]:
    """(rows,) True where a picture is nearly one that came before."""
    import numpy as np

    hashes = np.array(sketches, dtype=np.uint64)
    marked = np.zeros(len(hashes), dtype=np.bool_)
    # Three differing bits leave one of four bands of 16 bits untouched.
    for band in range(4):
        keys = (hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)
        earlier, later = _candidates(keys)
        alike = np.bitwise_count(hashes[earlier] ^ hashes[later]) <= HASH_DISTANCE
        marked[later[alike]] = True
    return marked


def sound_sketch(picture: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """(4,) the 256 signs of change from frame to frame of a spectrogram (16, 17, 1)."""
    import numpy as np

    levels = picture[:, :, 0].astype(np.int16)
    return np.packbits(levels[:, 1:] > levels[:, :-1]).view(np.uint64)


def near_sounds(sketches: list[NDArray[np.uint64]]) -> NDArray[np.bool_]:
    """(rows,) True where a clip is nearly one that came before: louder, packed otherwise, in a little noise."""
    import numpy as np

    table = np.stack(sketches) if sketches else np.zeros((0, 4), dtype=np.uint64)
    marked = np.zeros(len(table), dtype=np.bool_)
    for band in range(16):
        keys = (table[:, band // 4] >> np.uint64(16 * (band % 4))) & np.uint64(0xFFFF)
        earlier, later = _candidates(keys)
        alike = np.bitwise_count(table[earlier] ^ table[later]).sum(axis=1) <= SOUND_DISTANCE
        marked[later[alike]] = True
    return marked


def _candidates(keys: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pairs (earlier, later) of rows with one key: each with the first and with the one before it of its group."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    same = np.zeros(len(keys), dtype=np.bool_)
    same[1:] = keys[order][1:] == keys[order][:-1]
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(keys))))
    places = np.flatnonzero(same)
    earlier = np.concatenate([order[first[places]], order[places - 1]])
    return earlier, np.concatenate([order[places], order[places]])
