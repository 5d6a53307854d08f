"""A small Python client: one class over HTTP, no server code.

with Client("http://127.0.0.1:8420", key) as gw:
    pool = gw.wait_dataset(gw.upload("pool.jsonl")["id"])
    job = gw.wait(gw.create_job(type="pretrain", dataset=pool["id"], objective={"name": "mlm"})["id"])
    vectors = gw.embed(job["result"]["model"], ["a sentence"])
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2

Json = dict[str, Any]
TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class GroundworkError(Exception):
    """The server's answer was an error; `code`, `param` and `status` are the envelope's."""

    def __init__(self, status: int, error: Json) -> None:
        super().__init__(f"{error.get('message', 'no message')} [{status} {error.get('code')}]")
        self.status = status
        self.code = error.get("code")
        self.param = error.get("param")


class JobFailed(Exception):
    """A job ended other than `succeeded`; `job` is its last state."""

    def __init__(self, job: Json) -> None:
        super().__init__(
            f"{job['type']} job {job['id']} ended {job['status']}: {(job.get('error') or {}).get('message', '')}"
        )
        self.job = job


class Client:
    """Synchronous client. Retries connection errors, 429 and 503 with the same Idempotency-Key."""

    def __init__(self, base_url: str, api_key: str, timeout: float = 60.0, retries: int = 6) -> None:
        self._http = httpx2.Client(
            base_url=base_url, headers={"Authorization": f"Bearer {api_key}"}, timeout=timeout
        )
        self._retries = retries

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def request(self, method: str, path: str, **kwargs: Any) -> Any:
        """One call of `/v1<path>`, its JSON answer.

        Raises:
            GroundworkError: the server refused it.
            httpx2.TransportError: the server could not be reached after all retries.
        """
        return self._send(method, path, **kwargs).json()

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx2.Response:
        headers = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        for attempt in range(self._retries + 1):
            for _, stream in (kwargs.get("files") or {}).values():
                stream.seek(0)  # a retry sends the file from its start
            try:
                response = self._http.request(method, f"/v1{path}", headers=headers, **kwargs)
            except httpx2.TransportError:
                if attempt == self._retries:
                    raise
                time.sleep(min(0.2 * 2**attempt, 5))
                continue
            if response.status_code in (429, 503) and attempt < self._retries:
                time.sleep(min(float(response.headers.get("Retry-After", 1)), 10))
                continue
            break
        if response.is_error:
            raise GroundworkError(response.status_code, _envelope(response))
        return response

    def upload(self, file: Path | str, **fields: str) -> Json:
        """Upload a dataset; `fields` are the form's `name`, `modality`, `columns`, `metadata` (the last two JSON)."""
        path = Path(file)
        with path.open("rb") as stream:
            answer: Json = self.request(
                "POST", "/datasets", files={"file": (path.name, stream)}, data=fields, timeout=None
            )
        return answer

    def wait_dataset(self, id: str, timeout: float = 600.0) -> Json:
        """The dataset once it is ready. Raises RuntimeError with the server's words where it is invalid."""
        deadline = time.monotonic() + timeout
        while True:
            dataset: Json = self.request("GET", f"/datasets/{id}")
            if dataset["status"] == "ready":
                return dataset
            if dataset["status"] == "invalid":
                raise RuntimeError(f"dataset {id} is invalid: {dataset.get('error')}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"dataset {id} is still {dataset['status']} after {timeout:.0f} s")
            time.sleep(0.3)

    def create_job(self, **spec: Any) -> Json:
        """POST /v1/jobs with the fields of a job spec."""
        answer: Json = self.request("POST", "/jobs", json=spec)
        return answer

    def job(self, id: str) -> Json:
        """The job as it stands."""
        answer: Json = self.request("GET", f"/jobs/{id}")
        return answer

    def wait(self, id: str, on_change: Callable[[Json], None] | None = None, poll: float = 0.5) -> Json:
        """The job once it succeeded, `on_change` called with every state seen. Raises JobFailed otherwise."""
        while True:
            job = self.job(id)
            if on_change is not None:
                on_change(job)
            if job["status"] == "succeeded":
                return job
            if job["status"] in TERMINAL:
                raise JobFailed(job)
            time.sleep(poll)

    def embed(self, model: str, input: Any, **options: Any) -> list[list[float]]:
        """Vectors of strings or items."""
        answer = self.request(
            "POST",
            "/embeddings",
            json={"model": model, "input": input, "encoding_format": "float", **options},
        )
        return [row["embedding"] for row in answer["data"]]

    def predict(self, model: str, input: Any) -> list[Json]:
        """A task model's answers."""
        answer = self.request("POST", "/predictions", json={"model": model, "input": input})
        return list(answer["data"])

    def download(self, model: str, target: Path) -> Path:
        """Stream the native model archive to `target`."""
        with self._stream(f"/models/{model}/download") as chunks, target.open("wb") as out:
            for chunk in chunks:
                out.write(chunk)
        return target

    def download_files(self, job: str, folder: Path) -> list[Path]:
        """Stream the files that a finished job made, such as a report, into `folder`; their paths."""
        made = []
        for file in self.request("GET", f"/jobs/{job}/files")["data"]:
            target = folder / file["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._stream(file["content_url"].removeprefix("/v1")) as chunks, target.open("wb") as out:
                for chunk in chunks:
                    out.write(chunk)
            made.append(target)
        return made

    @contextmanager
    def _stream(self, path: str) -> Iterator[Iterator[bytes]]:
        with self._http.stream("GET", f"/v1{path}") as response:
            if response.is_error:
                response.read()
                raise GroundworkError(response.status_code, _envelope(response))
            yield response.iter_bytes()


def _envelope(response: httpx2.Response) -> Json:
    try:
        return dict(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return {"message": response.text[:200], "code": None}
