"""What the client and the command line make of inputs before they are sent."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Any

import pytest

from groundwork.commands import inference
from groundwork.commands.items import Item
from groundwork.rest.inputs import batches


@pytest.mark.parametrize("ending", ["flac", "ogg", "mp3", "wav", "jpg", "webp", "png"])
def test_every_file_that_a_server_reads_is_known_without_tables_of_the_system(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mimetypes, "guess_type", mimetypes.MimeTypes(filenames=()).guess_type)
    file = tmp_path / f"a.{ending.upper()}"
    file.write_bytes(b"bytes")
    ((item,),) = batches(file)
    ((column, uri),) = item.items()
    assert column in ("image", "audio") and uri.startswith(f"data:{column}/")


class Desk:
    """A server that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.server = self

    def post(self, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        self.asked.append(body)
        return {"data": [{"index": at} for at in range(len(body["input"]))], "usage": {"total_tokens": 1}}


def test_inputs_of_several_requests_draw_as_in_one() -> None:
    desk = Desk()
    items = [Item({"text": str(at)}, str(at)) for at in range(600)]
    answer = inference._ask(desk, "/predictions", {"model": "mdl_a", "seed": 5}, items)  # type: ignore[arg-type]
    firsts = [int(body["input"][0]["text"]) for body in desk.asked]
    assert [body["seed"] for body in desk.asked] == [5 + first for first in firsts] and len(firsts) > 1
    assert [row["index"] for row in answer["data"]] == list(range(600))
