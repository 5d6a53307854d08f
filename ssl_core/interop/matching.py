"""Which of their tensors become which of ours, what is missing, and whether that is enough. Needs torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from torch import Tensor, isfinite, nn

from ssl_core.encoders.base import Encoder
from ssl_core.errors import DataError
from ssl_core.interop.base import Family, Row
from ssl_core.interop.tensors import Theirs
from ssl_core.interop.transforms import Same

_TOLD = 12
"""Names in an error's message; the whole list is told as events and stands in the card of what was imported."""


@dataclass
class Report:
    """What became of every tensor.

    Attributes:
        matched: ours, taken as they are.
        reshaped: ours -> how they were made: stacked, transposed, folded.
        missing: ours, of which nothing was found.
        wrong: ours -> both shapes.
        ignored: theirs -> the reason why it is left out by design.
        unknown: theirs that this family's table does not hold.
        not_finite: theirs with a NaN or an infinity.
    """

    matched: list[str] = field(default_factory=list)
    reshaped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of our tensors and of those of theirs that nothing explains, how many found each other."""
        good = len(self.matched) + len(self.reshaped)
        return good / max(1, good + len(self.missing) + len(self.wrong) + len(self.unknown))

    def summary(self) -> dict[str, Any]:
        """As the card of an imported model holds it."""
        return {
            "matched": self.matched, "reshaped": self.reshaped, "missing": self.missing, "ignored": self.ignored,
            "unknown": self.unknown, "share": round(self.share, 4),
        }  # fmt: skip

    def check(self, least: float) -> None:
        """Raises DataError `import_not_finite`, or `import_mismatch` with the worst names and all counts."""
        if self.not_finite:
            text = f"{len(self.not_finite)} tensors hold NaN or infinity: {_some(self.not_finite)}"
            raise DataError("import_not_finite", text, self.not_finite[0])
        if not self.wrong and self.share >= least:
            return
        good = len(self.matched) + len(self.reshaped)
        needed = good + len(self.missing) + len(self.wrong)
        told = [f"{good} of the encoder's {needed} tensors match, {len(self.ignored)} are left out by design"]
        if self.wrong:
            shapes = [f"{name} ({why})" for name, why in self.wrong.items()]
            told.append(f"{len(self.wrong)} do not fit: {_some(shapes)}")
        if self.missing:
            told.append(f"{len(self.missing)} are missing: {_some(self.missing)}")
        if self.unknown:
            told.append(f"{len(self.unknown)} are unknown: {_some(self.unknown)}")
        worst = [*self.wrong, *self.missing, *self.unknown][0]
        raise DataError("import_mismatch", "; ".join(told), worst)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = f" and {len(listed) - _TOLD} more" if len(listed) > _TOLD else ""
    return ", ".join(name[:160] for name in listed[:_TOLD]) + more


def load(family: Family, encoder: Encoder, theirs: Theirs, parts: Mapping[str, nn.Module] | None = None) -> Report:
    """Fill the encoder, and what stands beside it, as far as their tensors fit, and say what became of each. The caller
    checks the report.

    Args:
        family, encoder, theirs: whose, what, and from what.
        parts: `decoder` and `scale`, as far as they are asked for.
    """
    report = Report()
    rows, state = family.rows(encoder.spec), encoder.state_dict()
    for name, part in (parts or {}).items():
        rows = [*rows, *(replace(row, ours=f"{name}.{row.ours}") for row in _beside(family, name, encoder, part))]
        state |= {f"{name}.{inner}": value for inner, value in part.state_dict().items()}
    names = _sorted(family, theirs, {name for row in rows for name in row.theirs}, report)
    used: set[str] = set()
    for row in rows:
        found = [names[name] for name in row.theirs if name in names]
        used.update(found)
        if len(found) < len(row.theirs):
            lost = [name for name in row.theirs if name not in names]
            report.missing.append(row.ours if len(row.theirs) == 1 else f"{row.ours} (without {', '.join(lost)})")
            continue
        _take(row, found, theirs, state[row.ours], report)
    report.unknown = sorted(name for name in names.values() if name not in used)
    return report


def _beside(family: Family, name: str, encoder: Encoder, part: nn.Module) -> Iterable[Row]:
    if name == "scale" or family.decoder is None:
        return family.scale
    return family.decoder.rows(encoder.spec, len(cast(nn.ModuleList, part.layers)))


def _sorted(family: Family, theirs: Theirs, wanted: set[str], report: Report) -> dict[str, str]:
    """Names behind the prefix -> whole names, of what may belong to the trunk; the rest is a head, or ignored."""
    prefix = next((one for one in family.prefixes if any(name.startswith(one) for name in theirs.shapes)), "")
    names: dict[str, str] = {}
    for name in theirs.shapes:
        inner = _today(name.removeprefix(prefix))
        ignored = () if inner in wanted else family.ignored
        reason = next((each.reason for each in ignored if re.fullmatch(each.pattern, inner)), None)
        if not name.startswith(prefix):
            reason = "of a head on the trunk"
        if reason is None:
            names[inner] = name
        else:
            report.ignored[name] = reason
    return names


_OLD_NAMES = {
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
    "conv.weight_g": "conv.parametrizations.weight.original0",
    "conv.weight_v": "conv.parametrizations.weight.original1",
}


def _today(name: str) -> str:
    """What TensorFlow called the weights of a norm, still so in the files of BERT and in those written of ESM-2; and
    what torch called the parts of a weight norm, in most files of wav2vec 2.0."""
    for old, new in _OLD_NAMES.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _take(row: Row, found: list[str], theirs: Theirs, target: Tensor, report: Report) -> None:
    """One row: our tensor made and written, or the reason why not."""
    parts = theirs.read(found)
    bad = [name for name, part in zip(found, parts, strict=True) if not bool(isfinite(part).all())]
    if bad:
        report.not_finite.extend(bad)
        return
    shapes = " + ".join(str(list(part.shape)) for part in parts)
    try:
        made = row.how.ours(parts)
    except (RuntimeError, IndexError) as error:
        report.wrong[row.ours] = f"{shapes}: {str(error).splitlines()[0][:160]}"
        return
    if made.shape != target.shape:
        report.wrong[row.ours] = f"{shapes} instead of {list(target.shape)}"
        return
    target.copy_(made)
    if isinstance(row.how, Same):
        report.matched.append(row.ours)
    else:
        report.reshaped[row.ours] = f"{type(row.how).__name__.lower()} of {', '.join(found)}"


def their_tensors(family: Family, encoder: Encoder) -> dict[str, Tensor]:
    """What an export writes: every tensor of theirs from ours."""
    return made_of(family.rows(encoder.spec), encoder.state_dict())


def made_of(rows: list[Row], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors by name, from ours."""
    made: dict[str, Tensor] = {}
    for row in rows:
        parts = row.how.theirs(state[row.ours].detach().float().cpu())
        made |= {name: part.contiguous() for name, part in zip(row.theirs, parts, strict=True)}
    return made
