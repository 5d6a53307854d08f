"""Every file beside this one that defines one `Modality` is part of the platform; nothing else must be edited."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ssl_core.modalities.base import Column, Modality
from ssl_core.registry import scan, union

MODALITIES: dict[str, type[Modality]] = scan(__name__, Modality)
COLUMNS: dict[str, Column] = {name: column for one in MODALITIES.values() for name, column in one.columns.items()}
"""Every column of content. One that several modalities have means the same in each."""

if TYPE_CHECKING:
    AnyModality: TypeAlias = Modality
else:
    AnyModality = union(MODALITIES)



def with_views(*views: str) -> tuple[str, ...]:
    """Modalities that have all of these views: what an objective that needs nothing else fits."""
    return tuple(name for name, one in MODALITIES.items() if set(views) <= one.views.keys())


__all__ = ["COLUMNS", "MODALITIES", "AnyModality", "Modality", "with_views"]
