"""Features by k-means on whitened patches of the pool (Coates, Lee and Ng 2011), and logistic regression."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ssl_core.data import pictures
from ssl_core.evaluation.baselines import Answer, Problem
from ssl_core.evaluation.baselines.linear import STRENGTHS, best, logistic

SIDE, PATCH, CENTROIDS, PATCHES, POOL = 32, 6, 400, 200_000, 10_000
"""Pixels of a picture and a patch, the paper's number of centroids at this size, patches and pictures they are from."""
Floats = NDArray[np.float32]


def fit_predict(problem: Problem) -> Answer:
    """Patches, whitening and centroids come from the pool (or, without one, the training pictures)."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.preprocessing import StandardScaler

    generator = np.random.Generator(np.random.Philox(key=[problem.seed, 23]))
    pool = _decoded(islice(problem.pool(), POOL))
    train, test = _decoded(problem.train), _decoded(problem.test)
    patches = _drawn(pool if len(pool) else train, generator)
    mean, whitening = _whitening(patches)
    centroids = MiniBatchKMeans(CENTROIDS, random_state=problem.seed, n_init=1, batch_size=4096).fit(
        (patches - mean) @ whitening
    )
    codes = centroids.cluster_centers_.astype(np.float32)
    scaler = StandardScaler().fit(mine := _features(train, mean, whitening, codes))
    models = {
        f"k-means patches, logistic regression, C={strength:g}": (logistic(strength), scaler.transform(mine))
        for strength in STRENGTHS[:3]
    }
    name, model, _ = best(models, problem.labels, problem.seed)
    return Answer(list(model.predict(scaler.transform(_features(test, mean, whitening, codes)))), name)


def _decoded(files: Iterable[bytes]) -> NDArray[np.uint8]:
    """(N, 32, 32, 3)."""
    made = [pictures.square(pictures.decode(data, 3), SIDE) for data in files]
    return np.stack(made) if made else np.empty((0, SIDE, SIDE, 3), dtype=np.uint8)


def _windows(images: NDArray[np.uint8]) -> Floats:
    """(N, 27, 27, 108): every patch, less its mean and over its deviation."""
    views = sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))
    flat = views.reshape(*views.shape[:3], -1).astype(np.float32)
    flat -= flat.mean(-1, keepdims=True)
    flat /= np.sqrt(flat.var(-1, keepdims=True) + 10)
    return flat


def _drawn(images: NDArray[np.uint8], generator: np.random.Generator) -> Floats:
    """(about PATCHES, 108) patches at random places."""
    each = -(-PATCHES // len(images))
    kept = []
    for start in range(0, len(images), 256):
        windows = _windows(images[start : start + 256])
        flat = windows.reshape(len(windows), -1, windows.shape[-1])
        places = generator.integers(0, flat.shape[1], size=(len(flat), each))
        kept.append(np.take_along_axis(flat, places[:, :, None], axis=1).reshape(-1, flat.shape[-1]))
    return np.concatenate(kept)[:PATCHES]


def _whitening(patches: Floats) -> tuple[Floats, Floats]:
    """(108,) mean and (108, 108) ZCA with the paper's 0.1 added to the variances."""
    mean = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches - mean, rowvar=False))
    matrix = vectors @ np.diag(1 / np.sqrt(np.maximum(values, 0) + 0.1)) @ vectors.T
    return mean, matrix.astype(np.float32)


def _features(images: NDArray[np.uint8], mean: Floats, whitening: Floats, codes: Floats) -> Floats:
    """(N, 4 * CENTROIDS): the triangle activations, summed in each quarter of the picture."""
    return np.concatenate([_coded(images[at : at + 64], mean, whitening, codes) for at in range(0, len(images), 64)])


def _coded(images: NDArray[np.uint8], mean: Floats, whitening: Floats, codes: Floats) -> Floats:
    patches = (_windows(images) - mean) @ whitening
    squared = (patches**2).sum(-1, keepdims=True) - 2 * patches @ codes.T + (codes**2).sum(-1)
    distance = np.sqrt(np.maximum(squared, 0))
    active = np.maximum(distance.mean(-1, keepdims=True) - distance, 0)
    half = active.shape[1] // 2
    quarters: Sequence[Any] = (
        active[:, :half, :half], active[:, :half, half:], active[:, half:, :half], active[:, half:, half:],
    )  # fmt: skip
    summed: Floats = np.concatenate([quarter.sum((1, 2)) for quarter in quarters], axis=1)
    return summed
