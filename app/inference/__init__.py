"""Embeddings and predictions: authenticate, read the input, forward to the inference role, answer in the known shape."""
