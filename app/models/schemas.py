"""API shapes of models: the OpenAI fields, and ours beside them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.models.tables import Model, ModelFile
from app.pagination import Listing
from ssl_core.spec import Metadata

Name = Annotated[str, Field(min_length=1, max_length=200)]
_EXAMPLE: dict[str, Any] = {
    "id": "mdl_01jd3w9qz2", "object": "model", "created": 1767225600, "created_at": 1767225600,
    "owned_by": "prj_01jd3w8a1c", "name": "topics", "kind": "task", "modality": "text",
    "backbone": "text-small", "objective": None,
    "task": "classification", "classes": ["politics", "sport"], "embedding_dimensions": 256, "parameters": 5_300_000,
    "max_length": 128, "bytes": 21_400_000, "digest": "9f2c…", "metrics": {"accuracy": 0.83}, "metadata": {},
    "lineage": {"job": "job_01jd3w9aaa", "datasets": [{"id": "ds_01jd3w8m6k", "role": "dataset", "digest": "4be0…"}],
                "base_model": "mdl_01jd3w8zzz", "seed": 0, "spec": {"type": "finetune"}},
}  # fmt: skip


class ModelObject(BaseModel):
    """A trained model."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="unix seconds, as OpenAI names it")
    created_at: int = Field(description="unix seconds")
    owned_by: str = Field(description="the project")
    name: str
    kind: Literal["encoder", "task"] = Field(description="`task` models answer predictions; both answer embeddings")
    modality: str
    backbone: str
    objective: str | None = Field(description="what it was pretrained with")
    task: str | None
    classes: list[str]
    embedding_dimensions: int
    parameters: int
    max_length: int | None = Field(description="tokens read of a text; the rest is cut off")
    bytes: int
    digest: str = Field(description="sha256 over the (path, sha256) pairs of its files")
    metrics: dict[str, Any] = Field(description="final metrics of the job that made it")
    metadata: dict[str, str]
    lineage: dict[str, Any] = Field(description="job, dataset digests, base model, seed, spec")


class ModelDetail(ModelObject):
    """A trained model with its card."""

    card: dict[str, Any] | None = Field(
        description="`card.json`: spec, seed, metrics, dataset digests, base model, software versions, minutes"
    )


class ModelPatch(BaseModel):
    """What of a model may change; a field that is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"name": "topics-2026"}]})

    name: Name | None = None
    metadata: Metadata | None = Field(default=None, max_length=16, description="replaces all of the metadata")


class ModelDeleted(BaseModel):
    """The answer to a delete, as OpenAI gives it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"id": "mdl_01jd3w9qz2", "object": "model", "deleted": True}]}
    )

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True


class ModelFileObject(BaseModel):
    """One file of a model folder."""

    model_config = ConfigDict(json_schema_extra={"examples": [
        {"object": "model.file", "id": "model.safetensors", "created_at": 1767229200, "path": "model.safetensors",
         "bytes": 5242880, "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}
    ]})  # fmt: skip

    object: Literal["model.file"] = "model.file"
    id: str = Field(description="its path: fetch it at `/v1/models/{model}/files/{path}`")
    created_at: int
    path: str
    bytes: int
    sha256: str


class ModelFileList(Listing[ModelFileObject]):
    """All files of a model."""


class ModelList(Listing[ModelObject]):
    """One page of models."""


def as_object(row: Model) -> ModelObject:
    """The API shape of a row."""
    return ModelObject(**_fields(row))


def as_detail(row: Model, card: dict[str, Any] | None) -> ModelDetail:
    """The same with the card."""
    return ModelDetail(**_fields(row), card=card)


def as_file(model: Model, row: ModelFile) -> ModelFileObject:
    """The API shape of one file."""
    created = model.created_ms // 1000
    return ModelFileObject(id=row.path, created_at=created, path=row.path, bytes=row.size, sha256=row.sha256)


def _fields(row: Model) -> dict[str, Any]:
    config, seconds = row.config, row.created_ms // 1000
    return {
        "id": row.id, "created": seconds, "created_at": seconds, "owned_by": row.project_id, "name": row.name,
        "kind": config["kind"], "modality": config["modality"]["name"], "backbone": config["backbone"]["name"],
        "objective": _name(config.get("objective")), "task": _name(config.get("task")),
        "classes": config.get("classes") or [], "embedding_dimensions": config["embed_dim"],
        "parameters": config["parameters"], "max_length": config.get("max_length") or None, "bytes": row.bytes,
        "digest": row.digest, "metrics": row.metrics, "metadata": row.meta,
        "lineage": {"job": row.job_id, **row.lineage},
    }  # fmt: skip


def _name(part: dict[str, Any] | None) -> str | None:
    return part["name"] if part else None
