"""The Python client: datasets in, jobs, models out, over HTTP; nothing of the server is imported.

    from groundwork import Client

    with Client() as gw:  # GROUNDWORK_URL and GROUNDWORK_API_KEY
        pool = gw.datasets.upload("pool.jsonl").wait()
        job = gw.jobs.create(type="pretrain", dataset=pool.id, objective={"name": "mlm"}).wait()
        model = job.model()
        vectors = model.embed(["a sentence"])
        model.download("model.zip")

`AsyncClient` is the same with `await`, `async for` and `async with`. Errors: groundwork/errors.py.
"""

from groundwork.errors import (
    APIStatusError,
    BadRequest,
    Conflict,
    ConnectionFailed,
    Damaged,
    DatasetInvalid,
    Forbidden,
    GroundworkError,
    JobFailed,
    NotConfigured,
    NotFound,
    RateLimited,
    ServerError,
    TooLarge,
    Unauthorized,
    Unprocessable,
    UnsafeName,
    UploadBroken,
    WaitTimeout,
)
from groundwork.rest.aio.batches import AsyncBatch
from groundwork.rest.aio.client import AsyncClient
from groundwork.rest.aio.datasets import AsyncDataset
from groundwork.rest.aio.jobs import AsyncJob
from groundwork.rest.aio.models import AsyncModel
from groundwork.rest.file_values import Hit, Hits
from groundwork.rest.retries import Retries
from groundwork.rest.sync.batches import Batch
from groundwork.rest.sync.client import Client
from groundwork.rest.sync.datasets import Dataset
from groundwork.rest.sync.jobs import Job
from groundwork.rest.sync.models import Model
from groundwork.rest.values import BadRow, Event, Json, LiveEvent, Progress, Series

__all__ = [
    "APIStatusError", "AsyncBatch", "AsyncClient", "AsyncDataset", "AsyncJob", "AsyncModel", "BadRequest", "BadRow",
    "Batch", "Client", "Conflict", "ConnectionFailed", "Damaged", "Dataset", "DatasetInvalid", "Event", "Forbidden",
    "GroundworkError", "Hit", "Hits", "Job", "JobFailed", "Json", "LiveEvent", "Model", "NotConfigured", "NotFound",
    "Progress", "RateLimited", "Retries", "Series", "ServerError", "TooLarge", "Unauthorized", "Unprocessable",
    "UnsafeName", "UploadBroken", "WaitTimeout",
]  # fmt: skip
