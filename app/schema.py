"""Every table of every domain, so that `Base.metadata` is whole for migrations and tests."""

from __future__ import annotations

from app import garbage, health, idempotency, migrate
from app.auth import tables as auth
from app.datasets import tables as datasets
from app.db import Base
from app.jobs import tables as jobs
from app.models import tables as models
from app.webhooks import tables as webhooks

__all__ = ["auth", "datasets", "garbage", "health", "idempotency", "jobs", "metadata", "migrate", "models", "webhooks"]
metadata = Base.metadata
