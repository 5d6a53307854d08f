"""`POST /v1/models`: a public model's zip on its way to the import job, or the name of a hub's repository."""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.datasets import quota
from app.datasets.forms import UPLOAD_ERRORS
from app.datasets.intake import Form, Received, digest_of_form, receive
from app.datasets.schemas import form_refusal
from app.datasets.service import clean_filename
from app.db import now_ms
from app.edge import body_was, kept_reply
from app.errors import ApiError, Forbidden, Unprocessable
from app.ids import made_ms, new_id
from app.jobs import service as jobs
from app.jobs.schemas import as_job
from app.jobs.submission import check_limit
from app.models.service import import_key
from app.platform import Platform, session_scope
from app.protocol import parse_json, read_capped, read_json
from app.threads import in_thread
from ssl_core.spec import HubModel, ImportSpec, Metadata

SWEEP_SECONDS = 60.0
STRAY_MS = 24 * 60 * 60 * 1000
"""Age at which an upload without a job has none to come: no request lasts so long."""
_FIELDS = frozenset({"name", "least_share", "metadata"})
_TEXT: dict[str, Any] = {"type": "string"}
_PROPERTIES: dict[str, Any] = {
    "name": {**_TEXT, "maxLength": 200, "description": "default: the file's or the repository's name"},
    "least_share": {
        "type": "number", "minimum": 0.5, "maximum": 1, "default": 1,
        "description": "share of the encoder's tensors that must match; what is missing starts fresh",
    },
    "metadata": {"type": "object", "description": "up to 16 strings of your own; JSON in a form"},
}  # fmt: skip
OPENAPI: dict[str, Any] = {
    "responses": UPLOAD_ERRORS,
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["file"],
                        "additionalProperties": False,
                        "properties": {"file": {**_TEXT, "format": "binary"}, **_PROPERTIES},
                    }
                },
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["hub"],
                        "additionalProperties": False,
                        "properties": {
                            "hub": _TEXT,
                            "revision": _TEXT,
                            **_PROPERTIES,
                        },
                    },
                    "example": {"hub": "google-bert/bert-base-uncased"},
                },
            },
        }
    },
}


class ImportForm(BaseModel):
    """What comes beside the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = Field(default=None, min_length=1, max_length=200)
    least_share: float = Field(default=1.0, ge=0.5, le=1)
    metadata: Metadata = Field(default_factory=dict, max_length=16)


class HubImport(ImportForm):
    """The JSON body."""

    hub: str = Field(max_length=200)
    revision: str | None = None


async def digest_of_body(request: Request) -> bytes:
    """What tells this body from another, whichever of the two it is."""
    if _is_json(request):
        return await read_capped(request, request.app.state.platform.settings.max_body_bytes)
    return await digest_of_form(request)


async def receive_import(request: Request, platform: Platform, project_id: str) -> Response:
    """Take the zip, or the name of a repository, and queue the job.

    Raises:
        ApiError: as `app.datasets.intake.receive`; 403 `hub_not_allowed`; 422 for a wrong field; 429.
    """
    if _is_json(request):
        raw, value = await read_json(request, platform.settings.max_body_bytes, True)
        body_was(request, raw)
        return await in_thread(_submit_hub, request, project_id, value)
    import_id = new_id("imp")
    form = Form("file", _FIELDS, import_key(import_id), platform.settings.max_upload_bytes, _read)
    async with receive(request, platform, form, project_id) as received:
        return await in_thread(_submit_zip, request, project_id, import_id, received)


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _read(fields: dict[str, str]) -> ImportForm:
    """Raises Unprocessable that names the field; what is no string arrives as JSON."""
    body: dict[str, Any] = dict(fields)
    for name in {"least_share", "metadata"} & body.keys():
        try:
            body[name] = parse_json(fields[name].encode())
        except ApiError as error:
            raise Unprocessable(error.code, f"`{name}`: {error.message}", name) from None
    form: ImportForm = _checked(ImportForm, body)
    return form


def _checked(shape: type[Any], body: Any) -> Any:
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        raise form_refusal(error, body) from None


def _submit_zip(request: Request, project_id: str, import_id: str, received: Received) -> Response:
    form = _read(received.fields)
    spec = ImportSpec(
        upload=import_id, bytes=received.stored.size, filename=clean_filename(received.filename), name=form.name,
        least_share=form.least_share, metadata=form.metadata,
    )  # fmt: skip
    inputs = [jobs.InputRef("upload", import_id, received.stored.sha256)]
    return _submit(request, project_id, spec, inputs, received.hold)


def _submit_hub(request: Request, project_id: str, body: Any) -> Response:
    form: HubImport = _checked(HubImport, body)
    if not request.app.state.platform.settings.allow_hub:
        text = "This platform's operator does not allow imports from a hub; upload the folder as a zip."
        raise Forbidden("hub_not_allowed", text)
    try:
        hub = HubModel(repository=form.hub, revision=form.revision)
    except ValidationError:
        text = "`hub` is `organisation/name`, `revision` a branch or tag."
        raise Unprocessable("invalid_value", text, "hub") from None
    spec = ImportSpec(hub=hub, name=form.name, least_share=form.least_share, metadata=form.metadata)
    return _submit(request, project_id, spec, [], None)


def _submit(
    request: Request, project_id: str, spec: ImportSpec, inputs: list[jobs.InputRef], hold: str | None
) -> Response:
    platform: Platform = request.app.state.platform
    with session_scope(platform) as session:
        if hold is not None:
            quota.release(session, hold)
        check_limit(session, platform.settings, project_id)
        if spec.bytes:
            quota.take(session, platform.settings, project_id, spec.bytes)
        job = jobs.enqueue(session, project_id=project_id, spec=spec, inputs=inputs)
        return kept_reply(request, session, 201, as_job(job).model_dump(mode="json"))


def sweep(platform: Platform) -> int:
    """Uploads whose import has ended give back their room; returns how many.

    So do those that no job was ever made of, since a process died in between; nobody's room was charged for them.
    """
    freed = 0
    for key, size in list(platform.store.list("imports")):
        import_id = key.split("/")[1]
        with session_scope(platform) as session:
            project_id = jobs.ended_job_using(session, import_id)
            stray = project_id is None and made_ms(import_id) < now_ms(session) - STRAY_MS
            if stray and not jobs.any_job_using(session, import_id):
                platform.store.delete(key)
                freed += 1
            if project_id is None:
                continue
            quota.charge(session, project_id, 0)  # takes the lock: of two processes that sweep, one finds it
            if platform.store.exists(key):
                platform.store.delete(key)
                quota.charge(session, project_id, -size)
                freed += 1
    return freed
