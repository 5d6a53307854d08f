"""Requests that are wrong before any route sees them (B1–B9, B14, B16, R31)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from app import protocol
from app.edge import add_routes
from app.protocol import parse_json
from tests.app import probe
from tests.app.conftest import Api

JSON = {"Content-Type": "application/json"}
GOOD = {"shape": {"kind": "square", "side": 3}}


@pytest.fixture(scope="module")
def drawing(shared_api: Api) -> Api:
    add_routes(shared_api.app, probe.router)
    return shared_api


@pytest.fixture(scope="module")
def api(shared_api: Api) -> Api:
    return shared_api


def refused(answer: httpx2.Response) -> tuple[int, str, str | None]:
    """(status, code, param) of an error, whose envelope is checked on the way."""
    error = answer.json()["error"]
    assert set(answer.json()) == {"error"} and set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and "Traceback" not in answer.text
    assert answer.headers["x-request-id"]
    return answer.status_code, error["code"], error["param"]


def post(api: Api, body: str | bytes, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else body.encode()
    return api.client.post("/v1/draw", content=content, headers={**JSON, **headers})


def test_a_good_body_passes(drawing: Api) -> None:
    assert post(drawing, json.dumps(GOOD)).json()["shape"] == GOOD["shape"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "body_required"),
        (b"{", "malformed_json"),
        (b'{"a": 1} trailing', "malformed_json"),
        (b"\xef\xbb\xbf{}", "malformed_json"),
        ('{"title": "é"}'.encode("latin-1"), "malformed_json"),
        ('{"title": "é"}'.encode("utf-16"), "malformed_json"),
        (b'{"title": \'a\'}', "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
    ],
    ids=["empty", "cut", "trailing", "bom", "latin-1", "utf-16", "quotes", "deep"],
)
def test_what_is_not_json_gets_400(drawing: Api, body: bytes, code: str) -> None:
    assert refused(post(drawing, body)) == (400, code, None)


def test_another_charset_gets_400(drawing: Api) -> None:
    answer = post(drawing, json.dumps(GOOD), **{"Content-Type": "application/json; charset=latin-1"})
    assert refused(answer) == (400, "malformed_json", None)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ('{"count": 1, "count": 2}', "duplicate_key", "count"),
        ('{"shape": {"kind": "circle", "radius": NaN}}', "not_finite", "shape.radius"),
        ('{"shape": {"kind": "circle", "radius": -Infinity}}', "not_finite", "shape.radius"),
        ('{"shape": {"kind": "circle", "radius": 1e400}}', "not_finite", "shape.radius"),
        ('{"count": 9223372036854775808}', "out_of_range", "count"),
        ('{"count": 12345678901234567890123456}', "out_of_range", "count"),
        ('{"count": ' + "9" * 5000 + "}", "out_of_range", "count"),
        ('{"tags": ["a", "\\u0000"]}', "invalid_character", "tags.1"),
        ('{"title": "\\ud800"}', "invalid_character", "title"),
    ],
)
def test_values_that_no_field_can_hold_are_named(drawing: Api, body: str, code: str, param: str) -> None:
    assert refused(post(drawing, body)) == (422, code, param)


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"count": True}, "type_error", "count"),
        ({"count": "7"}, "type_error", "count"),
        ({"count": 7.5}, "type_error", "count"),
        ({"title": None}, "type_error", "title"),
        ({"tags": "a"}, "type_error", "tags"),
        ({"tags": ["a", 1]}, "type_error", "tags.1"),
        ({"tenant_id": "x"}, "unknown_field", "tenant_id"),
        ({"shape": {"kind": "square", "side": 11}}, "out_of_range", "shape.side"),
        ({"shape": {"kind": "square", "side": "3"}}, "type_error", "shape.side"),
        ({"shape": {"kind": "square"}}, "missing_field", "shape.side"),
        ({"shape": {"kind": "square", "side": 3, "radius": 1}}, "unknown_field", "shape.radius"),
        ({"shape": {"kind": "star"}}, "invalid_value", "shape"),
        ({"shape": {"side": 3}}, "missing_field", "shape.kind"),
        ({"shape": "square"}, "type_error", "shape"),
    ],
)
def test_a_wrong_field_is_named_as_the_user_wrote_it(
    drawing: Api, change: dict[str, object], code: str, param: str
) -> None:
    assert refused(post(drawing, json.dumps({**GOOD, **change}))) == (422, code, param)


def test_the_message_says_what_is_allowed(drawing: Api) -> None:
    wrong_kind = post(drawing, '{"shape": {"kind": "star"}}').json()["error"]["message"]
    wrong_side = post(drawing, '{"shape": {"kind": "square", "side": 11}}').json()["error"]["message"]
    assert "'circle', 'square'" in wrong_kind and "less than or equal to 10" in wrong_side and "11" in wrong_side


@pytest.mark.parametrize("body", ['"text"', "7", "null", "[]", "true"])
def test_a_body_that_is_no_object_gets_422(drawing: Api, body: str) -> None:
    status, code, _param = refused(post(drawing, body))
    assert status == 422 and code in {"type_error", "missing_field"}


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "nonsense", ""])
def test_another_content_type_gets_415(drawing: Api, kind: str) -> None:
    answer = drawing.client.post("/v1/draw", content=json.dumps(GOOD), headers={"Content-Type": kind})
    assert refused(answer) == (415, "unsupported_media_type", "Content-Type")


def test_a_compressed_body_gets_415(drawing: Api) -> None:
    answer = post(drawing, b"\x1f\x8b", **{"Content-Encoding": "gzip"})
    assert refused(answer) == (415, "unsupported_media_type", "Content-Encoding")


@pytest.mark.parametrize("accept", ["text/html", "image/*", "application/json;q=0", "application/xml, text/plain"])
def test_an_accept_header_that_rules_json_out_gets_406(drawing: Api, accept: str) -> None:
    assert refused(post(drawing, json.dumps(GOOD), Accept=accept)) == (406, "not_acceptable", "Accept")


@pytest.mark.parametrize("accept", ["*/*", "application/*", "a/b, application/json;q=0.1", "APPLICATION/JSON", ""])
def test_an_accept_header_that_allows_json_passes(drawing: Api, accept: str) -> None:
    assert post(drawing, json.dumps(GOOD), Accept=accept).status_code == 200


def test_an_unknown_path_gets_404(api: Api) -> None:
    assert refused(api.client.get("/v1/nothing/here")) == (404, "not_found", None)
    assert refused(api.client.get("/v1/projects/a/b")) == (404, "not_found", None)
    assert refused(api.anonymous.get("/nothing")) == (404, "not_found", None)


def test_a_nul_in_a_path_or_a_query_never_reaches_the_database(api_everywhere: Api) -> None:
    assert refused(api_everywhere.client.get("/v1/projects/a%00b")) == (404, "not_found", None)
    assert refused(api_everywhere.client.get("/v1/projects?after=a%00b")) == (422, "invalid_character", "after")


def test_odd_bytes_in_a_path_are_an_id_that_does_not_exist(api_everywhere: Api) -> None:
    for odd in ("%ff%fe", "%F0%9F%98%80", "x" * 5000, "..%2f..%2fetc", "' OR 1=1 --", "%0d%0aSet-Cookie:%20a=b"):
        answer = api_everywhere.client.get(f"/v1/projects/{odd}")
        assert refused(answer)[:2] == (404, "not_found") and "set-cookie" not in answer.headers


def test_a_wrong_method_gets_405_with_the_allowed_ones(api: Api) -> None:
    answer = api.client.put("/v1/projects", json={})
    assert refused(answer) == (405, "method_not_allowed", None)
    assert answer.headers["allow"] == "GET, POST"


def test_a_body_over_the_cap_gets_413_when_its_length_is_declared(drawing: Api) -> None:
    assert refused(post(drawing, b" " * 1_000_001)) == (413, "body_too_large", None)


def test_a_body_over_the_cap_gets_413_without_a_length_too(drawing: Api) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 100_000

    answer = drawing.client.post("/v1/draw", content=chunks(), headers=JSON)
    assert refused(answer) == (413, "body_too_large", None)


def test_hostile_strings_come_back_verbatim(drawing: Api) -> None:
    title = "'; DROP TABLE projects; -- {{7*7}} $(id) <script>alert(1)</script>\r\nSet-Cookie: a=b %0d%0a \\ \"é🙂"
    answer = post(drawing, json.dumps({**GOOD, "title": title}))
    assert answer.json()["title"] == title and "set-cookie" not in answer.headers
    assert answer.headers["content-type"] == "application/json"


def test_an_unknown_query_parameter_is_refused(api: Api) -> None:
    assert refused(api.client.get("/v1/projects", params={"limt": 5})) == (422, "unknown_field", "limt")


def test_a_fault_of_ours_says_nothing_but_where_to_find_it(drawing: Api, capsys: pytest.CaptureFixture[str]) -> None:
    answer = drawing.client.post("/v1/fault")
    assert refused(answer) == (500, "internal_error", None)
    assert "secret detail" not in answer.text and "RuntimeError" not in answer.text
    assert answer.headers["x-request-id"] in capsys.readouterr().err


def test_a_callers_request_id_is_kept_when_it_is_harmless(api: Api) -> None:
    assert api.client.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert api.client.get("/healthz", headers={"x-request-id": "a b\t"}).headers["x-request-id"].startswith("req_")


def test_equal_integers_at_the_edge_of_a_column_pass() -> None:
    assert parse_json(b"[9223372036854775807, -9223372036854775808]") == [2**63 - 1, -(2**63)]


def test_a_body_that_never_comes_to_its_end_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.2)
    sent: list[Any] = []
    headers = [("host", "a"), ("content-type", "application/json"), ("content-length", "20")]
    headers.append(("authorization", api.client.headers["authorization"]))
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/projects", "raw_path": b"/v1/projects",
        "query_string": b"", "root_path": "", "scheme": "http", "server": ("a", 80), "client": ("b", 1),
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }  # fmt: skip
    pieces = iter([b'{"name": '])

    async def receive() -> dict[str, Any]:
        for piece in pieces:
            return {"type": "http.request", "body": piece, "more_body": True}
        await asyncio.sleep(60)
        raise AssertionError("nobody waits so long")

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(api.app(scope, receive, send))
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"]["code"] == "request_timeout"


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1:8420"])
def test_no_page_of_another_origin_may_read_an_answer(api: Api, origin: str) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "DELETE"}
    replies = [api.client.get("/v1/jobs", headers={"Origin": origin}), api.client.options("/v1/jobs", headers=asked)]
    for reply in replies:
        assert not [name for name in reply.headers if name.lower().startswith("access-control-")]
    assert replies[1].status_code == 405
