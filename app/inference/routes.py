"""`/v1/embeddings` and `/v1/predictions`. Async, and no database session is held while the model computes (T14)."""

from __future__ import annotations

from fastapi import Request, Response

from app.deps import PlatformDep, ReadKey
from app.edge import api_router, body_limit, changes_nothing
from app.inference import service
from app.inference.forward import client_of, lifespan
from app.inference.items import as_sent
from app.inference.schemas import EmbeddingList, EmbeddingRequest, PredictionList, PredictionRequest
from app.threads import in_thread
from ssl_core.hangups import while_listening

MAX_BODY_BYTES = 32 * 2**20

router = api_router("inference")
router.lifespan_context = lifespan


@router.post("/embeddings", response_model=EmbeddingList)
@body_limit(MAX_BODY_BYTES)
@changes_nothing
async def create_embeddings(
    body: EmbeddingRequest, request: Request, key: ReadKey, platform: PlatformDep
) -> Response:
    """Vectors for texts, token lists, pictures or rows of a dataset, in the OpenAI shape."""
    with as_sent(body.input):
        order = service.quick_order(key.project_id, body)
        if order is None:
            order = await in_thread(service.embedding_order, platform, key.project_id, body)
        client = client_of(request.app)
        if order.model:
            answer = await client.embed(order.model, order.body)
        else:
            answer = await while_listening(request.receive, client.post("/embed", order.body))
    headers = service.precision_header(answer)
    if service.is_short(answer):
        return _json(service.embedding_reply(body, answer), headers)
    return _json(await in_thread(service.embedding_reply, body, answer), headers)


@router.post("/predictions", response_model=PredictionList)
@body_limit(MAX_BODY_BYTES)
@changes_nothing
async def create_predictions(
    body: PredictionRequest, request: Request, key: ReadKey, platform: PlatformDep
) -> Response:
    """A fine-tuned model's answers: for classification a label and every class's probability."""
    order = await in_thread(service.prediction_order, platform, key.project_id, body)
    with as_sent(body.input):
        answer = await while_listening(request.receive, client_of(request.app).post("/predict", order))
    return _json(await in_thread(service.prediction_reply, body, answer))


def _json(body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, media_type="application/json", headers=headers)
