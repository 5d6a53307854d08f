"""Logistic regression on the residues around each place: a window of 17, one-hot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ssl_core.evaluation.baselines import Answer, Problem
from ssl_core.evaluation.baselines.linear import logistic

ALPHABET = "ACDEFGHIKLMNPQRSTVWYX-"
REACH = 8


def fit_predict(problem: Problem) -> Answer:
    """The pool is not used."""
    wanted = [tag for tags in problem.labels for tag in tags]
    kept = [at for at, tag in enumerate(wanted) if tag]
    model = logistic(1.0).fit(_windows(problem.train)[kept], [wanted[at] for at in kept])
    flat = iter(model.predict(_windows(problem.test)))
    predicted = [[str(next(flat)) for _ in chain] for chain in problem.test]
    return Answer(predicted, f"one-hot window of {2 * REACH + 1}, logistic regression")


def _windows(chains: Iterable[str]) -> Any:
    """(residues of all chains, 17 * 22) sparse."""
    from scipy.sparse import csr_matrix

    index = {letter: at for at, letter in enumerate(ALPHABET)}
    unknown, end = index["X"], index["-"]
    rows = []
    for chain in chains:
        codes = np.full(len(chain) + 2 * REACH, end)
        codes[REACH : REACH + len(chain)] = [index.get(letter, unknown) for letter in chain]
        rows.append(np.lib.stride_tricks.sliding_window_view(codes, 2 * REACH + 1))
    width = 2 * REACH + 1
    columns = np.concatenate(rows) + np.arange(width) * len(ALPHABET)
    starts = np.arange(0, columns.size + 1, width)
    ones = np.ones(columns.size, dtype=np.float32)
    return csr_matrix((ones, columns.ravel(), starts), shape=(len(columns), width * len(ALPHABET)))
