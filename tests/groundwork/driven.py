"""The asynchronous client behind the face of the other one, so that one test is a test of both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from groundwork import AsyncClient, Client
from groundwork.rest.aio.resource import AsyncResource
from groundwork.rest.aio.transport import AsyncTransport
from groundwork.rest.values import Thing

Opened = Callable[..., Any]
"""Makes a client: `open(url, key, **options)`."""


class Driven:
    """Whatever is awaited is run to its end, whatever is iterated over is read one by one."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self.__dict__.update(target=target, runner=runner)

    def __getattr__(self, name: str) -> Any:
        return self._shown(getattr(self.target, name))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.target, name, value)

    def __getitem__(self, name: str) -> Any:
        return self.target[name]

    def __repr__(self) -> str:
        return repr(self.target)

    def _shown(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            return self._shown(self.runner.run(value))
        if hasattr(value, "__anext__"):
            return self._read(value)
        if inspect.ismethod(value) or inspect.isfunction(value):
            return lambda *args, **named: self._shown(value(*args, **named))
        if isinstance(value, AsyncResource | AsyncTransport) or hasattr(value, "_gw"):
            return Driven(value, self.runner)
        return value

    def _read(self, items: Any) -> Iterator[Any]:
        async def one() -> Any:
            return await anext(items, None)

        try:
            while (item := self.runner.run(one())) is not None:
                yield self._shown(item)
        finally:
            self.runner.run(items.aclose())


@contextmanager
def opener(kind: str) -> Iterator[Opened]:
    """`open` for the `sync` or the `async` client; all that it opened are closed at the end."""
    if kind == "sync":
        plain: list[Client] = []

        def open_plain(*args: Any, **named: Any) -> Any:
            plain.append(Client(*args, **named))
            return plain[-1]

        yield open_plain
        for each in plain:
            each.close()
        return
    with asyncio.Runner() as runner:
        made: list[AsyncClient] = []

        def open_driven(*args: Any, **named: Any) -> Any:
            made.append(AsyncClient(*args, **named))
            return Driven(made[-1], runner)

        yield open_driven
        for one in made:
            runner.run(one.aclose())


def fields(thing: Any) -> dict[str, Any]:
    """The JSON of an object of either client."""
    found = thing.target if isinstance(thing, Driven) else thing
    assert isinstance(found, Thing)
    return found.raw
