"""What every command that talks to a server shares: its flags, its server, one line where it fails, `--json`."""

from __future__ import annotations

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from groundwork.commands.failures import INTERRUPTED, REFUSED, Failure, tell

if TYPE_CHECKING:
    from rich.console import RenderableType

    from groundwork.commands.server import Server

Json = dict[str, Any]
Function = Callable[..., Any]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document instead of words", rich_help_panel="Server")]
Url = Annotated[
    str | None, typer.Option("--url", help="of the server; else GROUNDWORK_URL, `login`", rich_help_panel="Server")
]
Key = Annotated[str | None, typer.Option("--key", help="API key; else GROUNDWORK_API_KEY", rich_help_panel="Server")]


@dataclass
class Terminal:
    """Where a command was started: what it may ask, and how it answers."""

    as_json: bool = False
    url: str | None = None
    key: str | None = None
    _opened: list[Server] = field(default_factory=list)

    @property
    def server(self) -> Server:
        """The one these flags mean. Raises Failure where no key is known."""
        if not self._opened:
            from groundwork.commands.places import find
            from groundwork.commands.server import Server

            self._opened.append(Server(find(self.url, self.key)))
        return self._opened[0]

    def show(self, document: Any, draw: Callable[[], Iterable[RenderableType | None]]) -> None:
        """The answer: a JSON document, or what `draw` makes of it."""
        if self.as_json:
            print(json.dumps(document, indent=2, ensure_ascii=False), flush=True)
            return
        from groundwork.commands.draw import show

        show(*draw())

    def line(self, document: Json) -> None:
        """One line of a stream of JSON documents."""
        print(json.dumps(document, ensure_ascii=False), flush=True)

    def note(self, words: str) -> None:
        """Something beside the answer, such as the id of what is waited for: on standard error."""
        print(words, file=sys.stderr, flush=True)

    def confirm(self, question: str, agreed: bool) -> None:
        """Ask before something that cannot be taken back. Raises Failure where the answer is no, or nobody is there."""
        if agreed:
            return
        if self.as_json or not sys.stdin.isatty():
            raise Failure(question, "give --yes to answer this in a script")
        if not typer.confirm(question, err=True):
            raise Failure("nothing was done", status=REFUSED)

    @property
    def lively(self) -> bool:
        """Whether a person watches: bars and pictures that move are welcome."""
        return not self.as_json and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"

    def close(self) -> None:
        """Let the connection go."""
        for server in self._opened:
            server.close()


def command(group: typer.Typer, name: str, panel: str | None = None) -> Callable[[Function], Callable[..., None]]:
    """Make a function, whose first argument is the terminal, a command of a group.

    It gets `--json`, `--url` and `--key`; the exit status is what it returns, or 0; a Failure is one line.
    """

    def register(function: Function) -> Callable[..., None]:
        @functools.wraps(function)
        def run(ctx: typer.Context, **given: Any) -> None:
            terminal = opened(ctx, given.pop("as_json"), given.pop("url"), given.pop("key"))
            raise typer.Exit(attempt(lambda: function(terminal, **given), terminal))

        hints = get_type_hints(function, include_extras=True)
        own = list(inspect.signature(function).parameters.values())[1:]
        shared = {"as_json": (AsJson, False), "url": (Url, None), "key": (Key, None)}
        parameters = [_parameter("ctx", typer.Context)]
        parameters += [each.replace(annotation=hints[each.name], kind=each.KEYWORD_ONLY) for each in own]
        parameters += [_parameter(each, kind, default) for each, (kind, default) in shared.items()]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        registered: Callable[..., None] = group.command(name, rich_help_panel=panel)(run)
        return registered

    return register


def opened(ctx: typer.Context, as_json: bool, url: str | None = None, key: str | None = None) -> Terminal:
    """The terminal of this command: its own flags, and where it has none those before its name."""
    given: Json = ctx.find_root().obj or {}
    return Terminal(as_json or given.get("as_json", False), url or given.get("url"), key or given.get("key"))


def attempt(work: Callable[[], Any], terminal: Terminal | None = None) -> int:
    """Run it; the exit status."""
    try:
        return int(work() or 0)
    except Failure as failure:
        return tell(failure)
    except (KeyboardInterrupt, typer.Abort):
        print("groundwork: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away: `groundwork jobs list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("GROUNDWORK_TRACEBACK"):
            raise
        advice = "a fault of ours: please report it; GROUNDWORK_TRACEBACK=1 shows where it is"
        return tell(Failure(f"{type(error).__name__}: {error}", advice, REFUSED))
    finally:
        if terminal is not None:
            terminal.close()


def pairs(given: Iterable[str], flag: str) -> dict[str, str]:
    """`k=v` flags as a dictionary. Raises Failure that names the flag."""
    return dict(_pair(each, flag) for each in given)


def _pair(given: str, flag: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not name.strip():
        raise Failure(f"{flag} {given!r} is no pair", f"write it like {flag} name=value")
    return name.strip(), value


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)

