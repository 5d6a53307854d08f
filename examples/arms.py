"""The arms of a few-label comparison, over HTTP only: pretrained, from scratch, and their scores on a test set."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from examples.scores import Score, accuracy
from groundwork.client import Client, Job, Json

PREDICTION_BATCH = 100
TABLE_WIDTH = 140


@dataclass
class Bench:
    """A client, a folder for files to send, and a progress display."""

    client: Client
    folder: Path
    progress: Progress
    minutes: dict[str, float] = field(default_factory=dict)

    def dataset(self, path: Path, columns: dict[str, str] | None = None) -> str:
        """Upload and wait until it is ready; the dataset's id."""
        line = self.progress.add_task(f"upload {path.name}", total=1)
        id = self.client.datasets.upload(path, columns=columns or {}).wait().id
        self.progress.update(line, completed=1)
        return id

    def run(self, title: str, spec: Json) -> Json:
        """Create a job, follow it with a bar, return it finished; its minutes land in `minutes[title]`."""
        line = self.progress.add_task(title, total=100)
        started = time.monotonic()
        job = self.client.jobs.create(**spec).wait(on_change=lambda job: self._show(line, title, job))
        self.minutes[title] = (time.monotonic() - started) / 60
        self.progress.update(line, completed=100, description=title)
        return job.raw

    def score(self, model: str, rows: list[tuple[Any, Any]], score: Score = accuracy) -> float:
        """Of the model's answers to test rows of an item and its truth."""
        answers: list[Json] = []
        for start in range(0, len(rows), PREDICTION_BATCH):
            part = rows[start : start + PREDICTION_BATCH]
            answers += self.client.predict(model, [item_of(value) for value, _ in part])
        return score(answers, [truth for _, truth in rows])

    def _show(self, line: TaskID, title: str, job: Job) -> None:
        state = job.progress
        stage = (state.stage if state else None) or job.status
        done = float(state.percent or 0) if state and stage == "training" else 0.0  # other stages count their own steps
        self.progress.update(line, completed=min(done, 99.0), description=f"{title}: {stage}")


def item_of(value: Any) -> Any:
    """What the endpoints take: a text as it is, a picture or a sound as a data URI."""
    if isinstance(value, str):
        return value
    content = base64.b64encode(value).decode()
    if value[8:12] == b"WAVE":
        return {"audio": f"data:audio/wav;base64,{content}"}
    media_type = "image/png" if value[:4] == b"\x89PNG" else "image/jpeg"
    return {"image": f"data:{media_type};base64,{content}"}


def bars() -> Progress:
    """The progress display the examples share; in a file or a pipe wide enough for their tables."""
    console = Console()
    if not console.is_terminal:
        console.width = TABLE_WIDTH
    return Progress(
        TextColumn("{task.description:<52}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=console,
    )
