"""Data that users bring: uploaded whole or in parts, ingested by a job, profiled, previewed, downloaded, deleted."""
