"""The repository's own files that are pages of the site too: read where they lie, never copied by hand."""

from __future__ import annotations

import re
from pathlib import Path

_FILES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def pages(root: Path) -> dict[str, str]:
    """README, CONTRIBUTING and CHANGELOG, their links seen from `docs`."""
    return {page: _from_docs((root / name).read_text(encoding="utf-8")) for name, page in _FILES.items()}


def _from_docs(text: str) -> str:
    """Relative links of a file in the repository's root, as a page of `docs` writes them."""

    def seen(match: re.Match[str]) -> str:
        target = match.group(1)
        if re.match(r"[a-z]+:|#", target):
            return match.group(0)
        if target in _FILES:
            return f"]({_FILES[target]})"
        return f"]({target.removeprefix('docs/')})" if target.startswith("docs/") else f"](../{target})"

    return re.sub(r"\]\(([^)\s]+)\)", seen, text)
