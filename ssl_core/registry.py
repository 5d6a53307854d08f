"""Finding the objectives, tasks and modalities: a scan of our own folders, checked at import."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Annotated, Any, TypeVar, Union, get_args

from pydantic import Field

from ssl_core.values import Value

T = TypeVar("T", bound=Value)


def scan(package: str, base: type[T]) -> dict[str, type[T]]:
    """The one subclass of `base` in each sibling module, by name.

    Raises:
        ImportError: a file defines no or several subclasses, or its `name` literal is not the file's name.
    """
    found: dict[str, type[T]] = {}
    path = importlib.import_module(package).__path__
    for module_info in sorted(pkgutil.iter_modules(path), key=lambda m: m.name):
        if module_info.name == "base" or module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"{package}.{module_info.name}")
        classes = [
            c
            for c in vars(module).values()
            if isinstance(c, type) and issubclass(c, base) and c.__module__ == module.__name__
        ]
        if len(classes) != 1:
            raise ImportError(
                f"{module.__name__} must define exactly one {base.__name__}, found {len(classes)}"
            )
        name = get_args(classes[0].model_fields["name"].annotation)
        if name != (module_info.name,):
            raise ImportError(f"{module.__name__}: name must be Literal[{module_info.name!r}], not {name}")
        found[module_info.name] = classes[0]
    return found


def union(classes: dict[str, type[T]]) -> Any:
    """The discriminated union on `name` of all of them."""
    members = tuple(classes.values())
    if len(members) == 1:
        return members[0]
    return Annotated[Union[members], Field(discriminator="name")]  # noqa: UP007
