"""Everything the inference role reads from its environment (docs/contracts.md §7)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class InferenceSettings(BaseSettings):
    """Prefix `GROUNDWORK_`. `inference_url` is where this process listens."""

    model_config = SettingsConfigDict(env_prefix="GROUNDWORK_", extra="ignore")

    api_url: str = "http://127.0.0.1:8420"
    inference_url: str = "http://127.0.0.1:8421"
    worker_token: SecretStr = Field(min_length=20)
    data_dir: Path = Path("data")
    cache_dir: Path | None = Field(default=None, description="None = `cache` in the data folder")
    model_cache_bytes: int = Field(default=4 * 2**30, ge=1, description="weights in memory; the least used go first")
    model_disk_bytes: int = Field(default=50 * 2**30, ge=1, description="downloaded model folders kept on disk")
    search_cache_bytes: int = Field(
        default=8 * 2**30, ge=1, description="vectors and indexes of embedded datasets, mapped and on disk"
    )
    inference_queue_tokens: int = Field(default=2_000_000, ge=1, description="tokens waiting before 503")
    inference_requests: int = Field(default=256, ge=1, description="requests in hand before new ones get 503")
    inference_threads: int | None = Field(default=None, ge=1, description="torch threads; None = torch's choice")
    drain_seconds: float = Field(default=30, gt=0, description="time for requests in hand after SIGTERM")
    sandbox: Literal["auto", "off", "required"] = Field(
        default="auto", description="Landlock: where the kernel has it, never, or no service without it"
    )
    log_level: str = "INFO"

    @property
    def models_dir(self) -> Path:
        """Downloaded model folders, one for each digest."""
        return (self.cache_dir or self.data_dir / "cache") / "models"

    @property
    def vectors_dir(self) -> Path:
        """Vectors of embedded datasets, below the folder that this process may write."""
        return self.models_dir / "vectors"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        parts = urlsplit(self.inference_url)
        return parts.hostname or "127.0.0.1", parts.port or 8421
