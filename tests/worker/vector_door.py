"""A stand-in for the API's door of vectors (docs/contracts.md §5)."""

from __future__ import annotations

from tests.inference_role import TOKEN
from tests.worker.model_door import ModelDoor


class VectorDoor(ModelDoor):
    """`folders` by job id; the rest is the door of models."""

    def answer(self, path: str, authorization: str) -> tuple[int, bytes]:
        self.asked.append(path)
        job_id, _, file = path.removeprefix("/internal/v1/vectors/").partition("/")
        if authorization != f"Bearer {TOKEN}" or job_id not in self.folders:
            return 404, b"{}"
        return 200, (self.folders[job_id] / file).read_bytes()
