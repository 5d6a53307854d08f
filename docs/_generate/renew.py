"""Runs the blocks of a page for real, and writes what they print into the page: `python -m docs._generate.renew PAGE`.

Every `output` block is replaced by the output of the block before it, and ids of earlier output by the new ones. The
folder holds the files that the page speaks of: with `--data` the tour's pictures, taken from CIFAR-10 there, else the
small ones of `tests/docs/files.py`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import zipfile
from pathlib import Path

from docs._generate.blocks import blocks
from docs._generate.running import Runner, Server
from examples.server import serving
from tests.docs.files import write

SEED = 20240607
POOL, TEST = 4000, 50


def take_pictures(data: Path, folder: Path) -> None:
    """`pictures` without labels, `labelled` with ten a class, `test` with fifty a class."""
    cifar = data / "image" / "cifar10"
    with zipfile.ZipFile(cifar / "unlabeled.zip") as archive:
        names = sorted(name for name in archive.namelist() if not name.endswith("/"))
        chosen = random.Random(SEED).sample(names, POOL)
        _write(folder / "pictures", [archive.read(name) for name in chosen])
    for source, target, most in (("train_10.zip", "labelled", 10), ("test.zip", "test", TEST)):
        with zipfile.ZipFile(cifar / source) as archive:
            of: dict[str, list[bytes]] = {}
            for name in sorted(name for name in archive.namelist() if not name.endswith("/")):
                of.setdefault(name.split("/")[0], []).append(archive.read(name))
        for label, found in of.items():
            _write(folder / target / label, found[:most])


def renewed(text: str, page: str, runner: Runner) -> str:
    """The page with what its blocks print now."""
    lines = text.splitlines()
    shift, came = 0, ""
    for block in blocks(text, page):
        first = block.line + shift
        size = len(block.code.splitlines())
        if block.language in ("sh", "python") and block.reason is None:
            code = runner.with_known("\n".join(lines[first : first + size]))
            lines[first : first + size] = code.splitlines()
            came = runner.presented(runner.run(block))
            print(f"{block}\n{came}", flush=True)
        elif block.language == "output":
            fresh = came.rstrip().splitlines() or ["…"]
            runner.note_ids(block.code, came)
            lines[first : first + size] = fresh
            shift += len(fresh) - size
    return "\n".join(lines) + "\n"


def main() -> None:
    """One page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--data", type=Path, help="the development data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="groundwork-page-") as name:
        folder = Path(name) / "page"
        if options.data is None:
            write(folder, options.page.read_text(encoding="utf-8"))
        else:
            take_pictures(options.data, folder)
        with serving(folder) as (url, key):
            server = Server(url, key, folder / "data", (folder / "serve.log").read_text())
            runner = Runner(server, folder, short=False)
            written = renewed(options.page.read_text(encoding="utf-8"), str(options.page), runner)
    options.page.write_text(written, encoding="utf-8")


def _write(folder: Path, pictures: list[bytes]) -> None:
    folder.mkdir(parents=True)
    for number, content in enumerate(pictures, 1):
        (folder / f"{number:04d}.png").write_bytes(content)


if __name__ == "__main__":
    main()
