"""The hook of mkdocs: puts the generated pages into the site, and keeps links of the repository's own files working."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402
from mkdocs.structure.pages import Page  # noqa: E402

from docs._generate.pages import generated  # noqa: E402

_MADE: dict[str, str] = {}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Make the pages, and write the folders of the navigation out.

    `objectives/*` is every page of that folder that is named nowhere else, `page.md?` a page that may be missing.
    """
    _MADE.clear()
    _MADE.update(generated(ROOT))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    known = sorted(written | set(_MADE))
    named = {entry for entry in _entries(config.nav or []) if not entry.endswith(("*", "?"))}
    config.nav = [_written_out(item, known, named) for item in config.nav or []]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what was made."""
    for path, content in _MADE.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository that are no pages become their names; links to pages become relative."""
    here = posixpath.dirname(page.file.src_uri)
    known = {file.src_uri for file in files}
    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else relinked(part, here, known) for part in parts)


def relinked(text: str, here: str, known: set[str]) -> str:
    """`text` of a page in folder `here` (of `docs`), with only links that the site can follow."""

    def replace(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        if re.match(r"[a-z]+:|#|/", target):
            return match.group(0)
        path, _, anchor = target.partition("#")
        place = posixpath.normpath(posixpath.join(here, path))
        for found in (place, f"{place}.md", f"{place}/index.md"):
            if found in known:
                link = posixpath.relpath(found, here or ".") + (f"#{anchor}" if anchor else "")
                return f"{picture}[{words}]({link})"
        name = posixpath.normpath(posixpath.join("docs", place))
        if not (ROOT / name).exists():
            return match.group(0)  # mkdocs says that it leads nowhere
        return words if words.strip("`").startswith(name.rstrip("/")) else f"{words} (`{name}`)"

    return _LINK.sub(replace, text)


def _entries(item: Any) -> list[str]:
    if isinstance(item, dict):
        item = list(item.values())
    return [item] if isinstance(item, str) else [entry for each in item for entry in _entries(each)]


def _written_out(item: Any, known: list[str], named: set[str]) -> Any:
    if not isinstance(item, dict):
        return item
    ((title, inside),) = item.items()
    if not isinstance(inside, list):
        return item
    pages: list[Any] = []
    for entry in inside:
        if isinstance(entry, str) and entry.endswith("/*"):
            folder = entry.removesuffix("*")
            pages += [page for page in known if posixpath.dirname(page) + "/" == folder and page not in named]
        elif not isinstance(entry, str) or not entry.endswith("?"):
            pages.append(_written_out(entry, known, named))
        elif entry.removesuffix("?") in known:
            pages.append(entry.removesuffix("?"))
    return {title: pages}
