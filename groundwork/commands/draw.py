"""How things look in a terminal: tables, sheets of facts, curves, sizes and times. The only place that draws."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

BLOCKS = "▁▂▃▄▅▆▇█"
MISSING = "-"
_COLOURS = {
    "ready": "green", "succeeded": "green", "ok": "green", "running": "cyan", "ingesting": "cyan",
    "queued": "yellow", "uploaded": "yellow", "paused": "yellow", "pausing": "yellow", "cancelling": "yellow",
    "warning": "yellow", "failed": "red", "invalid": "red", "error": "red", "cancelled": "bright_black",
}  # fmt: skip
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def console() -> Console:
    """Of standard output. What is piped on is never cut to the width of a screen."""
    import sys

    from rich.console import Console

    width = None if sys.stdout.isatty() else 100_000
    return Console(file=sys.stdout, width=width, highlight=False, soft_wrap=False, emoji=False, markup=False)


def show(*parts: RenderableType | None) -> None:
    """Print them; lines of what is piped on carry no blanks at their ends."""
    out = console()
    if out.is_terminal:
        for part in parts:
            if part is not None:
                out.print(part)
        return
    with out.capture() as captured:
        for part in parts:
            if part is not None:
                out.print(part)
    print("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str = "nothing yet") -> RenderableType:
    """A table without lines. A column whose name ends in `>` is set to the right; ids are never cut."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        right = name.endswith(">")
        whole = name.rstrip(">") in ("id", "status", "dataset", "model", "job") or right
        made.add_column(
            name.rstrip(">"), justify="right" if right else "left", no_wrap=True,
            overflow="fold" if whole else "ellipsis", min_width=29 if name == "id" else None,
        )  # fmt: skip
    for row in rows:
        made.add_row(*map(cell, row))
    return made if made.row_count else plain(empty)


def facts(pairs: Mapping[str, Any]) -> Table:
    """One thing: its facts below each other, those without a value left out."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="bright_black", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs.items():
        if value not in (None, "", {}, []):
            made.add_row(name, cell(value))
    return made


def heading(words: str) -> Text:
    """A line above a part."""
    from rich.text import Text

    return Text(f"\n{words}", style="bold")


def cell(value: Any) -> Text:
    """Anything as a piece of text that no control character of a user's can break; states have their colour."""
    from rich.text import Text

    if isinstance(value, Text):
        return value
    if value is None:
        return Text(MISSING, style="bright_black")
    if isinstance(value, float):
        return Text(number(value))
    if isinstance(value, Mapping | list):
        return plain(json.dumps(value, ensure_ascii=False))
    return Text(clean(str(value)), style=_COLOURS.get(str(value), ""))


def plain(words: str) -> Text:
    """Text as it is, in a terminal that it cannot command."""
    from rich.text import Text

    return Text(clean(words))


def clean(words: str) -> str:
    """Without characters that a terminal would obey."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in words)


def clip(words: str, length: int = 80) -> str:
    """One line of at most `length` characters."""
    line = " ".join(words.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def bar(share: float, width: int = 24) -> str:
    """How far something is, `share` from 0 to 1."""
    done = round(max(0.0, min(1.0, share)) * width)
    return "█" * done + "░" * (width - done)


def sparkline(values: Sequence[float | str], width: int = 48) -> str:
    """A curve in one line. Values that are not finite are `×`; longer curves show the mean of each stretch."""
    numbers = [float(value) for value in values]
    if len(numbers) > width:
        edges = [len(numbers) * place // width for place in range(width + 1)]
        numbers = [_mean(numbers[low:high]) for low, high in itertools.pairwise(edges)]
    finite = [value for value in numbers if math.isfinite(value)]
    if not finite:
        return "×" * len(numbers)
    low, high = min(finite), max(finite)
    span = high - low or 1.0
    return "".join(
        BLOCKS[min(7, int(8 * (value - low) / span))] if math.isfinite(value) else "×" for value in numbers
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def number(value: float | str | None) -> str:
    """A measured number with four digits that count."""
    if value is None:
        return MISSING
    value = float(value)
    return f"{value:,.0f}" if value == int_or_nan(value) and abs(value) < 1e9 else f"{value:.4g}"


def int_or_nan(value: float) -> float:
    """The whole number that `value` is nearest to, or a value equal to none."""
    return float(round(value)) if math.isfinite(value) else math.nan


def count(value: int | None) -> str:
    """18,846."""
    return MISSING if value is None else f"{value:,}"


def size(value: float | None) -> str:
    """13.4 MB, by thousands."""
    if value is None:
        return MISSING
    power = min(len(_UNITS) - 1, max(0, int(math.log10(value) // 3))) if value >= 1 else 0
    return f"{value / 1000**power:.{0 if power == 0 else 1}f} {_UNITS[power]}"


def millions(value: int | None) -> str:
    """5.3 M, of parameters."""
    if value is None:
        return MISSING
    return f"{value / 1e6:.1f} M" if value >= 100_000 else f"{value:,}"


def when(seconds: int | None) -> str:
    """A moment as the reader's clock shows it."""
    return MISSING if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def clock(seconds: float | None = None) -> str:
    """The time of day."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def duration(seconds: float | None) -> str:
    """4 min 10 s."""
    if seconds is None:
        return MISSING
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def between(begin: int | None, end: int | None) -> str:
    """How long from one moment to another, or until now."""
    return MISSING if begin is None else duration((end or time.time()) - begin)


def metrics(values: Mapping[str, Any]) -> dict[str, str]:
    """Numbers by name, in words of four digits."""
    return {name: number(value) if _is_number(value) else str(value) for name, value in sorted(values.items())}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
