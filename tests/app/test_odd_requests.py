"""Requests that are odd in ways no client is."""

from __future__ import annotations

import json
import sys
import time

import pytest
from starlette.requests import Request

from app.edge import resent
from ssl_core.errors import SpecError
from ssl_core.requests import strict_json
from tests.app.conftest import Api


def test_many_names_with_the_last_one_twice_are_refused_at_once() -> None:
    names = [f"{number:05d}" for number in range(60_000)]
    body = "{" + ",".join(f"{json.dumps(name)}:0" for name in [*names, names[-1]]) + "}"
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        strict_json.parse(body.encode())
    # Each name against each other took a minute and a half.
    assert caught.value.code == "duplicate_key" and time.process_time() - began < 10


def test_a_body_that_is_nested_deeper_than_it_can_be_looked_through_is_refused() -> None:
    deep = 900
    body = b'{"a":' * deep + b'"\\u0041"' + b"}" * deep
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)  # where the reader, which is not Python, has a limit of its own (3.12), it goes deeper
    try:
        with pytest.raises(SpecError) as caught:
            strict_json.parse(body)
    finally:
        sys.setrecursionlimit(limit)
    assert caught.value.code == "malformed_json"


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/embeddings", "/v1/fine_tuning/jobs", "/v1/uploads"])
def test_the_body_of_a_stranger_is_not_looked_at(api: Api, path: str) -> None:
    body = {"content": b'{"a": ', "headers": {"Content-Type": "application/json"}}
    assert api.client.post(path, **body).json()["error"]["code"] == "malformed_json"
    odd = {**body, "headers": {"Content-Type": "text/plain", "Authorization": "Bearer gw_wrong"}}
    refused = api.client.post(path, **odd)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")


def test_a_filter_by_metadata_is_refused_where_nothing_would_be_filtered(api: Api) -> None:
    assert api.client.get("/v1/jobs", params={"metadata[team]": "a"}).status_code == 200
    for path in ("/v1/datasets", "/v1/models", "/v1/api_keys"):
        error = api.client.get(path, params={"metadata[team]": "a"}).json()["error"]
        assert (error["code"], error["param"]) == ("unknown_field", "metadata[team]"), path


@pytest.mark.parametrize(("count", "again"), [("0", False), ("2", True), ("\u00b2", False), ("-1", False), ("", False)])
def test_a_count_of_retries_is_a_number_or_nothing(count: str, again: bool) -> None:
    headers = [(b"x-stainless-retry-count", count.encode("latin-1"))]
    assert resent(Request({"type": "http", "headers": headers})) is again
