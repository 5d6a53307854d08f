"""The families, one file each: `FAMILIES` by file name. Imports without torch."""

from __future__ import annotations

import importlib
import pkgutil

from ssl_core.interop.base import Family


def _scan() -> dict[str, Family]:
    """`FAMILY` of each sibling module. Raises ImportError where a file has none or two claim one `model_type`."""
    found: dict[str, Family] = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        if info.name.startswith("_"):
            continue
        family = getattr(importlib.import_module(f"{__name__}.{info.name}"), "FAMILY", None)
        if not isinstance(family, Family):
            raise ImportError(f"{__name__}.{info.name} must define FAMILY, a Family")
        taken = {name for other in found.values() for name in other.model_types} & set(family.model_types)
        if taken:
            raise ImportError(f"{__name__}.{info.name}: another file has the model types {sorted(taken)} already")
        found[info.name] = family
    return found


FAMILIES: dict[str, Family] = _scan()
BY_MODEL_TYPE: dict[str, Family] = {name: family for family in FAMILIES.values() for name in family.model_types}
