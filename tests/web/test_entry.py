"""Signing in and out: what the cookie is worth, where, and for how long."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.auth import sessions
from app.auth.tables import WebSession
from app.platform import session_scope
from app.web.edge import own_path
from tests.web.conftest import Api, client_of, csrf_of, hidden, new_key, sign_in


def test_a_page_without_a_session_leads_to_the_login_and_back(api: Api) -> None:
    browser = client_of(api.app)
    reply = browser.get("/ui/jobs?status=running", follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/ui/login?next=%2Fui%2Fjobs%3Fstatus%3Drunning")
    page = sign_in(browser, new_key(api.platform, api.project_id), "/ui/jobs?status=running")
    assert "<h1>Jobs</h1>" in page


def test_the_bare_address_leads_browsers_to_the_dashboard(api: Api) -> None:
    reply = api.anonymous.get("/", headers={"Accept": "text/html,*/*"}, follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/ui")


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
def test_the_cookie_is_unreadable_and_stays_here(api: Api, scheme: str, secure: bool) -> None:
    browser = TestClient(api.app, base_url=f"{scheme}://testserver")
    form = browser.get("/ui/login").text
    fields = {"csrf": hidden(form, "csrf"), "next": "/ui", "key": new_key(api.platform, api.project_id)}
    reply = browser.post("/ui/login", data=fields, follow_redirects=False)
    cookie = next(each for each in reply.headers.get_list("set-cookie") if each.startswith("gw_session="))
    parts = {part.strip().lower() for part in cookie.split(";")}
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= parts
    assert ("secure" in parts) is secure
    assert fields["key"] not in cookie and fields["key"].split("_")[2] not in cookie


@pytest.mark.parametrize("key", ["", "nonsense", "gw_0123_456", "' OR 1=1 --"])
def test_a_wrong_key_shows_the_form_again_and_not_the_key(api: Api, key: str) -> None:
    browser = client_of(api.app)
    form = browser.get("/ui/login").text
    reply = browser.post("/ui/login", data={"csrf": hidden(form, "csrf"), "next": "/ui", "key": key})
    assert reply.status_code == 401 and "not valid here" in reply.text and "gw_session" not in browser.cookies
    assert not key or key not in reply.text


def test_a_login_needs_the_form_s_own_token(api: Api) -> None:
    key = new_key(api.platform, api.project_id)
    stranger, browser = client_of(api.app), client_of(api.app)
    token = hidden(stranger.get("/ui/login").text, "csrf")
    browser.get("/ui/login")
    for sent in ({}, {"csrf": ""}, {"csrf": token}, {"csrf": "é"}):
        assert browser.post("/ui/login", data={"key": key, **sent}).status_code == 403
    good = hidden(browser.get("/ui/login").text, "csrf")
    crossed = {"Sec-Fetch-Site": "cross-site"}
    assert browser.post("/ui/login", data={"key": key, "csrf": good}, headers=crossed).status_code == 403
    assert "gw_session" not in browser.cookies


def test_a_logout_ends_a_copy_of_the_cookie_too(api: Api, browser: TestClient) -> None:
    thief = client_of(api.app)
    thief.cookies.set("gw_session", browser.cookies["gw_session"])
    assert thief.get("/v1/jobs").status_code == 200
    page = browser.get("/ui").text
    assert browser.post("/ui/logout", data={"csrf": "wrong"}).status_code == 403
    assert thief.get("/v1/jobs").status_code == 200
    reply = browser.post("/ui/logout", data={"csrf": hidden(page, "csrf")}, follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "/ui/login")
    assert thief.get("/v1/jobs").status_code == 401 and browser.get("/v1/jobs").status_code == 401


def test_an_expired_session_opens_nothing_and_is_swept_at_the_next_login(api: Api, browser: TestClient) -> None:
    with session_scope(api.platform) as session:
        for row in session.query(WebSession):
            row.expires_ms = 1
    assert browser.get("/v1/jobs").status_code == 401
    assert browser.get("/ui/jobs", follow_redirects=False).headers["location"].startswith("/ui/login?next=")
    fragment = browser.get("/ui/jobs", headers={"HX-Request": "true"})
    assert (fragment.status_code, fragment.headers["hx-refresh"]) == (204, "true")
    sign_in(client_of(api.app), new_key(api.platform, api.project_id))
    with session_scope(api.platform) as session:
        assert session.query(WebSession).count() == 1


def test_a_revoked_key_ends_its_sessions(api: Api) -> None:
    browser, key = client_of(api.app), new_key(api.platform, api.project_id)
    sign_in(browser, key)
    assert browser.get("/v1/jobs").status_code == 200
    assert api.client.delete(f"/v1/api_keys/key_{key.split('_')[1]}").status_code == 200
    assert browser.get("/v1/jobs").status_code == 401


def test_a_session_has_its_key_s_scopes(api: Api) -> None:
    browser = client_of(api.app)
    token = csrf_of(sign_in(browser, new_key(api.platform, api.project_id, "read")))
    reply = browser.post("/v1/jobs/job_1/cancel", headers={sessions.HEADER: token})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "insufficient_scope")
    assert browser.get("/v1/api_keys").status_code == 403


def test_the_database_keeps_no_cookie(api: Api, browser: TestClient) -> None:
    token = browser.cookies["gw_session"]
    with session_scope(api.platform) as session:
        row = session.query(WebSession).one()
        assert token not in row.id and len(row.id) == 64


def test_what_changes_something_needs_the_token_of_a_page_of_this_session(api: Api, browser: TestClient) -> None:
    other = client_of(api.app)
    foreign = csrf_of(sign_in(other, new_key(api.platform, api.project_id)))
    body = {"name": "made by a page"}
    for headers in ({}, {sessions.HEADER: ""}, {sessions.HEADER: foreign}, {sessions.HEADER: b"\xe9"}):
        reply = browser.post("/v1/api_keys", json=body, headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "csrf_failed"), headers
    own = {sessions.HEADER: csrf_of(browser.get("/ui").text)}
    assert browser.post("/v1/api_keys", json=body, headers={**own, "Sec-Fetch-Site": "same-site"}).status_code == 403
    assert browser.post("/v1/api_keys", json=body, headers={**own, "Sec-Fetch-Site": "same-origin"}).status_code == 201


def test_other_sites_cannot_load_from_the_api_but_may_link_to_a_page(browser: TestClient) -> None:
    elsewhere = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "script"}
    assert browser.get("/v1/jobs", headers=elsewhere).status_code == 403
    linked = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "document"}
    assert browser.get("/ui/jobs", headers=linked).status_code == 200


def test_a_key_in_the_header_still_wins_over_a_cookie(api: Api, browser: TestClient) -> None:
    headers = {"Authorization": f"Bearer {new_key(api.platform, api.stranger_project_id)}"}
    made = browser.post("/v1/api_keys", json={"name": "by key"}, headers=headers)
    assert made.status_code == 201
    assert made.json()["id"] in {each["id"] for each in api.stranger.get("/v1/api_keys").json()["data"]}
    assert browser.get("/v1/jobs", headers={"Authorization": "Bearer nonsense"}).status_code == 401


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("/ui/jobs?after=job_1", "/ui/jobs?after=job_1"), ("/ui", "/ui"), ("/ui?a=1", "/ui?a=1"),
        ("//evil.example", "/ui"), ("https://evil.example/ui", "/ui"), ("/uix", "/ui"), ("/ui/\\evil", "/ui"),
        ("javascript:alert(1)", "/ui"), ("/ui/\r\nX: y", "/ui"), ("/v1/jobs", "/ui"),
    ],
)  # fmt: skip
def test_a_login_goes_on_to_pages_of_ours_only(asked: str, given: str) -> None:
    assert own_path(asked) == given


def test_a_form_that_never_ends_is_refused(api: Api) -> None:
    reply = api.anonymous.post("/ui/login", content=b"key=" + b"x" * 20_000)
    assert reply.status_code == 413 and "text/html" in reply.headers["content-type"]


def test_pages_are_in_no_api_document(api: Api) -> None:
    app: FastAPI = api.app
    assert not [path for path in app.openapi()["paths"] if path.startswith("/ui")]
