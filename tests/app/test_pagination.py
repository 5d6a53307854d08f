"""Keyset lists (R32, B16)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.app.conftest import Api


@pytest.fixture
def five(api_everywhere: Api) -> tuple[Api, list[str]]:
    """An API whose first project has five keys more; their ids, newest first, and the key it began with."""
    for number in range(5):
        made = api_everywhere.client.post("/v1/api_keys", json={"name": f"key {number}"})
        assert made.status_code == 201
    return api_everywhere, [key["id"] for key in read(api_everywhere, limit=100)["data"]]


def read(api: Api, **query: Any) -> dict[str, Any]:
    answer = api.client.get("/v1/api_keys", params=query)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def test_a_list_is_newest_first_and_says_whether_more_follows(five: tuple[Api, list[str]]) -> None:
    api, ids = five
    page = read(api, limit=2)
    assert page["object"] == "list" and page["has_more"] is True
    assert [key["name"] for key in page["data"]] == ["key 4", "key 3"]
    assert (page["first_id"], page["last_id"]) == (ids[0], ids[1])


@pytest.mark.parametrize("order", ["desc", "asc"])
def test_following_the_last_id_sees_every_row_once(five: tuple[Api, list[str]], order: str) -> None:
    api, ids = five
    seen: list[str] = []
    page = read(api, limit=2, order=order)
    while True:
        seen += [key["id"] for key in page["data"]]
        if not page["has_more"]:
            break
        page = read(api, limit=2, order=order, after=page["last_id"])
    assert seen == (ids if order == "desc" else ids[::-1])


def test_rows_made_while_paging_do_not_shift_the_next_page(five: tuple[Api, list[str]]) -> None:
    api, ids = five
    page = read(api, limit=2)
    api.client.post("/v1/api_keys", json={"name": "newer"})
    assert [key["id"] for key in read(api, limit=2, after=page["last_id"])["data"]] == ids[2:4]


def test_the_page_after_the_last_is_empty(five: tuple[Api, list[str]]) -> None:
    api, ids = five
    page = read(api, after=ids[-1])
    assert page == {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize("limit", ["-1", "0", "101", "1000000000", "ten", "1.5", "", "9" * 50])
def test_a_limit_outside_1_to_100_gets_422(shared_api: Api, limit: str) -> None:
    answer = shared_api.client.get("/v1/api_keys", params={"limit": limit})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "invalid_limit", "limit")


def test_a_forged_cursor_gets_400(shared_api: Api) -> None:
    for forged in ("key_nonsense", "0", "' OR 1=1 --", "key_" + "z" * 26, "\u00e9"):
        answer = shared_api.client.get("/v1/api_keys", params={"after": forged})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cursor"), forged


def test_another_projects_id_is_no_cursor(api: Api) -> None:
    mine = read(api)["data"][0]["id"]
    answer = api.stranger.get("/v1/api_keys", params={"after": mine})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cursor")


def test_an_unknown_order_gets_422_with_those_that_are_known(shared_api: Api) -> None:
    error = shared_api.client.get("/v1/api_keys", params={"order": "up"}).json()["error"]
    assert error["param"] == "order" and "'asc' or 'desc'" in error["message"]
