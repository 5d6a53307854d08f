"""Trained networks: listed, read with their card and lineage, renamed, downloaded, deleted."""
