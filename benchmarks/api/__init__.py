"""How the API behaves under load, beside a bare FastAPI over the same database: `python -m benchmarks.api --help`."""
