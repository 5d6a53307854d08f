"""Scores of an encoder: features of a split, health numbers, kNN and linear probes."""
