"""Embeddings and predictions: authenticate, read the input, forward it, answer in the known shape."""
