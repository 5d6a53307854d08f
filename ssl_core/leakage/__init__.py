"""Rows that stand on both sides: exact and near duplicates between training data and what a model is scored on.

`kinds` say how rows of a modality are compared, `signatures` keeps what is compared in the cache, `join` finds the
pairs, `gate` tells a run of them, `quality` what else is odd about labelled rows. Imports without torch.
"""
