"""Everything the worker role reads from its environment (docs/contracts.md §7)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB, GIB = 2**20, 2**30


class WorkerSettings(BaseSettings):
    """Prefix `GROUNDWORK_`. The token has no working default: `groundwork serve` makes and keeps it."""

    model_config = SettingsConfigDict(env_prefix="GROUNDWORK_", extra="ignore")

    data_dir: Path = Path("data")
    cache_dir: Path | None = Field(default=None, description="None = `worker` in the data folder; one local disk")
    api_url: str = Field(default="http://127.0.0.1:8420", pattern=r"^https?://[^\s/]+")
    broker_url: str = Field(default="", description="empty = poll the API")
    worker_token: SecretStr = Field(min_length=20)
    queue: Literal["cpu", "gpu"] = "cpu"
    slots: int = Field(default=1, ge=1, le=64, description="jobs at a time")
    short_slots: int = Field(
        default=1, ge=0, le=64, description="beside them, jobs that train nothing: an upload waits for no training"
    )
    poll_seconds: float = Field(default=1, gt=0)
    engine_module: str = Field(default="ssl_core.run", pattern=r"^[A-Za-z_][\w.]*$")
    engine_threads: int | None = Field(default=None, ge=1, description="torch intra-op threads of one run")
    nice: int = Field(default=5, ge=0, le=19)
    grace_seconds: float = Field(default=120, gt=0, description="cancel or pause: from the request to SIGKILL")
    drain_seconds: float = Field(default=120, gt=0, description="SIGTERM of the worker: to save and release")
    stall_seconds: float = Field(default=1800, gt=0, description="a run without any event this long is stuck")
    report_seconds: float = Field(default=1800, gt=0, description="how long a finished run waits for a lost API")
    cache_bytes: int = Field(default=50 * GIB, ge=0, description="fetched datasets and models kept for later")
    max_file_bytes: int = Field(default=512 * GIB, ge=MIB, description="largest file a run may write")
    max_open_files: int = Field(default=4096, ge=256)
    sandbox: Literal["auto", "off", "required"] = Field(
        default="auto", description="Landlock for engines: where the kernel has it, never, or no work without it"
    )
    ingest_memory_bytes: int = Field(default=8 * GIB, ge=GIB, description="of a run that only reads uploaded files")
    max_log_bytes: int = Field(default=16 * MIB, ge=1024, description="raw output relayed from one attempt")
    max_event_bytes: int = Field(default=4 * GIB, ge=MIB, description="events of one attempt")
    log_level: str = "INFO"

    @property
    def root(self) -> Path:
        """Where the worker keeps its cache, its run directories and its notes."""
        return (self.cache_dir or self.data_dir / "worker").resolve()

    @property
    def alive_file(self) -> Path:
        """Touched by every completed loop: a worker that hangs grows stale (R34)."""
        return self.root / "alive"


@lru_cache
def get_settings() -> WorkerSettings:
    """Read once in a process."""
    return WorkerSettings()
