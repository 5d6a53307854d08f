"""What can go wrong in a run, each with the words a user reads.

EngineError
├── SpecError        the request does not fit the data or itself (raised at submission wherever possible)
├── DataError        the user's data is at fault: names the file and the row
├── NonFiniteError   the loss or a gradient became NaN or infinite: names the step
├── CollapseError    the representation collapsed or the loss diverged: names number and step
├── CheckpointError  no checkpoint that verifies
└── OutOfMemoryError the device or the machine has too little memory for this spec
"""

from __future__ import annotations

from typing import ClassVar, Literal

ErrorClass = Literal["user", "data", "infra", "oom"]


class EngineError(Exception):
    """An error a user can read and act on. `code` is stable, `param` names the field, file or row."""

    error_class: ClassVar[ErrorClass] = "user"

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


class SpecError(EngineError):
    """The spec does not fit the data, the machine or itself."""


class DataError(EngineError):
    """The data is at fault."""

    error_class: ClassVar[ErrorClass] = "data"


class NonFiniteError(EngineError):
    """The loss or a gradient is NaN or infinite. Never retried blindly (R11)."""


class CollapseError(EngineError):
    """The representation collapsed or the loss diverged; more steps would not help. Never retried blindly (R11)."""


class CheckpointError(EngineError):
    """No checkpoint verifies against its manifest."""


class OutOfMemoryError(EngineError):
    """Too little memory for this spec. Never retried blindly (R11)."""

    error_class: ClassVar[ErrorClass] = "oom"
