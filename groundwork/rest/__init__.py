"""The client over HTTP: `aio` is its source, `sync` is made from it by `python -m groundwork.rest.twin`.

Beside them is what neither waits for anything nor opens a connection: values, retries, parts, downloads, names.
"""
