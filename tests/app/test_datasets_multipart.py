"""The form parser: whatever way a body is cut, the same events; whatever is wrong with it, a clear refusal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.datasets.multipart import MAX_PARTS, FormParser, PartBytes, PartEnd, PartStart, boundary_of
from app.errors import ApiError

B = b"XyZ"


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    named = f'; filename="{filename}"' if filename is not None else ""
    return b"--" + B + f'\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + B + b"--\r\n"


def parse(body: bytes, cuts: list[int]) -> list[tuple[str, str | None, bytes]]:
    parser, found = FormParser(B), []
    ends = sorted({min(cut, len(body)) for cut in cuts} | {len(body)})
    for start, end in zip([0, *ends], ends, strict=False):
        for event in parser.feed(body[start:end]):
            if isinstance(event, PartStart):
                found.append([event.name, event.filename, b"", False])
            elif isinstance(event, PartBytes):
                found[-1][2] += event.content
            else:
                assert isinstance(event, PartEnd)
                found[-1][3] = True
    parser.finish()
    assert all(each[3] for each in found)
    return [(each[0], each[1], each[2]) for each in found]


@given(st.binary(max_size=300), st.lists(st.integers(0, 700)))
def test_any_cut_gives_the_same_parts(content: bytes, cuts: list[int]) -> None:
    if b"\r\n--" + B in content:
        return
    body = form(part("name", b"x"), part("file", content, "größe.txt"), part("modality", b"text"))
    assert parse(body, cuts) == [("name", None, b"x"), ("file", "größe.txt", content), ("modality", None, b"text")]


def test_content_that_looks_almost_like_the_boundary_is_content() -> None:
    content = b"\r\n--Xy\r\n--XyQ\r\n-\r\n--" + b"\r\n--X" * 3
    body = form(part("file", content, "f"))
    for cut in range(len(body)):
        assert parse(body, [cut]) == [("file", "f", content)]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no form at all", "malformed_multipart"),
        (b"--Other\r\n\r\n", "malformed_multipart"),
        (b"--XyZ\r\nno colon here\r\n\r\n", "malformed_multipart"),
        (b"--XyZ\r\nContent-Type: text/plain\r\n\r\nx\r\n--XyZ--\r\n", "malformed_multipart"),
        (b"--XyZ\r\nContent-Disposition: attachment; name=x\r\n\r\nx\r\n--XyZ--\r\n", "malformed_multipart"),
        (b"--XyZ\r\n" + b"A: b\r\n" * 20 + b"\r\n", "malformed_multipart"),
        (b"--XyZ\r\nA: " + b"b" * 10_000 + b"\r\n\r\n", "malformed_multipart"),
        (
            part("x", b"y", "\xff".encode("latin-1").decode("latin-1")).replace("ÿ".encode(), b"\xff"),
            "malformed_multipart",
        ),
        (part("a\0b", b"y"), "malformed_multipart"),
        (part("x", b"y").replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n"), "malformed_multipart"),
        (form(*[part(f"f{n}", b"") for n in range(10_000)]), "too_many_parts"),
        (part("file", b"begun and never ended"), "malformed_multipart"),
        (b"", "malformed_multipart"),
    ],
)
def test_a_broken_form_is_refused(body: bytes, code: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse(body, [])
    assert caught.value.code == code and caught.value.status == 400


def test_as_many_parts_as_allowed_pass() -> None:
    assert len(parse(form(*[part(f"f{n}", b"") for n in range(MAX_PARTS)]), [])) == MAX_PARTS


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("", 415),
        ("application/json", 415),
        ("multipart/mixed; boundary=x", 415),
        ("text/plain; charset=größe", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "x" * 71, 400),
        ("multipart/form-data; boundary=" + "x" * 1_000_000, 400),
    ],
)
def test_a_content_type_without_a_usable_boundary_is_refused(content_type: str, status: int) -> None:
    with pytest.raises(ApiError) as caught:
        boundary_of(content_type)
    assert caught.value.status == status


@pytest.mark.parametrize("content_type", ["multipart/form-data; boundary=abc", 'Multipart/Form-Data; boundary="abc"'])
def test_the_boundary_may_be_quoted(content_type: str) -> None:
    assert boundary_of(content_type) == b"abc"
