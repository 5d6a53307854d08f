"""Everything the API role reads from its environment (docs/contracts.md §7)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, IPvAnyNetwork, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """Prefix `GROUNDWORK_`. The two secrets have no working default: `groundwork serve` makes and keeps them."""

    model_config = SettingsConfigDict(env_prefix="GROUNDWORK_", extra="ignore")

    data_dir: Path = Path("data")
    database_url: str = ""
    broker_url: str = ""
    store_url: str = ""
    inference_url: str = "http://127.0.0.1:8421"
    worker_token: SecretStr = Field(min_length=20)
    secret_key: SecretStr = Field(min_length=20)
    host: str = "127.0.0.1"
    port: int = Field(default=8420, ge=0, le=65535)
    lease_seconds: float = Field(default=120, gt=0)
    heartbeat_seconds: float = Field(default=10, gt=0)
    reconcile_seconds: float = Field(default=30, gt=0)
    cancel_grace_seconds: float = Field(default=120, gt=0)
    max_infra_losses: int = Field(default=5, ge=0)
    backoff_seconds: float = Field(default=10, ge=0)
    max_body_bytes: int = Field(default=1_000_000, ge=1024, description="cap of a JSON body")
    max_upload_bytes: int = Field(default=200 * 2**30, ge=1, description="cap of one uploaded file")
    upload_seconds: float = Field(default=86_400, gt=0, description="how long an upload in parts may stay open")
    storage_quota_bytes: int = Field(default=2 * 2**40, ge=1, description="per project")
    max_queued_jobs: int = Field(default=1000, ge=1, description="queued and running jobs per project")
    requests_per_minute: int = Field(default=30_000, ge=0, description="per project, of all API processes; 0: no limit")
    max_datasets: int = Field(default=100_000, ge=1, description="per project")
    min_free_bytes: int = Field(default=256 * 2**20, ge=0, description="disk head-room below which we are not ready")
    allow_hub: bool = Field(default=False, description="whether `POST /v1/models` may name a hub's repository")
    outbound: bool = Field(default=False, description="whether webhooks are sent")
    outbound_ports: Annotated[list[Port], NoDecode] = Field(
        default=[80, 443], description="that webhooks may be sent to; with commas between"
    )
    outbound_networks: Annotated[list[IPvAnyNetwork], NoDecode] = Field(
        default=[], description="for webhooks, beside all public addresses; with commas between"
    )
    cpu_precision: Literal["fp32", "bf16"] = Field(default="fp32", description="what CPU workers train faster in")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("outbound_ports", "outbound_networks", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given

    @property
    def database(self) -> str:
        """SQLAlchemy URL; the embedded default is one SQLite file in the data folder."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'groundwork.db'}"

    @property
    def store(self) -> str:
        """Object store URL; the embedded default is a folder in the data folder."""
        return self.store_url or f"file://{self.data_dir.resolve() / 'store'}"


@lru_cache
def get_settings() -> Settings:
    """Read once in a process."""
    return Settings()
