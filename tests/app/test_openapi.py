"""A stranger can work from the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.conftest import Api

ALWAYS = {"400", "401", "403", "404", "406", "409", "413", "415", "422", "429", "500", "503"}


@pytest.fixture(scope="module")
def document(shared_api: Api) -> dict[str, Any]:
    found: dict[str, Any] = shared_api.client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_route_of_the_api_lists_its_errors_in_the_one_envelope(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if " /v1/" not in name:
            continue
        assert not ALWAYS - set(operation["responses"]), name
        schema = operation["responses"]["422"]["content"]["application/json"]["schema"]
        assert schema["$ref"].endswith("/ErrorReply"), name


def test_every_route_says_what_it_does_and_is_filed_under_a_known_tag(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"]}
    for name, operation in operations(document):
        if " /internal/" not in name:
            assert operation.get("summary") and operation.get("description"), name
            assert set(operation.get("tags", [])) <= tags and operation.get("tags"), (name, operation.get("tags"))


def examples(document: dict[str, Any], schema: dict[str, Any], deep: int = 3) -> Iterator[Any]:
    """Every example in a schema, down through its references and lists."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    yield from schema.get("examples", [])
    yield from [schema["example"]] if "example" in schema else []
    inside = [*schema.get("properties", {}).values(), *schema.get("anyOf", []), *schema.get("oneOf", [])]
    for each in [*inside, schema.get("items")] if deep else []:
        yield from examples(document, each or {}, deep - 1)


def test_every_route_shows_an_example(document: dict[str, Any]) -> None:
    """Of its request or of its reply; a reply that is a file needs none."""
    for name, operation in operations(document):
        if " /v1/" not in name:
            continue
        good = [reply for status, reply in operation["responses"].items() if status.startswith("2")]
        bodies = [operation.get("requestBody", {}), *good]
        media = [pair for body in bodies for pair in body.get("content", {}).items()]
        shown = [
            example
            for _, content in media
            for example in (content.get("examples"), *examples(document, content.get("schema", {})))
            if example
        ]
        assert shown or {kind for kind, _ in media} == {"application/octet-stream"}, name


def test_every_error_in_the_document_comes_with_an_example_of_its_code(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if " /v1/" not in name:
            continue
        for status, reply in operation["responses"].items():
            if status >= "400":
                error = reply["content"]["application/json"]["example"]["error"]
                assert reply["description"] and error["code"] and error["message"] and error["type"], (name, status)


def test_every_route_of_the_api_asks_for_a_key(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if " /v1/" in name:
            assert operation["security"] == [{"ApiKey": []}], name


def test_the_framework_s_own_error_shape_is_nowhere(document: dict[str, Any]) -> None:
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_docs_page_is_served(shared_api: Api) -> None:
    page = shared_api.anonymous.get("/docs")
    assert page.status_code == 200 and "swagger-ui" in page.text


def test_the_docs_page_asks_nothing_of_another_server(shared_api: Api) -> None:
    page = shared_api.anonymous.get("/docs").text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(assets) >= 3 and not [each for each in assets if "//" in each]
    for each in assets:
        assert len(shared_api.anonymous.get(each).content) > 1000, each
