"""The application in this process, and a browser's own view of it: cookies and no key."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from app.auth.service import create_key
from app.main import create_app
from app.platform import Platform, session_scope
from tests.app.conftest import Api, api, client_of, fill, make_settings, serve, settings, shared_api

__all__ = ["Api", "api", "client_of", "create_app", "fill", "make_settings", "serve", "settings", "shared_api"]


def new_key(platform: Platform, project_id: str, *scopes: str) -> str:
    """The text of a fresh key."""
    with session_scope(platform) as session:
        return create_key(session, platform.settings, project_id, "browser", scopes or ("read", "write", "admin"))[1]


def hidden(page: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found, f"no field {name}"
    return found[1]


def csrf_of(page: str) -> str:
    """The token that scripts of the page send along."""
    found = re.search(r'<meta name="csrf-token" content="([0-9a-f]+)">', page)
    assert found, "no token"
    return found[1]


def sign_in(browser: TestClient, key: str, onward: str = "/ui") -> str:
    """Through the form, as a person does; returns the page that follows."""
    form = browser.get("/ui/login", params={"next": onward}).text
    fields = {"csrf": hidden(form, "csrf"), "next": hidden(form, "next"), "key": key}
    reply = browser.post("/ui/login", data=fields)
    assert reply.status_code == 200 and reply.url.path == onward.partition("?")[0], reply.text[:500]
    return reply.text


@pytest.fixture
def browser(api: Api) -> Iterator[TestClient]:
    """Signed in to the first project."""
    with client_of(api.app) as opened:
        sign_in(opened, new_key(api.platform, api.project_id))
        yield opened
