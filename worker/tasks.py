"""The one task: a bell. Its message holds a job id and nothing else; the job is a row in the database (R1, R3)."""

from __future__ import annotations

from typing import Any

from worker.supervisor import Supervisor

RING = "groundwork.ring"


def register(celery: Any, supervisor: Supervisor) -> None:
    """Give `celery` the task."""

    @celery.task(name=RING, ignore_result=True)  # type: ignore[untyped-decorator]
    def ring(job_id: str) -> None:
        # Answers in milliseconds where someone else has the job, or it is over, or every slot is taken (F11).
        supervisor.ring(str(job_id))
