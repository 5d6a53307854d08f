"""A file on its way in: from the socket through the form parser into the store, with flat memory (R16, R18, M10).

The event loop only hands blocks on. Parsing runs in a thread, and so do hashing and writing (app/storage.py).
Whatever breaks off leaves nothing: no bytes, no row, and its promise of room is given back.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.datasets import quota
from app.datasets.multipart import Event, FormParser, PartBytes, PartEnd, PartStart, boundary_of, malformed
from app.edge import body_was
from app.errors import ApiError, InsufficientStorage, TooLarge, Unprocessable, UnsupportedMedia
from app.platform import Platform, session_scope
from app.storage import Store, Stored
from app.threads import in_bulk, in_thread

BLOCK = 256 << 10  # bytes parsed at a time, so that a thread is worth its hop
STALL_SECONDS = 60.0  # silence after which a sender is given up
REFRESH_SECONDS = 60.0
STEP = 64 << 20  # room asked for at a time where the sender does not say how much comes
SLACK = 1 << 20  # of a declared length that may be fields and boundaries
MAX_FIELD = 64 << 10
_Part = tuple[str, str | None, str]  # name, filename, sha256 of the content
DRAIN = 16 << 20  # a refused body larger than this is not read to its end


@dataclass(frozen=True)
class Form:
    """What a route reads: the name of its one file part and of its text fields, and where the file goes."""

    file: str
    fields: frozenset[str]
    key: str
    max_bytes: int
    check: Callable[[dict[str, str]], object] = dict
    """Looks at the fields that came before the file, so that a wrong one is refused before its bytes are read."""


@dataclass
class Received:
    """A file that lies durable in the store, and the fields that came with it."""

    stored: Stored
    filename: str
    fields: dict[str, str]
    hold: str | None
    body: bytes
    """The form as `digest_of_form` would tell it."""


@dataclass
class _Room:
    """The promise of room behind one request. A part of an upload needs none: its upload holds it."""

    platform: Platform
    project_id: str | None
    hold: str | None = None
    size: int = 0
    fresh: float = field(default_factory=time.monotonic)

    async def ensure(self, size: int) -> None:
        if self.project_id is None or (size <= self.size and time.monotonic() - self.fresh < REFRESH_SECONDS):
            return
        wanted = self.size if size <= self.size else (size if self.hold is None else size + STEP)
        await in_thread(self._ask, wanted)
        self.size, self.fresh = wanted, time.monotonic()

    def _ask(self, size: int) -> None:
        free = self.platform.store.free_bytes()
        if free is not None and size - self.size + self.platform.settings.min_free_bytes > free:
            raise InsufficientStorage("disk_full", "The store has no room for this file.")
        with session_scope(self.platform) as session:
            if self.hold is None:
                self.hold = quota.hold(session, self.platform.settings, self.project_id or "", size)
            else:
                quota.extend(session, self.platform.settings, self.hold, size)

    def give_back(self) -> None:
        if self.hold is not None:
            with session_scope(self.platform) as session:
                quota.release(session, self.hold)


@asynccontextmanager
async def receive(request: Request, platform: Platform, form: Form, project_id: str | None) -> AsyncIterator[Received]:
    """Take the form in; the caller writes the row inside the `with`, and a refusal there removes the bytes again.

    `project_id` is whose room it takes; None where the room is held already.

    Raises:
        ApiError: 400 `malformed_multipart`, `too_many_parts`, `upload_broken_off`, `upload_stalled`; 413 `too_large`,
            `quota_exceeded`; 415 `unsupported_media_type`; 422 `empty`, `filename_missing`, `duplicate_field`,
            `missing_field`, `unknown_field`, `encoding_error`; 507 `disk_full`.
    """
    room = _Room(platform, project_id)
    try:
        received = await _take(request, platform.store, form, room)
        body_was(request, received.body)
        try:
            yield received
        except ApiError:
            # Any other failure may hide a commit that went through: then the row needs its bytes.
            await in_thread(platform.store.delete, form.key)
            raise
    except ApiError as error:
        _say_goodbye(request, error)
        raise
    finally:
        await in_thread(room.give_back)


async def _take(request: Request, store: Store, form: Form, room: _Room) -> Received:
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMedia("Content-Encoding is not supported here; send the body as it is.", "Content-Encoding")
    parser = FormParser(boundary_of(request.headers.get("content-type", "")))
    declared = _declared(request)
    if declared is not None and declared > form.max_bytes + SLACK:
        raise TooLarge("too_large", f"The file is larger than the {form.max_bytes} bytes allowed.", form.file)
    await room.ensure(declared if declared is not None else STEP)
    events = _events(request, parser, room)
    taker = _Taker(store, form, form.max_bytes if declared is None else min(declared, form.max_bytes))
    try:
        async for event in events:
            if isinstance(event, PartStart):
                await taker.part(event, events)
        return taker.received(room.hold)
    except BaseException as error:
        await in_thread(store.delete, form.key)
        if isinstance(error, ClientDisconnect):
            raise ApiError("upload_broken_off", "The connection ended before the file did.") from None
        raise


@dataclass
class _Taker:
    """Sorts parts into the store and the fields."""

    store: Store
    form: Form
    limit: int
    stored: Stored | None = None
    filename: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    parts: list[_Part] = field(default_factory=list)

    async def part(self, start: PartStart, events: AsyncIterator[Event]) -> None:
        name = start.name
        content = ""
        if name in self.fields or (name == self.form.file and self.stored is not None):
            raise Unprocessable("duplicate_field", f"`{name}` is given twice; send it once.", name)
        if name == self.form.file:
            if start.filename is None:
                raise Unprocessable("filename_missing", "Send this part as a file, with a filename.", name)
            self.form.check(self.fields)
            self.filename = start.filename
            self.stored = await self.store.put_stream(self.form.key, _content(events), self.limit)
            if self.stored.size == 0:
                raise Unprocessable("empty", "The file is empty.", name)
            content = self.stored.sha256
        elif name in self.form.fields:
            self.fields[name] = await _field(name, _content(events))
            content = hashlib.sha256(self.fields[name].encode()).hexdigest()
        else:
            allowed = ", ".join(sorted({self.form.file, *self.form.fields}))
            raise Unprocessable(
                "unknown_field", f"`{name[:80]}` is not a field of this form; {allowed} are.", name[:80]
            )
        self.parts.append((name, start.filename, content))

    def received(self, hold: str | None) -> Received:
        if self.stored is None:
            raise Unprocessable("missing_field", f"`{self.form.file}` is required.", self.form.file)
        return Received(self.stored, self.filename, self.fields, hold, _told(self.parts))


async def digest_of_form(request: Request) -> bytes:
    """What tells this form from another: names, filenames and the digests of what came. Keeps nothing.

    Raises ApiError as `receive` does for a form that cannot be read, and 413 `too_large`.
    """
    parser = FormParser(boundary_of(request.headers.get("content-type", "")))
    most = request.app.state.platform.settings.max_upload_bytes + SLACK
    parts: list[_Part] = []
    events = _events(request, parser, _Room(request.app.state.platform, None), most)
    async for event in events:
        if isinstance(event, PartStart):
            digest = hashlib.sha256()
            async for content in _content(events):
                await in_bulk(digest.update, content)
            parts.append((event.name, event.filename, digest.hexdigest()))
    return _told(parts)


def _told(parts: list[_Part]) -> bytes:
    return json.dumps(parts).encode()


async def _content(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    async for event in events:
        if isinstance(event, PartEnd):
            return
        if isinstance(event, PartBytes):
            yield event.content


async def _field(name: str, content: AsyncIterator[bytes]) -> str:
    raw = b""
    async for chunk in content:
        raw += chunk
        if len(raw) > MAX_FIELD:
            raise TooLarge("too_large", f"A field may have at most {MAX_FIELD} bytes.", name)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Unprocessable("encoding_error", "Fields must be UTF-8.", name) from None
    if "\0" in text:
        raise Unprocessable("invalid_character", f"`{name}` holds a NUL character, which no text may hold.", name)
    return text


async def _events(request: Request, parser: FormParser, room: _Room, most: int | None = None) -> AsyncIterator[Event]:
    seen = 0
    async for block in _blocks(request):
        seen += len(block)
        if most is not None and seen > most:
            raise TooLarge("too_large", f"The body is larger than the {most} bytes allowed.")
        await room.ensure(seen)
        for event in await in_bulk(parser.feed, block):
            yield event
    parser.finish()


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks of about BLOCK bytes; a sender that falls silent is given up."""
    stream, chunks, size = request.stream().__aiter__(), list[bytes](), 0
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise ApiError("upload_stalled", f"Nothing arrived for {STALL_SECONDS:.0f} seconds.") from None
        if chunk is None:
            break
        chunks.append(chunk)
        size += len(chunk)
        if size >= BLOCK:
            yield b"".join(chunks)
            chunks, size = [], 0
    if size:
        yield b"".join(chunks)


def _declared(request: Request) -> int | None:
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not text.isdecimal():
        raise malformed("the Content-Length is not a number")
    return int(text)


def _say_goodbye(request: Request, error: ApiError) -> None:
    # The server would read a refused body to its end; of a large one that is a waste, so the connection is closed.
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > DRAIN:
        error.headers["Connection"] = "close"
