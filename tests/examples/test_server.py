"""Examples against a server that runs already."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from examples.server import add_server_options, command, server_of
from groundwork.client import Unprocessable


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_server_options(parser)
    return parser.parse_args(words)


def test_a_server_that_is_named_is_taken_and_none_is_started(tmp_path: Path) -> None:
    with server_of(parsed("--url", "http://localhost:1", "--key", "gw_1"), tmp_path) as found:
        assert found == ("http://localhost:1", "gw_1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("half", ["--url", "--key"])
def test_half_an_address_is_refused(tmp_path: Path, half: str) -> None:
    with pytest.raises(SystemExit, match="belong together"), server_of(parsed(half, "x"), tmp_path):
        pass


def test_a_result_tells_how_it_was_made_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x", "fsdd", "--url", "http://a", "--key=gw_secret", "--sizes", "5", "--key", "k"])
    assert command("few_labels") == "python -m examples.few_labels fsdd --sizes 5"


def test_a_refused_request_ends_a_script_with_the_servers_words(tmp_path: Path) -> None:
    options = parsed("--url", "http://localhost:1", "--key", "gw_1")
    with pytest.raises(SystemExit, match=r"no such mode \[422 invalid\]"), server_of(options, tmp_path):
        raise Unprocessable(422, {"message": "no such mode", "code": "invalid"})
