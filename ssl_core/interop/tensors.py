"""Their tensors, read from safetensors alone. Pickles are known by their first bytes, and never opened.

Needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ssl_core.errors import DataError

HEAD = 16
_LONGEST_HEADER = 100_000_000
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".msgpack")


def refuse_pickle(name: str, head: bytes) -> None:
    """Raises DataError `pickle_refused` for a file that is, or by its name would be, unpickled to be read.

    Args:
        name: as the user knows it.
        head: its first `HEAD` bytes.
    """
    # The length of a safetensors header may begin with any byte, also with a pickle's; a brace follows the eighth.
    safe = head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER
    protocol = not safe and len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5
    zipped = head.startswith(b"PK\x03\x04")  # what torch.save writes
    if protocol or zipped or head.startswith(b"\x93NUMPY") or name.lower().endswith(PICKLED):
        text = "weights are read from .safetensors only, since a pickle can run any code; convert it and leave this out"
        raise DataError("pickle_refused", f"{name}: {text}", name)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a public folder: those of its index, or the one there is.

    Raises:
        DataError: `weights_missing`, `invalid_weights` (an index that names what is not there).
    """
    index = folder / INDEX
    if not index.exists():
        files = [folder / SINGLE] if (folder / SINGLE).exists() else sorted(folder.glob("*.safetensors"))
        if len(files) != 1:
            text = f"the folder must hold {SINGLE}, or {INDEX} with the files it names; it holds "
            raise DataError("weights_missing", text + (", ".join(file.name for file in files[:5]) or "no .safetensors"))
        return files
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        found = sorted({str(name) for name in names})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError("invalid_weights", f"{INDEX} has no weight_map", INDEX) from error
    for name in found:
        if Path(name).name != name or not (folder / name).is_file():
            raise DataError("invalid_weights", f"{INDEX} names {name[:200]!r}, which is not in the folder", INDEX)
    return [folder / name for name in found]


class Theirs:
    """All tensors of a public folder by name; read one at a time, so that memory holds what is asked for.

    Raises:
        DataError: as `weight_files`; `invalid_weights` for a file that is no safetensors or a name that stands twice.
    """

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for path in weight_files(folder):
            with path.open("rb") as file:
                refuse_pickle(path.name, file.read(HEAD))
            self._index(path)

    def _index(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as opened:
                shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            text = f"{path.name} is no safetensors file: {str(error).splitlines()[0][:200]}"
            raise DataError("invalid_weights", text, path.name) from error
        for name in shapes.keys() & self.shapes.keys():
            raise DataError("invalid_weights", f"{name} stands in two files", path.name)
        self.shapes |= shapes
        self._files |= dict.fromkeys(shapes, path)

    def read(self, names: list[str]) -> list[Tensor]:
        """Those tensors in float32 (half precision is exact there)."""
        return [self._one(name) for name in names]

    def _one(self, name: str) -> Tensor:
        with safe_open(self._files[name], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(name)
        return tensor.float()


def read_json(path: Path) -> Mapping[str, Any]:
    """An object of a public folder's JSON file. Raises DataError `invalid_config`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("invalid_config", f"{path.name} is missing or is no JSON", path.name) from error
    if not isinstance(value, dict):
        raise DataError("invalid_config", f"{path.name} is no JSON object", path.name)
    return value
