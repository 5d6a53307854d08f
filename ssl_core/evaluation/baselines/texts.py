"""TF-IDF of words and pairs of words, or its 200 largest directions (LSA), and logistic regression."""

from __future__ import annotations

from typing import Any

from ssl_core.evaluation.baselines import Answer, Problem
from ssl_core.evaluation.baselines.linear import STRENGTHS, best, logistic

DIRECTIONS = 200


def fit_predict(problem: Problem) -> Answer:
    """The vectoriser and the directions see the pool (or, without one, the training texts)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import Normalizer

    pool = [*problem.pool(), *problem.train]
    rare = 2 if len(pool) > 200 else 1
    vectoriser = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=rare, max_features=200_000)
    table = vectoriser.fit_transform(pool)
    train, test = vectoriser.transform(problem.train), vectoriser.transform(problem.test)
    views: dict[str, tuple[Any, Any]] = {"TF-IDF": (train, test)}
    directions = min(DIRECTIONS, min(table.shape) - 1)
    if directions >= 2:
        svd, unit = TruncatedSVD(directions, random_state=problem.seed).fit(table), Normalizer()
        views["LSA"] = unit.transform(svd.transform(train)), unit.transform(svd.transform(test))
    models = {
        f"{name}, logistic regression, C={strength:g}": (logistic(strength), mine)
        for name, (mine, _) in views.items()
        for strength in STRENGTHS
    }
    name, model, _ = best(models, problem.labels, problem.seed)
    return Answer(list(model.predict(views[name.partition(",")[0]][1])), name)
