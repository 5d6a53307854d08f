"""Models and embeddings with the official client as it is, and the errors that it raises, on real processes."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests.app import registered
from tests.clients.served import Served, start_served
from tests.model_folders import text_model


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from start_served(sqlite_template, tmp_path_factory.mktemp("models"), worker=False)


def test_models_are_listed_found_and_deleted(served: Served, tmp_path: Path) -> None:
    client = served.openai()
    folder = text_model(tmp_path / "made")
    made = [registered.model(served.platform, served.project_id, folder, f"m{at}") for at in range(22)]
    # The client asks for no second page of models, so the first one holds them all.
    listed = list(client.models.list())
    assert [each.id for each in listed][:22] == made[::-1] and set(served.models.values()) <= {e.id for e in listed}
    found = client.models.retrieve(made[0])
    assert (found.object, found.id, found.owned_by) == ("model", made[0], served.project_id)
    assert found.created > 1_700_000_000
    for each in made:
        gone = client.models.delete(each)
        assert (gone.id, gone.object, gone.deleted) == (each, "model", True)
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(made[0])
    assert list(served.openai(served.stranger_key).models.list()) == []


def test_a_vector_is_the_same_in_either_encoding(served: Served) -> None:
    client, model = served.openai(), served.models["text"]
    usual = client.embeddings.create(model=model, input="bread and salt")
    floats = client.embeddings.create(model=model, input="bread and salt", encoding_format="float")
    text = client.embeddings.create(model=model, input="bread and salt", encoding_format="base64")
    assert (usual.object, usual.model, usual.data[0].object, usual.data[0].index) == ("list", model, "embedding", 0)
    assert usual.data[0].embedding == floats.data[0].embedding and len(floats.data[0].embedding) == 32
    assert isinstance(text.data[0].embedding, str)
    assert usual.usage.prompt_tokens == usual.usage.total_tokens > 0


def test_many_inputs_come_back_in_their_order(served: Served) -> None:
    client, model = served.openai(), served.models["text"]
    texts = [f"salt and {word}" for word in ("oven", "rope", "tide", "rose")]
    many = client.embeddings.create(model=model, input=texts, user="somebody")
    assert [each.index for each in many.data] == [0, 1, 2, 3]
    for text, each in zip(texts, many.data, strict=True):
        alone = client.embeddings.create(model=model, input=text).data[0].embedding
        assert np.allclose(alone, each.embedding, atol=1e-5)
    tokens = client.embeddings.create(model=model, input=[[5, 6, 7], [8]])
    single = client.embeddings.create(model=model, input=[5, 6, 7])
    assert len(tokens.data) == 2 and tokens.usage.total_tokens == 4
    assert np.allclose(tokens.data[0].embedding, single.data[0].embedding, atol=1e-5)


def test_fewer_dimensions_are_of_length_one(served: Served) -> None:
    client, model = served.openai(), served.models["text"]
    whole = client.embeddings.create(model=model, input="rose").data[0].embedding
    short = client.embeddings.create(model=model, input="rose", dimensions=8).data[0].embedding
    assert len(short) == 8 and math.isclose(sum(value**2 for value in short), 1, rel_tol=1e-5)
    assert np.allclose(np.array(whole[:8]) / np.linalg.norm(whole[:8]), short, atol=1e-5)


def test_the_asynchronous_client_embeds(served: Served) -> None:
    model = served.models["text"]

    async def many() -> list[int]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client:
            asked = [client.embeddings.create(model=model, input=["salt"] * count) for count in (1, 2, 3)]
            assert model in [each.id async for each in client.models.list()]
            return [len(each.data) for each in await asyncio.gather(*asked)]

    assert asyncio.run(many()) == [1, 2, 3]


Refusal = tuple[Callable[[openai.OpenAI], Any], type[openai.APIStatusError], str, str | None]


def refusals(served: Served) -> list[Refusal]:
    model, stranger = served.models["text"], served.stranger_key

    def embed(input: Any, **more: Any) -> Callable[[openai.OpenAI], Any]:
        return lambda client: client.embeddings.create(**{"model": model, "input": input, **more})

    return [
        (embed("salt", model="mdl_nothing"), openai.NotFoundError, "not_found", "model"),
        (lambda _: served.openai(stranger).embeddings.create(model=model, input="a"), openai.NotFoundError, "not_found",
         "model"),
        (embed(""), openai.UnprocessableEntityError, "empty_input", "input"),
        (embed([]), openai.UnprocessableEntityError, "empty_input", "input"),
        (embed(["salt", " "]), openai.UnprocessableEntityError, "empty_input", "input[1]"),
        (embed(["salt"] * 2049), openai.UnprocessableEntityError, "too_many_inputs", "input"),
        (embed([[1, 2], [3, 100_256]]), openai.UnprocessableEntityError, "invalid_input", "input[1]"),
        (embed("salt", dimensions=33), openai.UnprocessableEntityError, "out_of_range", "dimensions"),
        (embed("salt", dimensions=0), openai.UnprocessableEntityError, "out_of_range", "dimensions"),
        (embed("salt", encoding_format="int8"), openai.UnprocessableEntityError, "invalid_value", "encoding_format"),
        (embed("salt", extra_body={"surprise": 1}), openai.UnprocessableEntityError, "unknown_field", "surprise"),
        (lambda _: served.openai("gw_wrong").models.list(), openai.AuthenticationError, "invalid_api_key", None),
        (lambda _: served.openai(served.scoped("read")).models.delete(model), openai.PermissionDeniedError,
         "insufficient_scope", None),
        (lambda client: client.post("/embeddings", cast_to=object, content=b"{", options={"headers": {
            "Content-Type": "application/json"}}), openai.BadRequestError, "malformed_json", None),
    ]  # fmt: skip


def test_every_refusal_is_the_clients_own_error_with_code_field_and_request_id(served: Served) -> None:
    for call, kind, code, param in refusals(served):
        with pytest.raises(kind) as caught:
            call(served.openai())
        error = caught.value
        assert (error.code, error.param) == (code, param), error.message
        assert error.request_id and error.request_id == error.response.headers["x-request-id"]
        assert error.type and error.body["message"] in error.message  # type: ignore[index]


def test_tokens_of_another_vocabulary_are_told_apart(served: Served) -> None:
    """What LangChain sends unless it is told not to: ids of OpenAI's own tokenizer."""
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        served.openai().embeddings.create(model=served.models["text"], input=[[15339, 1917]])
    assert "own tokenizer" in caught.value.message and "send text" in caught.value.message
