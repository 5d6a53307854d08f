"""Projects and keys."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import select, text

from app.auth import secret
from app.auth.service import bootstrap
from app.auth.tables import ApiKey
from app.migrate import migrate
from app.platform import read_scope, session_scope
from tests.app.conftest import Api, client_of, make_settings


def test_a_key_made_by_an_admin_opens_the_door(api_everywhere: Api) -> None:
    made = api_everywhere.client.post("/v1/api_keys", json={"name": "laptop", "scopes": ["read"]})
    assert made.status_code == 201, made.text
    body = made.json()
    assert body["object"] == "api_key" and body["scopes"] == ["read"] and body["key"].startswith("gw_")
    assert client_of(api_everywhere.app, body["key"]).get("/v1/projects").status_code == 200
