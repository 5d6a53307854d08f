"""LangChain's and LlamaIndex's embedding classes for OpenAI, unmodified, on real processes.

`make test-clients` installs the extra `clients` and forbids skips; `make test` skips where it is absent.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from tests.clients.served import Served, start_served

TEXTS = ["bread and salt", "tide, anchor and rope", "a rose in the soil"]
NEEDED = os.environ.get("GROUNDWORK_TEST_CLIENTS") == "required"


def part_of(module: str, name: str) -> Any:
    """A class of the extra; skips where it is not installed, and fails where it must be."""
    if NEEDED:
        __import__(module)
    return getattr(pytest.importorskip(module, reason="the extra `clients` is not installed"), name)


@pytest.fixture(scope="module")
def served(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from start_served(sqlite_template, tmp_path_factory.mktemp("frameworks"), worker=False)


@pytest.fixture(scope="module")
def vectors(served: Served) -> list[list[float]]:
    """What the official client is told of the same texts."""
    told = served.openai().embeddings.create(model=served.models["text"], input=TEXTS)
    return [each.embedding for each in told.data]


def same(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> bool:
    return len(found) == len(expected) and np.allclose(found, expected, atol=1e-5)


def langchain(served: Served, **options: Any) -> Any:
    made = part_of("langchain_openai", "OpenAIEmbeddings")
    # It would cut texts into tokens of OpenAI's own tokenizer, which it downloads; the model has its own.
    usual = {"model": served.models["text"], "check_embedding_ctx_length": False, "max_retries": 0}
    return made(base_url=f"{served.url}/v1", api_key=served.key, **{**usual, **options})


def test_langchain_embeds_queries_and_documents(served: Served, vectors: list[list[float]]) -> None:
    embeddings = langchain(served)
    assert same(embeddings.embed_documents(TEXTS), vectors)
    assert same([embeddings.embed_query(TEXTS[1])], vectors[1:2])
    assert same(langchain(served, chunk_size=2).embed_documents(TEXTS), vectors)
    assert len(langchain(served, dimensions=8).embed_query(TEXTS[0])) == 8


def test_langchain_embeds_asynchronously(served: Served, vectors: list[list[float]]) -> None:
    async def both() -> tuple[Any, Any]:
        embeddings = langchain(served)
        return await embeddings.aembed_documents(TEXTS), await embeddings.aembed_query(TEXTS[0])

    documents, query = asyncio.run(both())
    assert same(documents, vectors) and same([query], vectors[:1])


def test_langchain_raises_the_clients_errors(served: Served) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        langchain(served).embed_query("")
    assert caught.value.code == "empty_input"
    with pytest.raises(openai.NotFoundError):
        langchain(served, model="mdl_nothing").embed_query("salt")


def llama(served: Served, name: str, **options: Any) -> Any:
    module = "llama_index.embeddings.openai" if name == "OpenAIEmbedding" else "llama_index.embeddings.openai_like"
    usual = {"model_name": served.models["text"], "api_key": served.key, "max_retries": 0}
    return part_of(module, name)(api_base=f"{served.url}/v1", **{**usual, **options})


@pytest.mark.parametrize("name", ["OpenAIEmbedding", "OpenAILikeEmbedding"])
def test_llama_index_embeds_queries_and_texts(served: Served, vectors: list[list[float]], name: str) -> None:
    embeddings = llama(served, name)
    assert same(embeddings.get_text_embedding_batch(TEXTS), vectors)
    assert same([embeddings.get_text_embedding(TEXTS[2]), embeddings.get_query_embedding(TEXTS[2])], vectors[2:] * 2)
    assert same(llama(served, name, embed_batch_size=2).get_text_embedding_batch(TEXTS), vectors)
    assert len(llama(served, name, dimensions=8).get_text_embedding(TEXTS[0])) == 8


@pytest.mark.parametrize("name", ["OpenAIEmbedding", "OpenAILikeEmbedding"])
def test_llama_index_embeds_asynchronously(served: Served, vectors: list[list[float]], name: str) -> None:
    async def both() -> tuple[Any, Any]:
        embeddings = llama(served, name)
        return await embeddings.aget_text_embedding_batch(TEXTS), await embeddings.aget_query_embedding(TEXTS[0])

    texts, query = asyncio.run(both())
    assert same(texts, vectors) and same([query], vectors[:1])


def test_llama_index_raises_the_clients_errors(served: Served) -> None:
    with pytest.raises(openai.NotFoundError):
        llama(served, "OpenAILikeEmbedding", model_name="mdl_nothing").get_text_embedding("salt")
