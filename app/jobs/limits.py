"""The numbers that the moves of a job depend on."""

from __future__ import annotations

from dataclasses import dataclass

from app.settings import Settings

MAX_BACKOFF_MS = 600_000
BATCH_MS = 24 * 3_600_000
"""The window of a batch, from its creation."""


@dataclass(frozen=True)
class Limits:
    """Milliseconds and counts."""

    lease_ms: int = 120_000
    grace_ms: int = 120_000
    max_infra_losses: int = 5
    backoff_ms: int = 10_000
    reconcile_ms: int = 30_000
    max_wait_ms: int = 30 * 24 * 3_600_000

    def backoff(self, losses: int) -> int:
        """Wait before the attempt after the n-th loss: doubles up to ten minutes (R11)."""
        return min(self.backoff_ms << min(max(losses - 1, 0), 20), MAX_BACKOFF_MS)


def of(settings: Settings) -> Limits:
    """As the environment sets them."""
    return Limits(
        lease_ms=round(settings.lease_seconds * 1000),
        grace_ms=round(settings.cancel_grace_seconds * 1000),
        max_infra_losses=settings.max_infra_losses,
        backoff_ms=round(settings.backoff_seconds * 1000),
        reconcile_ms=round(settings.reconcile_seconds * 1000),
    )
