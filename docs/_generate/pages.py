"""Every page that is made rather than written: its place in `docs` and its Markdown."""

from __future__ import annotations

from pathlib import Path

from docs._generate import command_line, http, metrics, objectives, repository, settings, specs


def generated(root: Path) -> dict[str, str]:
    """Path below `docs` -> Markdown.

    Args:
        root: the repository.
    """
    return {
        **repository.pages(root),
        **objectives.pages(root),
        **http.pages(),
        **specs.pages(),
        **settings.pages(),
        **command_line.pages(),
        **metrics.pages(),
    }
