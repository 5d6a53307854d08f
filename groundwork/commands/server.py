"""The server as commands see it: requests whose failures are one line with what to do next."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from groundwork.client import Client, GroundworkError
from groundwork.commands.failures import NO_CONNECTION, Failure, refusal
from groundwork.commands.places import Place

Json = dict[str, Any]
PAGE = 100
RETRIES = 2
"""A person waits at the other end: a server that is not there is told after half a second."""
_LOST_SECONDS = 300.0
"""How long a followed job's server may be away before it is given up."""


class Server:
    """One server and the key for it.

    Raises:
        Failure: from every method: no answer (status 4), or what the server said (status 1).
    """

    def __init__(self, place: Place, timeout: float = 60.0, retries: int = RETRIES) -> None:
        if place.key is None:
            raise Failure(
                f"no API key is known for {place.url} (told by {place.told_by})",
                "set GROUNDWORK_API_KEY, or run `groundwork login`",
            )
        self.place = place
        self._client = Client(place.url, place.key, timeout=timeout, retries=retries)
        headers = {"Authorization": f"Bearer {place.key}"}
        self._streams = httpx2.Client(base_url=f"{place.url}/v1", headers=headers, timeout=timeout)

    def close(self) -> None:
        """Let its connections go."""
        self._client.__exit__(None, None, None)
        self._streams.close()

    def get(self, path: str, **query: Any) -> Json:
        """The document at `/v1<path>`; a query of None is left out."""
        return self._ask("GET", path, params=_given(query))

    def post(self, path: str, body: Json | None = None, **more: Any) -> Json:
        """Send a body; what was made."""
        return self._ask("POST", path, **({} if body is None else {"json": body}), **more)

    def patch(self, path: str, body: Json) -> Json:
        """Change something."""
        return self._ask("PATCH", path, json=body)

    def delete(self, path: str) -> Json:
        """Delete it; the server's word that it is gone."""
        return self._ask("DELETE", path)

    def rows(self, path: str, limit: int | None, **query: Any) -> list[Json]:
        """The first `limit` rows of a list, or all of them, a page at a time."""
        found: list[Json] = []
        after: str | None = None
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            page = self.get(path, limit=size, after=after, **query)
            found += page["data"]
            if not page.get("has_more") or not page["data"]:
                break
            after = found[-1]["id"]
        return found

    def text(self, path: str, **query: Any) -> str:
        """A document that is no JSON."""
        with self._stream(path, query) as response:
            response.read()
            return response.text

    def save(self, path: str, target: Path, on_bytes: Callable[[int, int | None], None]) -> int:
        """Stream a file to `target`, which is there whole or not at all; its bytes. `on_bytes`: done, of how many."""
        part, done = target.with_name(f".{target.name}.part"), 0
        try:
            with self._stream(path, {}) as response, part.open("wb") as sink:
                total = int(response.headers.get("content-length", 0)) or None
                for chunk in response.iter_bytes():
                    done += sink.write(chunk)
                    on_bytes(done, total)
            part.replace(target)
        except OSError as error:
            raise Failure(f"{target} cannot be written: {error.strerror or error}", "choose another with -o") from error
        finally:
            part.unlink(missing_ok=True)
        return done

    def upload(self, path: str, file: Path, fields: dict[str, str], on_bytes: Callable[[int], None]) -> Json:
        """A form with a file. `on_bytes`: how many of it are sent."""
        try:
            with Counted(file, on_bytes) as stream:
                form: Json = {"files": {"file": (file.name, stream)}, "data": fields, "timeout": None}
                return self._ask("POST", path, **form)
        except OSError as error:
            raise Failure(f"{file} cannot be read: {error.strerror or error}", "check the path") from error

    def follow(self, job: str) -> Iterator[tuple[str, Json]]:
        """A job's live stream as (`job.event`, `progress` or `done`, content), taken up again where it broke off."""
        name, last, heard = "", None, time.monotonic()
        while name != "done":
            try:
                for name, content in self._events(job, last):
                    last, heard = content.get("id", last), time.monotonic()
                    yield name, content
            except httpx2.TransportError as error:
                if time.monotonic() - heard > _LOST_SECONDS:
                    raise self._lost(error) from error
                time.sleep(1.0)

    def _events(self, job: str, last: str | None) -> Iterator[tuple[str, Json]]:
        headers = {"Last-Event-ID": last} if last else {}
        timeout = httpx2.Timeout(10, read=60)  # the server pings every 15 s
        with self._streams.sse(f"/jobs/{job}/events", headers=headers, timeout=timeout) as source:
            _check(source.response)
            for event in source:
                content: Json = json.loads(event.data)
                yield event.event, content

    @contextmanager
    def _stream(self, path: str, query: Json) -> Iterator[httpx2.Response]:
        try:
            with self._streams.stream("GET", path, params=_given(query)) as response:
                _check(response)
                yield response
        except httpx2.TransportError as error:
            raise self._lost(error) from error

    def _ask(self, method: str, path: str, **more: Any) -> Json:
        try:
            answer: Json = self._client.request(method, path, **more)
        except GroundworkError as error:
            words = str(error).removesuffix(f" [{error.status} {error.code}]")
            raise refusal(error.status, error.code, words, error.param) from error
        except httpx2.TransportError as error:
            raise self._lost(error) from error
        except ValueError as error:
            raise Failure(f"{self.place.url} is no Groundwork server", "correct --url", NO_CONNECTION) from error
        return answer

    def _lost(self, error: Exception) -> Failure:
        return no_answer(self.place, error)


class Counted(io.FileIO):
    """A file that tells how far it was read."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None]) -> None:
        super().__init__(path, "rb")
        self._on_bytes = on_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        chunk = super().read(-1 if size is None else size)
        self._on_bytes(self.tell())
        return chunk


def no_answer(place: Place, error: Exception) -> Failure:
    """Nobody there, and what to do about it."""
    here = " start it with `groundwork serve`, or" if place.told_by == "the default" else ""
    where = f"{place.url} (told by {place.told_by})"
    words = str(error).strip() or type(error).__name__
    advice = f"{here} say where the server is with --url or GROUNDWORK_URL".strip()
    return Failure(f"no answer from {where}: {words}", advice, NO_CONNECTION)


def _check(response: httpx2.Response) -> None:
    if not response.is_error:
        return
    response.read()
    try:
        error = dict(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        error = {"message": response.text[:200] or f"HTTP {response.status_code}", "code": None}
    raise refusal(response.status_code, error.get("code"), error["message"], error.get("param"))


def _given(query: Json) -> Json:
    return {name: value for name, value in query.items() if value is not None}
