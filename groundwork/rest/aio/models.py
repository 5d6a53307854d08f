"""`/v1/models`, `/v1/embeddings` and `/v1/predictions`: what jobs have trained, and its use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundwork.errors import Conflict
from groundwork.rest.aio.jobs import AsyncJob
from groundwork.rest.aio.resource import SLOW, AsyncResource, Told
from groundwork.rest.inputs import batches, vector_of
from groundwork.rest.names import inner, path_of, within
from groundwork.rest.packing import as_one_file
from groundwork.rest.parts import Watched, form_fields, local_or_hub
from groundwork.rest.values import File, Json, ModelFields, Rows, Vectors

if TYPE_CHECKING:
    from groundwork.rest.aio.client import AsyncClient

Format = Literal["native", "hf", "onnx"]
Files = list[File]
Paths = list[Path]


class AsyncModel(ModelFields):
    """A model, and what can be done with it."""

    _gw: AsyncClient

    def __init__(self, raw: Json, gw: AsyncClient) -> None:
        super().__init__(raw)
        self.__dict__["_gw"] = gw

    async def embed(self, input: Any, **options: Any) -> Vectors:
        """As `models.embed`."""
        return await self._gw.models.embed(self.id, input, **options)

    async def predict(self, input: Any, **options: Any) -> Rows:
        """As `models.predict`."""
        return await self._gw.models.predict(self.id, input, **options)

    async def download(
        self, target: Path | str = ".", *, format: Format = "native", progress: Told | None = None
    ) -> Path:
        """As `models.download`."""
        return await self._gw.models.download(self.id, target, format=format, progress=progress)

    async def export(self, format: Format) -> AsyncJob:
        """As `models.export`."""
        return await self._gw.models.export(self.id, format)

    async def files(self) -> Files:
        """As `models.files`."""
        return await self._gw.models.files(self.id)

    async def download_files(self, folder: Path | str) -> Paths:
        """As `models.download_files`."""
        return await self._gw.models.download_files(self.id, folder)

    async def update(self, *, name: str | None = None, metadata: dict[str, str] | None = None) -> AsyncModel:
        """As `models.update`."""
        return await self._gw.models.update(self.id, name=name, metadata=metadata)

    async def delete(self) -> Json:
        """As `models.delete`."""
        return await self._gw.models.delete(self.id)

    async def refresh(self) -> AsyncModel:
        """As it stands now."""
        return await self._gw.models.get(self.id)


class AsyncModels(AsyncResource):
    """The models of the project."""

    def _made(self, raw: Json) -> AsyncModel:
        return AsyncModel(raw, self.gw)

    async def get(self, id: str) -> AsyncModel:
        """One model, with its card and its lineage."""
        return self._made(await self.gw.request("GET", path_of("models", id)))

    def list(self, *, limit: int | None = None) -> AsyncIterator[AsyncModel]:
        """Iterate over the models, newest first, page by page."""
        return self.pages("/models", self._made, limit)

    async def update(
        self, id: str, *, name: str | None = None, metadata: dict[str, str] | None = None
    ) -> AsyncModel:
        """Rename it, or replace its metadata; what is left out stays."""
        body = {key: value for key, value in (("name", name), ("metadata", metadata)) if value is not None}
        return self._made(await self.gw.request("PATCH", path_of("models", id), json=body))

    async def delete(self, id: str) -> Json:
        """Delete it and its files. Raises Conflict `in_use` while a job starts from it."""
        return await self.gw.transport.delete(path_of("models", id))

    async def embed(
        self, model: str, input: Any, *, dimensions: int | None = None, pooling: str | None = None,
        precision: str | None = None,
    ) -> Vectors:  # fmt: skip
        """A vector for each input, in their order; not normalised unless `dimensions` is given.

        Args:
            input: a string, tokens (a list of integers), an item (`{"text": …}`, `{"image": data URI or Path}`,
                `{"dataset": "ds_…", "row": 3}`), a `Path` of a picture or a sound, or a list of these, however long.
            dimensions: keep so many numbers, and give each vector length 1 again.
            pooling: `mean`, `cls` or `max`, over tokens or patches.
            precision: `int8` computes with 8-bit weights on a CPU; the model's card tells how near that stays (`int8`).
        """
        asked = {"dimensions": dimensions, "pooling": pooling, "precision": precision}
        options = {name: value for name, value in asked.items() if value is not None}
        vectors: Vectors = []
        for items in batches(input):
            body = {"model": model, "input": items, "encoding_format": "base64", **options}
            answer = await self.gw.request("POST", "/embeddings", json=body, timeout=SLOW)
            vectors += [vector_of(row["embedding"]) for row in answer["data"]]
        return vectors

    async def predict(self, model: str, input: Any, *, sampling: Json | None = None, seed: int = 0) -> Rows:
        """An answer for each input; its fields are the task's: `label` and `probabilities`, `tags`, `text`, ...

        Args:
            input: as of `embed`.
            sampling: how a language model goes on.
            seed: of what is drawn; input n draws with seed + n.
        """
        answers: Rows = []
        for items in batches(input):
            drawn = {"sampling": sampling} if sampling is not None else {}
            body = {"model": model, "input": items, "seed": seed + len(answers), **drawn}
            answer = await self.gw.request("POST", "/predictions", json=body, timeout=SLOW)
            answers += answer["data"]
        for index, each in enumerate(answers):
            each["index"] = index
        return answers

    async def download(
        self, id: str, target: Path | str = ".", *, format: Format = "native", progress: Told | None = None
    ) -> Path:
        """The whole model as one zip, into a file or a folder that exists; its path.

        `native` opens with `ssl_core.inference.load` once unpacked. `hf` is for transformers, `onnx` for ONNX runtimes;
        where the server has not written it yet, a job of type `export` does, and this waits for it.

        Raises:
            JobFailed: it cannot be written in this format.
            Damaged, APIStatusError, ConnectionFailed: as every download.
        """
        async def pull() -> Path:
            path, asked = path_of("models", id, "download"), {"format": format}
            return await self.save(path, Path(target), params=asked, otherwise=f"{id}.zip", progress=progress)

        try:
            return await pull()
        except Conflict as error:
            if error.code != "not_exported":
                raise
        await (await self.export(id, format)).wait()
        return await pull()

    async def export(self, id: str, format: Format) -> AsyncJob:
        """Start the job that writes it as `hf` or `onnx`."""
        return await self.gw.jobs.create(type="export", model=id, format=format)

    async def files(self, id: str) -> Files:
        """Every file of its folder."""
        found = await self.gw.request("GET", path_of("models", id, "files"))
        return [File(each) for each in found["data"]]

    async def download_files(self, id: str, folder: Path | str) -> Paths:
        """Every file of its folder, as a folder that `ssl_core.inference.load` opens; their paths."""
        places = [(file, within(Path(folder), file.path)) for file in await self.files(id)]
        return [await self.save(f"{path_of('models', id)}/files/{inner(file.path)}", place) for file, place in places]

    async def import_(
        self, source: Path | str, *, revision: str | None = None, progress: Told | None = None, **fields: Any
    ) -> AsyncJob:
        """Import a public model; the job's result is the model: `(await job.wait()).model()`.

        Args:
            source: a folder or a zip of one (`config.json`, safetensors, tokenizer), or a hub's repository
                (`"owner/name"`), which the server fetches where its operator allows that.
            revision: of the repository.
            fields: `name`, `least_share` (0.5 to 1: how many of the encoder's tensors must match), `metadata`.
        """
        found = local_or_hub(source)
        if isinstance(found, str):
            body = {"hub": found, **({} if revision is None else {"revision": revision}), **fields}
            return AsyncJob(await self.gw.request("POST", "/models", json=body), self.gw)
        with as_one_file(found) as path, path.open("rb") as stream:
            form = {"file": (path.name, Watched(stream, path.stat().st_size, progress), "application/zip")}
            made = await self.gw.request("POST", "/models", data=form_fields(fields), files=form)
            return AsyncJob(made, self.gw)
