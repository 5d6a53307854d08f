"""The server as commands see it: the client, whose errors are one line here with what to do next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from groundwork.client import (
    APIStatusError,
    Client,
    ConnectionFailed,
    GroundworkError,
    NotConfigured,
    Retries,
    UploadBroken,
)
from groundwork.commands.failures import NO_CONNECTION, REFUSED, USAGE, Failure, refusal
from groundwork.commands.places import Place

Json = dict[str, Any]
Told = Callable[[int, int], None]
"""Called with the bytes so far and the bytes in all, -1 where nobody knows."""
QUICK = Retries(2)
"""A person waits at the other end: a server that is not there is told after a second."""
PATIENT = Retries(20)
"""Of what takes long anyway: a server that is started anew meanwhile does no harm."""


class Server:
    """One server and the key for it.

    Raises:
        Failure: from every method: no answer (status 4), or what the server said (status 1).
    """

    def __init__(self, place: Place, timeout: float = 60.0, retries: Retries = QUICK) -> None:
        if place.key is None:
            raise Failure(
                f"no API key is known for {place.url} (told by {place.told_by})",
                "set GROUNDWORK_API_KEY, or run `groundwork login`",
            )
        self.place = place
        with self._told():
            self._client = Client(place.url, place.key, timeout=timeout, retries=retries)

    def close(self) -> None:
        """Let its connections go."""
        self._client.close()

    def get(self, path: str, **query: Any) -> Json:
        """The document at `/v1<path>`; a query of None is left out."""
        return self._ask("GET", path, params=_given(query))

    def look(self, path: str, **query: Any) -> Json:
        """As `get`, of what takes long anyway: once more and again while the server is started anew."""
        with self._patient():
            return self._ask("GET", path, params=_given(query))

    def post(self, path: str, body: Json | None = None, timeout: float | None = None) -> Json:
        """Send a body; what was made."""
        more = {} if timeout is None else {"timeout": timeout}
        return self._ask("POST", path, **more, **({} if body is None else {"json": body}))

    def patch(self, path: str, body: Json) -> Json:
        """Change something."""
        return self._ask("PATCH", path, json=body)

    def delete(self, path: str) -> Json:
        """Delete it; the server's word that it is gone."""
        with self._told():
            return self._client.transport.delete(path)

    def rows(self, path: str, limit: int, **query: Any) -> list[Json]:
        """The first `limit` rows of a list, page by page."""
        with self._told():
            return list(islice(self._client.datasets.pages(path, lambda row: row, limit, **query), limit))

    def text(self, path: str, **query: Any) -> str:
        """A document that is no JSON."""
        with self._told():
            return self._client.transport.respond("GET", path, params=_given(query)).text

    def save(self, path: str, target: Path, progress: Told | None = None, **query: Any) -> int:
        """Stream a file to `target`, which is there whole or not at all; its bytes."""
        with self._told(target), self._patient():
            return self._client.datasets.save(path, target, params=_given(query), progress=progress).stat().st_size

    def upload(
        self, file: Path, fields: Json, progress: Told | None = None, resume: str | None = None,
        began: Callable[[str], None] | None = None, named: Path | None = None,
    ) -> Json:  # fmt: skip
        """A file as a new dataset, in parts where it is large; `began` is told the id under which they are kept.

        `named`: what a person gave, where the file is only a zip of it that is gone when they read the message.
        """
        with self._told(named or file), self._patient():
            return self._client.datasets.upload(file, progress=progress, resume=resume, began=began, **fields).raw

    def send_model(self, source: Path, fields: Json, progress: Told | None = None) -> Json:
        """A public model's zip; the job that reads it."""
        with self._told(source), self._patient():
            return self._client.models.import_(source, progress=progress, **fields).raw

    def follow(self, job: str) -> Iterator[tuple[str, Json]]:
        """A job's live stream as (`job.event`, `progress` or `done`, content), taken up again where it broke off."""
        with self._told(), self._patient():
            for event in self._client.jobs.stream(job):
                yield event.name, event.raw["data"]

    def _ask(self, method: str, path: str, **sent: Any) -> Json:
        with self._told():
            answer: Json = self._client.request(method, path, **sent)
            return answer

    @contextmanager
    def _patient(self) -> Iterator[None]:
        before, self._client.transport.retries = self._client.transport.retries, PATIENT
        try:
            yield
        finally:
            self._client.transport.retries = before

    @contextmanager
    def _told(self, file: Path | None = None) -> Iterator[None]:
        """What goes wrong inside, in one line. `file`: the local one that it is about."""
        try:
            yield
        except APIStatusError as error:
            raise refusal(error.status, error.code, error.message, error.param) from error
        except UploadBroken as error:
            again = f"run it again with --resume {error.upload_id}; what arrived is not sent twice"
            status = REFUSED if isinstance(error.__cause__, APIStatusError) else NO_CONNECTION
            raise Failure(f"the upload of {file} broke off: {error.told}", again, status) from error
        except ConnectionFailed as error:
            raise no_answer(self.place, error) from error
        except NotConfigured as error:
            raise Failure(str(error), "correct --url or --key", USAGE) from error
        except GroundworkError as error:
            raise Failure(str(error), "run it again", REFUSED) from error
        except ValueError as error:
            # What a server answers is told above; this is what cannot be sent at all, such as NaN in JSON.
            raise Failure(f"this cannot be sent: {error}", "correct what was given", USAGE) from error
        except OSError as error:
            name = error.filename or file or "a file"
            raise Failure(f"{name}: {error.strerror or error}", "check the path") from error


def no_answer(place: Place, error: Exception) -> Failure:
    """Nobody there, and what to do about it."""
    start = "start it with `groundwork serve`, or " if place.told_by == "the default" else ""
    advice = f"{start}say where the server is with --url or GROUNDWORK_URL"
    words = str(error).rpartition(": ")[2] or type(error).__name__
    return Failure(f"no answer from {place.url} (told by {place.told_by}): {words}", advice, NO_CONNECTION)


def _given(query: Json) -> Json:
    return {name: value for name, value in query.items() if value is not None}
