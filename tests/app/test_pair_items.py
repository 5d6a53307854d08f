"""Inputs for models of proteins and of pictures with texts, from the request to what the inference role reads."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from app.errors import Unprocessable
from app.inference.items import read_input
from worker.inference_requests import InputItem

PICTURE = b"\x89PNG\r\n\x1a\n and more"
URI = "data:image/png;base64," + base64.b64encode(PICTURE).decode()


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ({"protein": "MKVL"}, "MKVL"),
        ({"image": URI}, PICTURE),
        ({"text": "a taco"}, "a taco"),
        ({"image": URI, "text": "a taco"}, {"image": PICTURE, "text": "a taco"}),
    ],
)
def test_an_item_reaches_the_model_as_it_was_sent(sent: dict[str, str], read: Any) -> None:
    item: Any = read_input([sent])[0]
    assert InputItem(item).item(0) == read


def test_kinds_may_be_mixed_in_one_request() -> None:
    items: list[Any] = read_input([{"text": "a taco"}, {"image": URI}, {"image": URI, "text": "a taco"}])
    assert [type(InputItem(item).item(number)) for number, item in enumerate(items)] == [str, bytes, dict]


@pytest.mark.parametrize("sent", [{"image": URI, "protein": "MK"}, {"protein": 7}, {"image": "http://x", "text": "a"}])
def test_what_no_modality_takes_is_refused_at_its_number(sent: dict[str, Any]) -> None:
    with pytest.raises(Unprocessable) as caught:
        read_input(["fine", sent])
    assert (caught.value.code, caught.value.param) == ("invalid_input", "input[1]")
