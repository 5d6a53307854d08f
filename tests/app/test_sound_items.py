"""Sounds as inputs of embeddings and predictions, over real sockets."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from ssl_core.inference import load
from tests.app.serving import Serving, serving
from tests.ssl_core.tones import sound, tone

__all__ = ["serving"]

CLIPS = {
    "wav": sound(),
    "flac": sound(tone(500, 0.4, rate=7919), 7919, "FLAC"),
    "ogg": sound(tone(700, 1.5, rate=8000), 8000, "OGG"),
    "mpeg": sound(tone(250, 0.5, rate=8000), 8000, "MP3"),
}


def uri(content: bytes, kind: str = "wav") -> str:
    return f"data:audio/{kind};base64,{base64.b64encode(content).decode()}"


def test_sounds_of_every_format_are_embedded_in_one_request(serving: Serving) -> None:
    items = [{"audio": uri(content, kind)} for kind, content in CLIPS.items()]
    reply = serving.client.post("/v1/embeddings", json={"model": serving.models["sound"], "input": items})
    assert reply.status_code == 200, reply.text
    found = np.array([row["embedding"] for row in reply.json()["data"]], dtype=np.float32)
    np.testing.assert_allclose(found, load(serving.folders["sound"]).embed(list(CLIPS.values())), atol=1e-5)


def test_a_sound_gets_a_label(serving: Serving) -> None:
    body = {"model": serving.models["notes"], "input": {"audio": uri(CLIPS["wav"])}}
    (answer,) = serving.client.post("/v1/predictions", json=body).json()["data"]
    (expected,) = load(serving.folders["notes"]).predict([CLIPS["wav"]])
    assert answer["label"] == expected["label"]
    assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"hello there", "unsupported_type"),
        (sound(tone(rate=8000)[:80], 8000), "too_short"),
        (sound(np.zeros(2000)), "silent"),
        (sound()[:200], "decode_error"),
    ],
)
def test_what_is_no_sound_is_refused_at_its_number(serving: Serving, content: bytes, code: str) -> None:
    items = [{"audio": uri(CLIPS["wav"])}, {"audio": uri(content)}]
    refused = serving.refused("/v1/embeddings", model=serving.models["sound"], input=items)
    assert refused == (422, code, "input[1]")


def test_a_type_that_is_not_read_and_an_empty_file_are_refused_before_the_model(serving: Serving) -> None:
    model = serving.models["sound"]
    aiff = uri(b"FORM", "aiff")
    assert serving.refused("/v1/embeddings", model=model, input={"audio": aiff}) == (422, "invalid_input", "input")
    assert serving.refused("/v1/embeddings", model=model, input=[{"audio": uri(b"")}]) == (
        422,
        "empty_input",
        "input[0]",
    )


def test_a_text_is_no_input_of_a_model_of_sounds(serving: Serving) -> None:
    refused = serving.refused("/v1/embeddings", model=serving.models["sound"], input="bread oven")
    assert refused == (422, "wrong_modality", "input")
