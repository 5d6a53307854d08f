"""The linear models that sit on classical features, with their strength chosen on the labels they have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

STRENGTHS = (0.01, 0.1, 1.0, 10.0, 100.0)
"""scikit-learn's C."""


def logistic(strength: float) -> Any:
    """Multinomial logistic regression."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000)


def best(models: Mapping[str, tuple[Any, Any]], labels: Sequence[str], seed: int) -> tuple[str, Any, Any]:
    """(name, the model fitted on all labels, its features' key) of the model with the best cross-validated accuracy.

    Args:
        models: by name, an unfitted model and the training features it reads, (N, D).
        labels: (N,).
        seed: of the folds.
    """
    names, counts = np.unique(np.asarray(labels), return_counts=True)
    folds = min(3, int(counts.min()))
    chosen = next(iter(models))
    if folds >= 2 and len(models) > 1 and len(names) > 1:
        from sklearn.model_selection import StratifiedKFold, cross_val_score

        split = StratifiedKFold(folds, shuffle=True, random_state=seed)
        scores = {name: cross_val_score(model, x, labels, cv=split).mean() for name, (model, x) in models.items()}
        chosen = max(scores, key=lambda name: scores[name])
    model, features = models[chosen]
    return chosen, model.fit(features, labels), features
