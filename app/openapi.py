"""What the OpenAPI document says before its first route."""

from __future__ import annotations

DESCRIPTION = """
Self-supervised pretraining as a service: POST unlabelled data, get an encoder; POST a few labels, get a model; call it.

**Keys.** Every `/v1` route takes `Authorization: Bearer gw_…`. Keys belong to a project and carry the scopes `read`,
`write` and `admin`. What belongs to another project is answered exactly like what does not exist.

**Errors.** Every reply that is not a success is `{"error": {"message", "type", "param", "code"}}`; `param` names the
field as a dotted path. `x-request-id` is on every reply.

**Retries.** Send `Idempotency-Key` with a POST: the same key and body get the kept reply for a day, another body gets
422, and a copy still in flight gets 409. `Retry-After` is on every 429 and 503. `x-should-retry: false` marks a 409
that waiting will not mend.

**Lists** are `{"object": "list", "data", "has_more", "first_id", "last_id"}`, newest first; go on with
`after=<last_id>`.

**Long work is a job.** No request lasts longer than its bytes.
""".strip()

TAGS = [
    {"name": "datasets", "description": "Upload data, see what was understood of it, delete it."},
    {"name": "files", "description": "The same datasets through doors shaped like the OpenAI API."},
    {"name": "uploads", "description": "Large files in parts that survive a broken connection."},
    {"name": "jobs", "description": "Pretrain, fine-tune, watch, pause, resume, cancel."},
    {"name": "fine_tuning", "description": "The same trainings through doors shaped like the OpenAI API."},
    {"name": "batches", "description": "Files of requests, answered by jobs; doors shaped like the OpenAI API."},
    {"name": "models", "description": "Trained networks: their lineage, their files, their download."},
    {"name": "inference", "description": "Embeddings and predictions from a trained model."},
    {"name": "catalogue", "description": "Objectives, backbones and tasks with their schemas and defaults."},
    {"name": "webhooks", "description": "Receivers that are told when jobs end and datasets are ready."},
    {"name": "auth", "description": "Projects and API keys."},
    {"name": "worker", "description": "The worker's own door: opened by a worker token, then by an attempt's token."},
    {"name": "operations", "description": "Health and metrics; no key needed."},
]
