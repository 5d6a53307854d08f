"""A folder as one file to upload, with what goes wrong in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from groundwork.commands.failures import Failure
from groundwork.errors import GroundworkError
from groundwork.rest.packing import as_one_file


@contextmanager
def as_file(path: Path, on_file: Callable[[int], None] = lambda _: None) -> Iterator[Path]:
    """As `groundwork.rest.packing.as_one_file`. Raises Failure."""
    if not path.exists():
        raise Failure(f"{path} does not exist", "check the path")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(as_one_file(path, on_file))
        except GroundworkError as error:
            words, _, advice = str(error).partition("; ")
            raise Failure(words, advice) from error
        except OSError as error:
            what = error.filename or path
            raise Failure(f"{what}: {error.strerror or error}", "check the path and the room in $TMPDIR") from error
        yield file
