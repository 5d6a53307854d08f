"""Make the client without asyncio from the one with it: `python -m groundwork.rest.twin`, after every change of `aio`.

The asynchronous source is read as tokens, so nothing in strings that is no name of ours changes but their words for
awaiting. `ruff`, of the development install, puts imports in order and loops that only hand on into `yield from`.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

HERE = Path(__file__).parent
BY_HAND = {"__init__.py", "waiting.py"}
DROPPED = {"async", "await"}
RENAMED = {
    "AsyncIterator": "Iterator",
    "Awaitable": "",
    "aclose": "close",
    "aclosing": "closing",
    "aio": "sync",
    "aiter_bytes": "iter_bytes",
    "aread": "read",
    "asynccontextmanager": "contextmanager",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
}


def twin(source: str) -> str:
    """The same without asyncio."""
    made: list[str] = []
    at = (1, 0)
    lines = source.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        gap = _between(lines, at, token.start)
        if made and made[-1] is _GONE:  # the space behind a word that is gone goes, too
            made[-1], gap = "", ""
        made.append(gap)
        made.append(_GONE if token.type == tokenize.NAME and token.string in DROPPED else _word(token))
        at = token.end
    return "".join(made)


def files() -> dict[Path, str]:
    """What the generated files should be."""
    found = {}
    for path in sorted((HERE / "aio").glob("*.py")):
        if path.name in BY_HAND:
            continue
        target = HERE / "sync" / path.name
        found[target] = _sorted(_marked(twin(path.read_text()), path.name), target)
    return found


_GONE = "\0"


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]] if start[0] <= len(lines) else ""
    middle = lines[start[0] : end[0] - 1]
    last = lines[end[0] - 1][: end[1]] if end[0] <= len(lines) else ""
    return "".join([lines[start[0] - 1][start[1] :], *middle, last])


def _word(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.STRING:
        plain = re.sub(r"\bawait |\basync (?=with|for)", "", token.string)
        plain = re.sub(r"\b(aclose)\b", "close", plain)
        return re.sub(r"\bAsync(?=[A-Z])", "", plain)
    if token.type != tokenize.NAME:
        return token.string
    return RENAMED.get(token.string, re.sub(r"^Async(?=[A-Z])", "", token.string))


def _marked(source: str, name: str) -> str:
    return f"# Made from ../aio/{name} by `python -m groundwork.rest.twin`; change that file, not this one.\n{source}"


def _sorted(source: str, target: Path) -> str:
    command = [sys.executable, "-m", "ruff", "check", "--quiet", "--select", "I,UP028", "--fix", "--unsafe-fixes", "-"]
    done = subprocess.run(
        [*command, "--stdin-filename", str(target)], input=source, capture_output=True, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    for target, content in files().items():
        target.write_text(content)
