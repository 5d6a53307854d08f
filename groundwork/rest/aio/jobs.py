"""`/v1/jobs`: start, follow, steer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2

from groundwork.errors import ConnectionFailed, GroundworkError, JobFailed, WaitTimeout
from groundwork.rest.aio.resource import AsyncResource
from groundwork.rest.aio.transport import content_of
from groundwork.rest.aio.waiting import Stream, sleep
from groundwork.rest.live import Place
from groundwork.rest.names import inner, path_of, within
from groundwork.rest.values import Checkpoint, Event, File, JobFields, Json, LiveEvent, Sample, Series, Thing

if TYPE_CHECKING:
    from groundwork.rest.aio.client import AsyncClient
    from groundwork.rest.aio.models import AsyncModel

Paths = list[Path]
Files = list[File]
OnChange = Callable[["AsyncJob"], None]


class AsyncJob(JobFields):
    """A job, and what can be done with it."""

    _gw: AsyncClient

    def __init__(self, raw: Json, gw: AsyncClient) -> None:
        super().__init__(raw)
        self.__dict__["_gw"] = gw

    async def refresh(self) -> AsyncJob:
        """As it stands now."""
        return await self._gw.jobs.get(self.id)

    async def wait(self, *, timeout: float | None = None, on_change: OnChange | None = None) -> AsyncJob:
        """As `jobs.wait`."""
        return await self._gw.jobs.wait(self.id, timeout=timeout, on_change=on_change)

    def stream(self, *, after: str | None = None) -> Stream[LiveEvent]:
        """As `jobs.stream`."""
        return self._gw.jobs.stream(self.id, after=after)

    def events(self, *, limit: int | None = None) -> AsyncIterator[Event]:
        """As `jobs.events`."""
        return self._gw.jobs.events(self.id, limit=limit)

    async def metrics(self, series: Sequence[str] | None = None, *, points: int | None = None) -> dict[str, Series]:
        """As `jobs.metrics`."""
        return await self._gw.jobs.metrics(self.id, series, points=points)

    def checkpoints(self) -> AsyncIterator[Checkpoint]:
        """As `jobs.checkpoints`."""
        return self._gw.jobs.checkpoints(self.id)

    def samples(self) -> AsyncIterator[Sample]:
        """As `jobs.samples`."""
        return self._gw.jobs.samples(self.id)

    def logs(self, *, attempt: int | None = None) -> AsyncIterator[str]:
        """As `jobs.logs`."""
        return self._gw.jobs.logs(self.id, attempt=attempt)

    async def files(self) -> Files:
        """As `jobs.files`."""
        return await self._gw.jobs.files(self.id)

    async def download_files(self, folder: Path | str) -> Paths:
        """As `jobs.download_files`."""
        return await self._gw.jobs.download_files(self.id, folder)

    async def cancel(self) -> AsyncJob:
        """As `jobs.cancel`."""
        return await self._gw.jobs.cancel(self.id)

    async def pause(self) -> AsyncJob:
        """As `jobs.pause`."""
        return await self._gw.jobs.pause(self.id)

    async def resume(self) -> AsyncJob:
        """As `jobs.resume`."""
        return await self._gw.jobs.resume(self.id)

    async def model(self) -> AsyncModel:
        """The model that it made. Raises GroundworkError where it made none, or has not yet."""
        if self.model_id is None:
            raise GroundworkError(f"{self.type} job {self.id} is {self.status} and has made no model")
        return await self._gw.models.get(self.model_id)


class AsyncJobs(AsyncResource):
    """The jobs of the project. A live stream says something every 15 seconds; after `silence` it is taken up anew."""

    silence: float = 45.0

    def _made(self, raw: Json) -> AsyncJob:
        return AsyncJob(raw, self.gw)

    async def create(self, **spec: Any) -> AsyncJob:
        """Start a job: `create(type="pretrain", dataset="ds_…", objective={"name": "mlm"})`.

        Whatever is left out has a default, which `resolved_spec` of the answer shows. Raises Unprocessable, whose
        `param` names the field.
        """
        return self._made(await self.gw.request("POST", "/jobs", json=spec))

    async def estimate(self, **spec: Any) -> Thing:
        """What a pretraining or fine-tuning would cost, without starting it: `steps`, `memory_bytes`, ..."""
        return Thing(await self.gw.request("POST", "/jobs/estimate", json=spec))

    async def get(self, id: str) -> AsyncJob:
        """One job, with its attempts."""
        return self._made(await self.gw.request("GET", path_of("jobs", id)))

    def list(
        self,
        *,
        limit: int | None = None,
        status: str | None = None,
        type: str | None = None,
        part_of: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> AsyncIterator[AsyncJob]:
        """Iterate over the jobs, newest first, page by page.

        Args:
            part_of: the parts of this job of jobs instead.
            metadata: only jobs that carry each of these.
        """
        tagged = {f"metadata[{name}]": value for name, value in (metadata or {}).items()}
        return self.pages("/jobs", self._made, limit, status=status, type=type, part_of=part_of, **tagged)

    async def cancel(self, id: str) -> AsyncJob:
        """End it; what it has made by then is kept. Again is no error."""
        return self._made(await self.gw.request("POST", path_of("jobs", id, "cancel")))

    async def pause(self, id: str) -> AsyncJob:
        """Stop it and keep its last checkpoint. Again is no error."""
        return self._made(await self.gw.request("POST", path_of("jobs", id, "pause")))

    async def resume(self, id: str) -> AsyncJob:
        """Queue a paused job again; it goes on from its last checkpoint."""
        return self._made(await self.gw.request("POST", path_of("jobs", id, "resume")))

    async def wait(
        self, id: str, *, timeout: float | None = None, on_change: OnChange | None = None, poll: float = 0.5
    ) -> AsyncJob:
        """The job once it has succeeded.

        Args:
            timeout: seconds; None waits for as long as it takes, also for a paused job.
            on_change: called with the job each time it is another than before, and at first.
            poll: seconds between the first looks; while nothing changes they are up to 2 s apart.

        Raises:
            JobFailed: it ended failed or cancelled; `job` is its last state, and the text its reason.
            WaitTimeout: it has not ended.
        """
        started, pause, tag, job = time.monotonic(), poll, "", self._made({})
        while True:
            answer = await self.gw.transport.respond("GET", path_of("jobs", id), headers={"If-None-Match": tag})
            if answer.status_code != 304:
                tag, job, pause = answer.headers.get("etag", ""), self._made(content_of(answer)), poll
                if on_change is not None:
                    on_change(job)
            if job.status == "succeeded":
                return job
            if job.ended:
                raise JobFailed(job)
            if timeout is not None and time.monotonic() - started > timeout:
                raise WaitTimeout(f"{job.type} job {id} is still {job.status} after {timeout:g} s")
            await sleep(pause)
            pause = min(pause * 1.2, max(2.0, poll))

    def events(self, id: str, *, limit: int | None = None, order: str = "asc") -> AsyncIterator[Event]:
        """Iterate over the diary as it is now, oldest first; `order="desc"` turns it round."""
        return self.pages(path_of("jobs", id, "events"), Event, limit, order=order)

    async def stream(self, id: str, *, after: str | None = None) -> Stream[LiveEvent]:
        """Iterate over what happens, as it happens, until the job has ended; its past comes first.

        A stream that breaks goes on after the last event that was seen: none is missed and none comes twice.

        Args:
            after: an event's id to begin behind.

        Raises:
            ConnectionFailed: it broke, and did not come back after every retry.
            APIStatusError: the server refused it.
        """
        place = Place(after)
        while True:
            async with aclosing(self._listen(id, place)) as told:
                async for event in told:
                    yield event
            if place.done:
                return
            pause = self.gw.transport.retries.wait(place.tries)
            if pause is None:
                raise ConnectionFailed(f"the live stream of job {id} broke and does not come back: {place.lost}")
            await sleep(pause)

    async def metrics(
        self, id: str, series: Sequence[str] | None = None, *, points: int | None = None
    ) -> dict[str, Series]:
        """The curves by name. `points` thins each to so many."""
        asked = {name: value for name, value in (("series", series), ("points", points)) if value is not None}
        found = await self.gw.request("GET", path_of("jobs", id, "metrics"), params=asked)
        return {each["name"]: Series.of(each) for each in found["series"]}

    def checkpoints(self, id: str) -> AsyncIterator[Checkpoint]:
        """Iterate over what it can resume from, newest first."""
        return self.pages(path_of("jobs", id, "checkpoints"), Checkpoint)

    def samples(self, id: str) -> AsyncIterator[Sample]:
        """Iterate over the pictures and texts that it made to be looked at, newest first."""
        return self.pages(path_of("jobs", id, "samples"), Sample)

    async def download_sample(self, id: str, sample: str, target: Path | str) -> Path:
        """The file of a sample, into a file or a folder; its path."""
        path = path_of("jobs", id, "samples", sample, "content")
        return await self.save(path, Path(target), otherwise=sample)

    async def logs(self, id: str, *, attempt: int | None = None) -> AsyncIterator[str]:
        """Iterate over the raw output of an attempt, the newest unless told, in pieces up to what there is now."""
        asked: Json = {"offset": 0, **({} if attempt is None else {"attempt": attempt})}
        while True:
            piece = await self.gw.request("GET", path_of("jobs", id, "logs"), params=asked)
            if piece["text"]:
                yield piece["text"]
            if piece["next_offset"] <= asked["offset"]:
                return
            asked.update(offset=piece["next_offset"], attempt=piece["attempt"])

    async def files(self, id: str) -> Files:
        """The files of its result, such as a report; none until it has succeeded."""
        found = await self.gw.request("GET", path_of("jobs", id, "files"))
        return [File(each) for each in found["data"]]

    async def download_files(self, id: str, folder: Path | str) -> Paths:
        """Every file of its result, into a folder; their paths. Raises UnsafeName for a name that would leave it."""
        places = [(file, within(Path(folder), file.path)) for file in await self.files(id)]
        return [await self.save(f"{path_of('jobs', id)}/files/{inner(file.path)}", place) for file, place in places]

    async def _listen(self, id: str, place: Place) -> Stream[LiveEvent]:
        """One connection's worth of a stream; what ended it, `place` knows."""
        path, calm = path_of("jobs", id, "events"), httpx2.Timeout(30.0, read=self.silence)
        try:
            async with self.gw.transport.open(path, headers=place.headers(), timeout=calm) as answer:
                async for sent in httpx2.EventSource(answer):
                    yield place.saw(sent)
        except httpx2.TransportError as error:
            place.lost = str(error) or type(error).__name__
