"""Numbers and times as people read them: with units, short, the exact value at hand."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup

_SIZES = ("B", "KB", "MB", "GB", "TB")


def ago(seconds: int | float | None) -> Markup:
    """A `<time>` such as "3 min ago", with the exact moment (UTC) on hover; unix seconds. A dash for None."""
    if seconds is None:
        return Markup("–")
    exact = datetime.fromtimestamp(seconds, UTC)
    told = exact.strftime("%Y-%m-%d %H:%M:%S UTC")
    words = relative(time.time() - seconds)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(exact.isoformat(), told, words)


def relative(passed: float) -> str:
    """Seconds since something as words."""
    if abs(passed) < 5:
        return "just now"
    text = " ".join(duration(abs(passed)).split()[:2])  # the largest unit is enough, the exact time is on hover
    return f"{text} ago" if passed > 0 else f"in {text}"


def duration(seconds: float | None) -> str:
    """`850 ms`, `42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    whole = round(seconds)
    units = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    first = next(at for at, (size, _) in enumerate(units) if whole >= size)
    (large, name), rest = units[first], units[first + 1 : first + 2]
    text = f"{whole // large} {name}"
    for small, under in rest:
        left = whole % large // small
        text += f" {left} {under}" if left and whole < 100 * large else ""
    return text


def size(count: int | float | None) -> str:
    """Bytes: `13.4 MB`; a dash for None."""
    if count is None:
        return "–"
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_SIZES) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_SIZES[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {_SIZES[unit]}"


def number(value: Any) -> str:
    """`18,846`, `0.8312`, `2.1e-05`, `5.3 M`; text and None as they are."""
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or float(value).is_integer():
        return f"{value / 1e6:.1f} M" if abs(value) >= 1e7 else f"{int(value):,}"
    return f"{value:.4g}" if abs(value) >= 1e-4 else f"{value:.1e}"


def percent(value: float | None) -> str:
    """`16 %`; a dash for None."""
    return "–" if value is None else f"{value:.0f} %"


def pretty(value: Any) -> str:
    """JSON, indented."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def label(name: str) -> str:
    """A field's or a metric's name as words: `train/learning_rate` is "learning rate"."""
    return name.rpartition("/")[2].replace("_", " ")


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested objects by their dotted path; lists stay whole."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {inner: leaf for key, each in value.items() for inner, leaf in flat(each, _join(path, key)).items()}


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
