"""Weights in and out: the public formats (`hf`), read (`importer`) and written (`exporter`, `onnx`)."""
