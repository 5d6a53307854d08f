"""Mel-frequency cepstral coefficients, their means and deviations over time, and a linear model or a kernel machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_core.data import sounds
from ssl_core.evaluation.baselines import Answer, Problem
from ssl_core.evaluation.baselines.linear import STRENGTHS, best, logistic
from ssl_core.spectrograms import Analysis, mel_weights

RATE, WINDOW, HOP, MELS, COEFFICIENTS = 16_000, 400, 160, 40, 20


def fit_predict(problem: Problem) -> Answer:
    """The pool is not used: nothing of these features is learned."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    train, test = _features(problem.train), _features(problem.test)
    models: dict[str, tuple[Any, Any]] = {
        f"MFCC, logistic regression, C={strength:g}": (make_pipeline(StandardScaler(), logistic(strength)), train)
        for strength in STRENGTHS[:4]
    }
    for strength in (1.0, 10.0):
        machine = make_pipeline(StandardScaler(), SVC(C=strength, random_state=problem.seed))
        models[f"MFCC, support vectors, C={strength:g}"] = machine, train
    name, model, _ = best(models, problem.labels, problem.seed)
    return Answer(list(model.predict(test)), name)


def _features(files: Iterable[bytes]) -> NDArray[np.float64]:
    """(N, 6 * COEFFICIENTS): mean, deviation, and the same of the first and last half's means."""
    return np.stack([_one(data) for data in files])


def _one(data: bytes) -> NDArray[np.float64]:
    from scipy.fft import dct

    signal = torch.from_numpy(np.asarray(sounds.decode(data, RATE).samples, dtype=np.float32).ravel())
    analysis = Analysis(RATE, WINDOW, HOP, MELS)
    if len(signal) < analysis.points:
        signal = torch.nn.functional.pad(signal, (0, analysis.points - len(signal)))
    window = torch.hann_window(WINDOW)
    power = torch.stft(signal, analysis.points, HOP, WINDOW, window, return_complex=True).abs() ** 2
    mel = torch.log(power.T @ mel_weights(analysis) + 1e-8).double().numpy()
    found = dct(mel, norm="ortho", axis=1)[:, :COEFFICIENTS]
    change = np.diff(found, axis=0) if len(found) > 1 else np.zeros_like(found)
    half = max(1, len(found) // 2)
    parts = (found.mean(0), found.std(0), change.mean(0), change.std(0), found[:half].mean(0), found[-half:].mean(0))
    return np.concatenate(parts)
